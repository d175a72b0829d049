"""The training of a colorizer, whose one gray input has many answers."""

from __future__ import annotations

import torch
from mmagic.structures import DataSample
from torch import Tensor

from glean_ext.errors import InputError
from glean_ext.models.glean import GLEAN
from glean_ext.networks.colorization import GLEANColorization


class GLEANColorizer(GLEAN):
    """:class:`GLEAN` that trains the nearest of several answers.

    With one answer, a pixel loss is least for the mean of all that are possible: brown. Here some latents are drawn
    for every image, and that one whose answer is nearest to the ground truth is trained (implicit maximum likelihood
    estimation, Li and Malik, 2018): so each colour that the data has comes to belong to some latents. ``z = 0``, what
    the network uses when nothing is sampled, is always among them.

    Args:
        generator: Config of a :class:`~glean_ext.networks.colorization.GLEANColorization`.
        candidates: Answers an image is compared with, in addition to the one that is trained; with 1 there is no
            variety.

    Other arguments are those of :class:`GLEAN`.

    Raises:
        InputError: ``candidates`` is below 1, another generator, or as for :class:`GLEAN`.
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
        r1_gamma: float = 0.0,
        r1_interval: int = 16,
        candidates: int = 4,
    ):
        if not isinstance(candidates, int) or candidates < 1:
            raise InputError(f"model.candidates is {candidates!r}, but it must be a whole number, 1 or more.")
        super().__init__(
            generator=generator,
            pixel_loss=pixel_loss,
            discriminator=discriminator,
            gan_loss=gan_loss,
            perceptual_loss=perceptual_loss,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            init_cfg=init_cfg,
            data_preprocessor=data_preprocessor,
            r1_gamma=r1_gamma,
            r1_interval=r1_interval,
        )
        if not isinstance(self.generator, GLEANColorization):
            raise InputError(
                f"GLEANColorizer trains a GLEANColorization, but model.generator.type is {generator.get('type')!r}. "
                "Set another type."
            )
        self.candidates = candidates
        self.style_channels = self.generator.style_channels

    def forward_tensor(self, inputs: Tensor, data_samples: DataSample | None = None, training: bool = False) -> Tensor:
        """(N, 3, H, W) -> (N, 3, H, W), both in [-1, 1]; in training of the nearest latents."""
        if not training:
            return super().forward_tensor(inputs, data_samples)
        return self.generator(inputs, self.nearest_latents(inputs, self.extract_gt_data(data_samples)))

    @torch.no_grad()
    def nearest_latents(self, inputs: Tensor, gt: Tensor) -> Tensor:
        """For each image the latent, of zeros and ``candidates - 1`` drawn ones, whose answer is nearest: (N, S)."""
        best = inputs.new_zeros(len(inputs), self.style_channels)
        if self.candidates == 1:
            return best
        least = self._distances(inputs, best, gt)
        for _ in range(self.candidates - 1):
            z = torch.randn_like(best)
            distances = self._distances(inputs, z, gt)
            best = torch.where((distances < least)[:, None], z, best)
            least = torch.minimum(least, distances)
        return best

    def _distances(self, inputs: Tensor, z: Tensor, gt: Tensor) -> Tensor:
        """Mean squared error of each image's answer: (N,)"""
        return (self.generator(inputs, z) - gt).square().mean((1, 2, 3))
