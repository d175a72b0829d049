"""The restorer: how GLEAN is trained (CVPR 2021, section 3.4)."""

from __future__ import annotations

import torch
from mmagic.models.editors.srgan import SRGAN
from mmagic.structures import DataSample
from mmengine.optim import OptimWrapperDict
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

    Raises:
        InputError: Only one of ``discriminator`` and ``gan_loss``, or a discriminator for images of another size.
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
        if bool(discriminator) != bool(gan_loss):
            raise InputError(
                "model.discriminator and model.gan_loss go together. Set both, or both to None to train without "
                "adversarial loss."
            )
        out_size = generator.get("out_size")
        if discriminator and discriminator.get("in_size", out_size) != out_size:
            raise InputError(
                f"model.discriminator.in_size is {discriminator['in_size']}, but model.generator.out_size is "
                f"{out_size}. Make them equal."
            )
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

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One step of the generator, and one of the discriminator if there is one.

        Raises:
            InputError: A network without optimiser, or images of different sizes.
        """
        for part in "generator", "discriminator":
            if getattr(self, part) is not None and part not in getattr(optim_wrapper, "optim_wrappers", ()):
                raise InputError(
                    f"optim_wrapper has no {part!r}. Set optim_wrapper=dict({part}=dict(optimizer=...), ..., "
                    "constructor='MultiOptimWrapperConstructor')."
                )
        refuse_mixed_sizes(data)
        return super().train_step(data, optim_wrapper)

    def val_step(self, data: dict) -> list[DataSample]:
        """Restore a batch.

        Raises:
            InputError: Images of different sizes.
        """
        refuse_mixed_sizes(data)
        return super().val_step(data)

    def test_step(self, data: dict) -> list[DataSample]:
        """Restore a batch, see :meth:`val_step`."""
        return self.val_step(data)

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


def refuse_mixed_sizes(data: dict) -> None:
    """Raise InputError for a batch of images of different sizes, which MMagic's preprocessor would pad silently."""
    first, *others = data["inputs"]
    for image, sample in zip(others, data["data_samples"][1:], strict=True):
        if image.shape != first.shape:
            raise InputError(
                f"{sample.metainfo.get('gt_path', 'An image')} gives a low-resolution image of {_size(image)} pixels, "
                f"another of the batch has {_size(first)}. Crop or resize all images to one size."
            )


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]}x{image.shape[-2]}"
