"""Latents on a sphere, and the style codes that they stand for.

A standard normal vector of S dimensions has a length near √S, so nearly all of what a generator was trained with lies
near that sphere (PULSE, section 3.2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from glean_ext.networks import StyleGAN2Generator

SLOPE = 0.2  # of the leaky ReLU that ends the mapping network


class LatentSpace(ABC):
    """Latents (R, L, S) on spheres of radius √S; L is 1, or the number of the generator's style codes."""

    def __init__(self, generator: StyleGAN2Generator):
        self.generator = generator
        self.channels = generator.style_channels  # S

    @property
    @abstractmethod
    def codes_per_image(self) -> int:
        """L"""

    @abstractmethod
    def styles(self, latents: Tensor) -> Tensor:
        """(R, L, S) -> style codes (R, K, S)"""

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """Random latents on the sphere: (count, L, S), the same for the same generator state on every device."""
        latents = torch.randn(count, self.codes_per_image, self.channels, generator=rng)
        return self.project(latents.to(self.generator.constant().device))

    def project(self, latents: Tensor) -> Tensor:
        """To the nearest point of the sphere."""
        return latents * (self.channels**0.5 / latents.norm(dim=-1, keepdim=True))


class InputSpace(LatentSpace):
    """One latent z, which the mapping network takes; all style codes are equal."""

    codes_per_image = 1

    def styles(self, latents: Tensor) -> Tensor:
        return self.generator.style_mapping(latents[:, 0])[:, None].expand(-1, self.generator.num_latents, -1)


class LayerwiseSpace(LatentSpace):
    """A latent for each style code (W+).

    The mapping network ends with a leaky ReLU. Before it the distribution is about normal, so the codes of samples,
    with that function undone, give the mean and the deviation that take a latent of the sphere to a code (PULSE, 2020,
    appendix).
    """

    def __init__(self, generator: StyleGAN2Generator, samples: int = 4096, seed: int = 0):
        super().__init__(generator)
        z = torch.randn(samples, self.channels, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            w = generator.style_mapping(z.to(generator.constant().device))
            linear = torch.where(w < 0, w / SLOPE, w)
            self.mean, self.std = linear.mean(0), linear.std(0)  # (S,)

    @property
    def codes_per_image(self) -> int:
        return self.generator.num_latents

    def styles(self, latents: Tensor) -> Tensor:
        return F.leaky_relu(self.mean + self.std * latents, SLOPE)


SPACES: dict[str, type[InputSpace] | type[LayerwiseSpace]] = {"z": InputSpace, "w+": LayerwiseSpace}


def geodesic_spread(latents: Tensor) -> Tensor:
    """The mean squared angle between the latents of an image, PULSE's cross loss: (R, L, S) -> (R,), in rad².

    It keeps the style codes close to one that the mapping network could have made; 0 for a single latent.
    """
    count = latents.shape[1]
    if count == 1:
        return latents.new_zeros(len(latents))
    unit = F.normalize(latents, dim=-1)
    first, second = torch.triu_indices(count, count, 1, device=latents.device)
    a, b = unit[:, first], unit[:, second]  # (R, pairs, S)
    angle = 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))  # exact for small angles, too
    return angle.square().mean(1)
