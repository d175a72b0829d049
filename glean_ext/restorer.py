"""The restorer: how GLEAN is trained (CVPR 2021, section 3.4)."""

from __future__ import annotations

import torch
from mmagic.models.editors.srgan import SRGAN
from mmagic.structures import DataSample
from torch import Tensor

from glean_ext.errors import InputError
from glean_ext.networks import channels_last


class GLEAN(SRGAN):
    """MSE + perceptual + adversarial training of a generator, alternating with a discriminator.

    The steps are MMagic's ``SRGAN``; losses are computed in fp32 whatever precision the networks run in, and an
    output that does not match the ground truth is an error instead of a broadcast.

    Args:
        generator: Config of the restoration network.
        pixel_loss: Config of the pixel loss, ``MSELoss`` in the paper.
        discriminator: Config of the discriminator; None trains without adversarial loss.
        gan_loss: Config of the adversarial loss; its weight (1e-2 in the paper) counts for the generator.
        perceptual_loss: Config of the perceptual loss (1e-2 in the paper); None leaves it out.
        train_cfg: ``disc_steps``, ``disc_repeat``, ``disc_init_steps`` as in ``SRGAN``.
        test_cfg: As in ``SRGAN``; not used.
        init_cfg: mmengine's initialisation of the whole model; the bank has its own in ``generator``.
        data_preprocessor: Config; images must reach the network as RGB in [-1, 1].
    """

    def __init__(
        self,
        generator: dict,
        pixel_loss: dict,
        discriminator: dict | None = None,
        gan_loss: dict | None = None,
        perceptual_loss: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(
            generator=generator,
            discriminator=discriminator,
            gan_loss=gan_loss,
            pixel_loss=pixel_loss,
            perceptual_loss=perceptual_loss,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            init_cfg=init_cfg,
            data_preprocessor=data_preprocessor,
        )

        channels_last(self)

    def forward_tensor(self, inputs: Tensor, data_samples: DataSample | None = None, training: bool = False) -> Tensor:
        """(N, 3, h, w) -> (N, 3, H, W), both in [-1, 1]."""
        return self.generator(inputs.contiguous(memory_format=torch.channels_last))

    def extract_gt_data(self, data_samples: DataSample) -> Tensor:
        """The ground truth of a batch: (N, 3, H, W) in [-1, 1]."""
        return super().extract_gt_data(data_samples).contiguous(memory_format=torch.channels_last)

    def g_step(self, batch_outputs: Tensor, batch_gt_data: Tensor) -> dict[str, Tensor]:
        """Losses of the generator. Both (N, 3, H, W) in [-1, 1].

        Raises:
            InputError: The output and the ground truth differ in shape.
        """
        if batch_outputs.shape != batch_gt_data.shape:
            raise InputError(
                f"The network makes images of shape {tuple(batch_outputs.shape)}, but the ground truth has "
                f"{tuple(batch_gt_data.shape)}. generator.out_size must be the size of the GT images, and the "
                "dataset's scale out_size / in_size."
            )
        losses = super().g_step(batch_outputs.float(), batch_gt_data)
        return {name: loss.float() for name, loss in losses.items()}
