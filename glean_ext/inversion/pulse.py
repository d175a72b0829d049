"""PULSE: among the images that a generator can draw, one whose reduction is the low-resolution input.

Source: Menon et al., "PULSE: Self-Supervised Photo Upsampling via Latent Space Exploration of Generative Models", CVPR
2020. The generator is fixed; its latents move on a sphere until ``mean |DS(G(z)) - LR|^p < ε``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glean_ext.errors import InputError
from glean_ext.inversion.latent_space import SPACES, LatentSpace, geodesic_spread
from glean_ext.networks import StyleGAN2Generator
from glean_ext.utils.imresize import contributions

STALL_SHARE = 0.01  # an improvement by less does not count
REACHED, STALLED, EXHAUSTED = "epsilon", "stalled", "steps"  # why a search ended


@dataclass(frozen=True)
class InversionOptions:
    """The settings of a search.

    Attributes:
        space: ``'z'``: one latent for all layers; ``'w+'``: one for each style code, as in the paper.
        steps: Steps at most.
        restarts: Random starts, which are searched side by side; the best image wins.
        lr: Step size of Adam, in units of the latents; after each step they are put back onto the sphere.
        epsilon: The distance that is small enough, of images in [0, 1].
        p: Exponent of the distance, which is a mean over pixels and channels.
        geodesic_weight: Of the mean squared angle between the latents of an image, beside the distance; W+ only.
        patience: Steps without an improvement by 1% after which a search ends.
        seed: Of the starts.
    """

    space: str = "w+"
    steps: int = 200
    restarts: int = 4
    lr: float = 0.4
    epsilon: float = 1e-3
    p: float = 2.0
    geodesic_weight: float = 0.01
    patience: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise InputError(f"{{space}} must be one of {', '.join(SPACES)}, but it is {self.space!r}.", "space")
        for name in ("steps", "restarts", "lr", "epsilon", "p", "patience"):
            if not getattr(self, name) > 0:
                raise InputError(f"{{{name}}} must be above 0, but it is {getattr(self, name)}.", name)
        if self.geodesic_weight < 0:
            message = f"{{geodesic_weight}} must not be negative, but it is {self.geodesic_weight}."
            raise InputError(message, "geodesic_weight")


@dataclass(frozen=True, eq=False)
class Inversion:
    """What a search found.

    Attributes:
        image: (3, H, W), RGB in [-1, 1].
        codes: (K, S), the style codes that draw it.
        distance: Of its reduction to the input, of images in [0, 1].
        reason: Why the search ended: ``'epsilon'`` (reached), ``'stalled'`` or ``'steps'`` (all used).
        steps: Steps done.
        restart: The start that it comes from.
        seconds: The search took.
    """

    image: Tensor
    codes: Tensor
    distance: float
    reason: str
    steps: int
    restart: int
    seconds: float


Progress = Callable[[int, float], None]  # steps done, smallest distance so far


class Reduction:
    """MATLAB's bicubic ``imresize`` as two matrices, so that it can be differentiated. (N, 3, H, W) -> (N, 3, h, w)"""

    def __init__(self, size: tuple[int, int], out_size: tuple[int, int], device: torch.device):
        self.rows, self.columns = (
            torch.from_numpy(resize_matrix(a, b)).float().to(device) for a, b in zip(size, out_size, strict=True)
        )

    def __call__(self, image: Tensor) -> Tensor:
        return self.rows @ image @ self.columns.T


def resize_matrix(in_size: int, out_size: int) -> np.ndarray:
    """One axis of the resize: (out_size, in_size)."""
    indices, weights = contributions(in_size, out_size, out_size / in_size)
    matrix = np.zeros((out_size, in_size))
    np.add.at(matrix, (np.arange(out_size)[:, None], indices), weights)
    return matrix


def invert(
    generator: StyleGAN2Generator,
    lq: Tensor,  # (3, h, w), RGB in [-1, 1]
    options: InversionOptions | None = None,
    progress: Progress | None = None,
) -> Inversion:
    """Search the generator's latents for an image whose reduction is ``lq``.

    The generator's stored noise is used, so that the latents alone decide.

    Raises:
        InputError: ``lq`` has another shape, or is not smaller than the generator's images.
    """
    options = options or InversionOptions()
    start = time.perf_counter()
    require_smaller(lq, generator.out_size)
    search = _Search(generator, lq, options)
    reason = EXHAUSTED
    for step in range(options.steps):
        search.step()
        if progress is not None:
            progress(step + 1, search.distance)
        if search.distance < options.epsilon:
            reason = REACHED
            break
        if search.steps_without_gain >= options.patience:
            reason = STALLED
            break
    image = generator.synthesis(search.codes[None])[0].detach()
    seconds = time.perf_counter() - start
    return Inversion(image, search.codes, search.distance, reason, step + 1, search.restart, seconds)


def require_smaller(lq: Tensor, size: int) -> None:
    """Raise InputError unless ``lq`` is (3, h, w) and smaller than the generator's images."""
    if lq.ndim != 3 or lq.shape[0] != 3 or not 0 < max(lq.shape[1:]) < size or lq.shape[1] != lq.shape[2]:
        raise InputError(
            f"The bank draws square images of {size} pixels, so inversion takes square RGB images that are smaller, "
            f"but got a tensor of shape {tuple(lq.shape)}."
        )


class _Search:
    """The latents of all starts, and the best image so far."""

    def __init__(self, generator: StyleGAN2Generator, lq: Tensor, options: InversionOptions):
        self.generator, self.options = generator, options
        device = generator.constant().device
        self.space: LatentSpace = SPACES[options.space](generator)
        size, (height, width) = generator.out_size, lq.shape[1:]
        self.reduce = Reduction((size, size), (height, width), device)
        self.target = (lq.to(device) + 1) / 2  # (3, h, w) in [0, 1]
        latents = self.space.draw(options.restarts, torch.Generator().manual_seed(options.seed))
        self.latents = latents.requires_grad_()  # (R, L, S)
        self.optim = torch.optim.Adam([self.latents], options.lr)
        self.distance, self.restart = float("inf"), 0
        self.codes = latents.new_zeros(generator.num_latents, generator.style_channels)
        self.steps_without_gain = 0

    def step(self) -> None:
        """Measure all starts, keep the best, and move each along its gradient."""
        codes = self.space.styles(self.latents)  # (R, K, S)
        image = (self.generator.synthesis(codes) + 1) / 2  # (R, 3, H, W) in [0, 1]
        difference = self.reduce(image) - self.target
        distance = difference.abs().pow(self.options.p).mean((1, 2, 3))  # (R,)
        self._keep_best(distance.detach(), codes.detach())
        loss = distance + self.options.geodesic_weight * geodesic_spread(self.latents)
        (self.latents.grad,) = torch.autograd.grad(loss.sum(), self.latents)
        self.optim.step()
        with torch.no_grad():
            self.latents.copy_(self.space.project(self.latents))

    def _keep_best(self, distance: Tensor, codes: Tensor) -> None:
        value, index = distance.min(0)
        self.steps_without_gain += 1
        if value.item() < (1 - STALL_SHARE) * self.distance:
            self.steps_without_gain = 0
        if value.item() < self.distance:
            self.distance, self.restart = value.item(), int(index)
            self.codes = codes[self.restart].clone()
