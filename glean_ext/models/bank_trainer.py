"""MMagic's training of StyleGAN2 banks, with its regularizers in full precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from mmagic.models.editors.stylegan2 import StyleGAN2
from torch import Tensor, nn

from glean_ext.networks.precision import full_precision, runs_in_fp16


class BankTrainer(StyleGAN2):
    """MMagic's ``StyleGAN2`` with the same arguments, whose R1 and path lengths are computed in fp32, never in fp16.

    No loss scaling applies to the inner gradients of the two, and in fp16 they would underflow.
    """

    def gen_loss(self, disc_pred_fake: Tensor, batch_size: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the generator and its parts for the log.

        Args:
            disc_pred_fake: (N, 1), logits of generated images.
            batch_size: N; the path length regularizer draws that many images, or fewer (``pl_batch_shrink``).
        """
        with fp32_instead_of_fp16(self.generator, disc_pred_fake.device):
            return super().gen_loss(disc_pred_fake, batch_size)

    def disc_loss(
        self, disc_pred_fake: Tensor, disc_pred_real: Tensor, real_imgs: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the discriminator and its parts for the log.

        Args:
            disc_pred_fake: (N, 1), logits of generated images.
            disc_pred_real: (N, 1), logits of ``real_imgs``.
            real_imgs: (N, 3, H, W) in [-1, 1]; R1 passes them through the discriminator again.
        """
        with fp32_instead_of_fp16(self.discriminator, real_imgs.device):
            return super().disc_loss(disc_pred_fake, disc_pred_real, real_imgs)


def fp32_instead_of_fp16(net: nn.Module, device: torch.device) -> AbstractContextManager:
    """Compute ``net`` in fp32 if it would run in fp16; bf16 has the range of fp32 and stays."""
    return full_precision(net, device) if runs_in_fp16(net, device) else nullcontext()
