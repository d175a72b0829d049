"""Augmentation for discriminators that are trained on few images; the generator does not learn the changes.

Real and generated images are changed before the discriminator sees them, each kind of change with probability ``p``;
``p`` follows how much the discriminator overfits. Source: Karras et al., "Training Generative Adversarial Networks with
Limited Data", NeurIPS 2020, section 3 and appendix B. Of its changes this module has mirroring, quarter turns, shifts
by whole pixels, and the five of colour; it has no scaling, free rotation, filtering or noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from glean_ext.networks.shapes import assert_shape

MAX_SHIFT = 0.125  # of the side
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0  # standard deviations; for the last two of the binary logarithm
MAX_P = 0.8  # probability up to which the generator does not learn the changes in practice (section 2.2)
GREY = 1 / math.sqrt(3)  # each component of the unit vector along which the colours are grey


class Augmentation(nn.Module):
    """Changes each image of a batch in its own way, with probability :attr:`p` for each kind of change.

    Attributes:
        p: At most 0.8 in training; 0 leaves images as they are. It is not in the state dict.
    """

    def __init__(
        self,
        target: float = 0.6,  # mean sign of the discriminator's logits of real images at which p stays as it is
        ramp_images: int = 500_000,  # images in which p moves from 0 to 1 when it always moves in one direction
    ):
        super().__init__()
        self.target = target
        self.ramp_images = ramp_images
        self.p = 0.0

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) about [-1, 1] -> the same shape, differentiable any number of times."""
        if self.p == 0:
            return images
        n, _, h, w = images.shape
        flips, turns, shifts = (self._chosen(n) for _ in range(3))
        angles = torch.randint(4, (n,)) if h == w else 2 * torch.randint(2, (n,))
        offsets = ((torch.rand(n, 2) * 2 - 1) * MAX_SHIFT * torch.tensor([h, w])).round().long()
        moves = flips & (torch.rand(n) < 0.5), angles * turns, offsets * shifts[:, None]
        images = move(images, *(value.to(images.device, non_blocking=True) for value in moves))
        return recolour(images, self._colours(n))

    def adapt(self, sign: float, images: int) -> None:
        """Move ``p`` after ``images`` real images whose logits have the mean sign ``sign``."""
        step = images / self.ramp_images * (1 if sign > self.target else -1 if sign < self.target else 0)
        self.p = min(max(self.p + step, 0.0), MAX_P)

    def _chosen(self, n: int) -> Tensor:
        return torch.rand(n) < self.p

    def _colours(self, n: int) -> Tensor:
        """(N, 3, 4): random affine maps of colours."""
        brightness = torch.where(self._chosen(n), BRIGHTNESS * torch.randn(n), 0)
        contrast = torch.where(self._chosen(n), torch.exp2(CONTRAST * torch.randn(n)), 1)
        inverted = self._chosen(n) & (torch.rand(n) < 0.5)
        hue = torch.where(self._chosen(n), math.pi * (torch.rand(n) * 2 - 1), 0)
        saturation = torch.where(self._chosen(n), torch.exp2(SATURATION * torch.randn(n)), 1)
        return colour_maps(brightness, contrast, inverted, hue, saturation)


def move(images: Tensor, mirrored: Tensor, turns: Tensor, offsets: Tensor) -> Tensor:
    """Mirror, then turn, then shift images by whole pixels; the uncovered border shows the image's reflection.

    All tensors are on one device, where the places of all pixels are computed, too.

    Args:
        images: (N, C, H, W)
        mirrored: (N,) bool: left becomes right.
        turns: (N,) quarter turns, anti-clockwise; even for images that are not square.
        offsets: (N, 2): pixels down and to the right, less than a side.
    """
    n, c, h, w = images.shape
    assert_shape(mirrored, (n,))
    assert_shape(turns, (n,))
    assert_shape(offsets, (n, 2))
    y, x = (torch.arange(side, device=images.device) for side in (h, w))
    y, x = y[None, :, None], x[None, None, :]
    # The source of each pixel of the result is computed, so the last change is undone first.
    y, x = _reflected(y - offsets[:, 0, None, None], h), _reflected(x - offsets[:, 1, None, None], w)
    y, x = torch.broadcast_tensors(y, x)  # (N, H, W)
    turns = (turns % 4)[:, None, None]
    sources = [(y, x), (x, h - 1 - y), (h - 1 - y, w - 1 - x), (w - 1 - x, y)]
    y, x = (sum((turns == k) * source[axis] for k, source in enumerate(sources)) for axis in (0, 1))
    x = torch.where(mirrored[:, None, None], w - 1 - x, x)
    places = (y * w + x).flatten(1)  # (N, HW)
    return images.flatten(2).gather(2, places[:, None].expand(-1, c, -1)).reshape(n, c, h, w)


def _reflected(position: Tensor, size: int) -> Tensor:
    """Positions, those outside 0 ... size - 1 reflected at the middle of the border pixel."""
    position = position.abs()
    return torch.where(position >= size, 2 * (size - 1) - position, position)


def colour_maps(brightness: Tensor, contrast: Tensor, inverted: Tensor, hue: Tensor, saturation: Tensor) -> Tensor:
    """Affine maps of colours in [-1, 1], changed in this order.

    Args:
        brightness: (N,): offset of all channels.
        contrast: (N,): factor of all channels.
        inverted: (N,) bool: light becomes dark; hue and saturation stay.
        hue: (N,): angle in radians about the grey axis.
        saturation: (N,): factor of the distance to the grey axis.

    Returns:
        (N, 3, 4): a matrix and an offset.
    """
    grey = torch.full((3, 3), GREY**2)  # projects on the grey axis
    across = torch.tensor([[0, -GREY, GREY], [GREY, 0, -GREY], [-GREY, GREY, 0]])  # cross product with it
    sides = torch.eye(3) - grey
    along = (1 - 2 * inverted.float())[:, None, None] * grey
    turned = hue.cos()[:, None, None] * sides + hue.sin()[:, None, None] * across
    matrix = contrast[:, None, None] * (along + saturation[:, None, None] * turned)  # (N, 3, 3)
    return torch.cat([matrix, matrix.sum(2, keepdim=True) * brightness[:, None, None]], dim=2)


def recolour(images: Tensor, maps: Tensor) -> Tensor:
    """(N, 3, H, W) and (N, 3, 4) -> (N, 3, H, W)"""
    assert_shape(maps, (images.shape[0], 3, 4))
    maps = maps.to(images.device, images.dtype, non_blocking=True)
    colours = torch.baddbmm(maps[:, :, 3:], maps[:, :, :3], images.flatten(2))  # (N, 3, HW)
    return colours.reshape(images.shape)
