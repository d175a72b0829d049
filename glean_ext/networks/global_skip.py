"""The enlarged input as a part of the output: the decoder draws what the input lacks, not the whole image.

Source: the global residual of VDSR (Kim et al., CVPR 2016, section 3.1). GLEAN and MMagic's class have none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GlobalSkip(nn.Module):
    """Adds the enlarged input to an image.

    Its factor is learned and starts at 1. It also marks a checkpoint: a network without skip refuses it as it loads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, image: Tensor, lq: Tensor) -> Tensor:
        """(N, 3, H, W), (N, 3, h, w) -> (N, 3, H, W)"""
        large = F.interpolate(lq, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return image + self.gain * large


class NoSkip(nn.Module):
    """In place of the skip of a network without one."""

    def forward(self, image: Tensor, lq: Tensor) -> Tensor:
        return image


def make_global_skip(decoder: nn.Module | None, skip: bool) -> GlobalSkip | NoSkip:
    """The skip of a network with this decoder, or what stands in its place.

    Raises:
        ValueError: There is no decoder: the bank draws the whole image.
    """
    if skip and decoder is None:
        raise ValueError("global_skip=True needs a decoder.")
    return GlobalSkip() if skip else NoSkip()
