"""What the relatives share: enlarged inputs, features at three resolutions, and a decoder that fuses two sets of them.

Shapes: N images, C channels, H W the size of the output. Lists of features are fine to coarse: H, H/2, H/4.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext.networks.encoder import start_at_zero
from glean_ext.networks.references import enlarged, require_references

WIDTHS = (32, 48, 64)  # channels of the features, fine to coarse


def conv(below: int, here: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(below, here, 3, stride, padding=1)


class Block(nn.Module):
    """Residual block without normalisation, as in EDSR. (N, C, H, W) -> the same"""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(conv(width, width), nn.ReLU(), conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Pyramid(nn.Sequential):
    """(N, 3, H, W) -> features of WIDTHS channels at H, H/2, H/4"""

    def __init__(self) -> None:
        levels = [nn.Sequential(conv(3, WIDTHS[0]), Block(WIDTHS[0]))]
        levels += [nn.Sequential(conv(below, here, 2), nn.ReLU(), Block(here)) for below, here in pairwise(WIDTHS)]
        super().__init__(*levels)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for level in self:
            x = level(x)
            features.append(x)
        return features


class FusionDecoder(nn.Module):
    """An image's own features and those taken from elsewhere, level by level, coarse to fine -> what the image lacks.

    The last layer starts at zero: before training the sum of its output and the enlarged input is the enlarged input.
    """

    def __init__(self) -> None:
        super().__init__()
        above = (*WIDTHS[1:], 0)
        self.ups = nn.ModuleList(conv(coarse, 4 * fine) for fine, coarse in pairwise(WIDTHS))
        self.levels = nn.ModuleList(
            nn.Sequential(conv(2 * width + (width if coarser else 0), width), nn.ReLU(), Block(width))
            for width, coarser in zip(WIDTHS, above, strict=True)
        )
        self.last = start_at_zero(conv(WIDTHS[0], 3))

    def forward(self, own: list[Tensor], others: list[Tensor]) -> Tensor:
        """Both fine to coarse: (N, C, H, W), (N, C', H/2, W/2), ... -> (N, 3, H, W)"""
        x = self.levels[-1](torch.cat([own[-1], others[-1]], 1))
        for i in reversed(range(len(self.ups))):
            x = F.pixel_shuffle(self.ups[i](x), 2)
            x = self.levels[i](torch.cat([own[i], others[i], x], 1))
        return self.last(x)


def enlarge(lq: Tensor, scale: int) -> Tensor:
    """Bicubic: (N, 3, h, h) -> (N, 3, s h, s h) in [-1, 1]"""
    return enlarged(lq, scale * lq.shape[-1])


def degrade(images: Tensor, scale: int) -> Tensor:
    """Reduced and enlarged, so that they look like an enlarged input: (N, 3, H, H), H a multiple of s -> the same"""
    small = F.interpolate(images, images.shape[-1] // scale, mode="bicubic", align_corners=False, antialias=True)
    return enlarge(small, scale)


def only_reference(references: Tensor | None, lq: Tensor, large: Tensor) -> Tensor:
    """The reference of each image, or the enlarged input where there is none: (N, 1, 3, H, W) -> (N, 3, H, W)

    Raises:
        InputError: References of another size, or more than one.
    """
    if references is None:
        return large
    require_references(references, lq, (large.shape[-2], large.shape[-1]), at_most=1)
    return references[:, 0]
