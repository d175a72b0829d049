"""MMagic's training of StyleGAN2 banks, with R1 in full precision."""

from __future__ import annotations

from contextlib import nullcontext

from mmagic.models.editors.stylegan2 import StyleGAN2
from torch import Tensor

from glean_ext.networks.precision import full_precision, runs_in_fp16


class BankTrainer(StyleGAN2):
    """MMagic's ``StyleGAN2`` with the same arguments, whose R1 is computed in fp32 where the discriminator uses fp16.

    No loss scaling applies to R1's inner gradient, and in fp16 it would underflow.
    """

    def disc_loss(
        self, disc_pred_fake: Tensor, disc_pred_real: Tensor, real_imgs: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the discriminator and its parts for the log.

        Args:
            disc_pred_fake: (N, 1), logits of generated images.
            disc_pred_real: (N, 1), logits of ``real_imgs``.
            real_imgs: (N, 3, H, W) in [-1, 1]; R1 passes them through the discriminator again.
        """
        fp16 = runs_in_fp16(self.discriminator, real_imgs.device)
        with full_precision(self.discriminator, real_imgs.device) if fp16 else nullcontext():
            return super().disc_loss(disc_pred_fake, disc_pred_real, real_imgs)
