"""The shape legend of this package, and the rules every size obeys.

Comments and docstrings in ``glean_ext.networks`` write shapes with these letters:

    N     images in a batch
    C     channels of a feature map; O: output channels of a convolution
    H, W  height and width of the high-resolution image or of a feature map
    h, w  height and width of the low-resolution input
    S     channels of a style code (512 in the released models)
    K     style codes an image gets: two a resolution, ``2 * log2(out_size) - 2`` in all
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

Size = int | Sequence[int]  # the side of a square, or (height, width)
MIN_SIZE = 4  # the bank starts from a constant of 4x4
MIN_INPUT = 2 * MIN_SIZE  # the smallest input of a restorer, and the smallest image of a bank


def channels_by_resolution(out_size: int, channel_multiplier: float = 2, max_channels: int = 512) -> dict[int, int]:
    """Channels of the bank's feature maps, for every resolution 4, 8, ... out_size.

    The rule of StyleGAN2 (Karras et al., CVPR 2020; configuration f is ``channel_multiplier=2``):
    ``16384 * channel_multiplier / resolution``, never more than ``max_channels``.

    >>> channels_by_resolution(64, channel_multiplier=0.25, max_channels=128)
    {4: 128, 8: 128, 16: 128, 32: 128, 64: 64}
    """
    require_power_of_two("out_size", out_size)
    table = {res: min(max_channels, int(16384 * channel_multiplier) // res) for res in resolutions(MIN_SIZE, out_size)}
    if min(table.values()) < 1:
        raise ValueError(
            f"channel_multiplier={channel_multiplier} and max_channels={max_channels} leave a resolution "
            f"without channels: {table}. Take larger ones."
        )
    return table


def resolutions(first: int, last: int) -> list[int]:
    """Powers of two from ``first`` to ``last``, both included.

    >>> resolutions(4, 32)
    [4, 8, 16, 32]
    """
    return [2**i for i in range(first.bit_length() - 1, last.bit_length())]


def require_power_of_two(name: str, value: int, least: int = MIN_INPUT) -> None:
    """Raise ValueError unless ``value`` is a power of two of at least ``least``."""
    if not isinstance(value, int) or value < least or value & (value - 1):
        raise ValueError(f"{name} must be a power of two of at least {least}, but it is {value!r}.")


def require_one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {tuple(choices)}, but it is {value!r}.")


class SquarePadding:
    """The square that a bank draws, with the images it knows in the middle and black bars around them.

    Square images fill it. StyleGAN2's bank of cars was trained on 512x384 images (width x height) amid 512x512 of black
    (``create_lsun_wide`` of NVIDIA's dataset tool) and starts from 4x4 as all banks do: restoring such images, it gets
    what it knows when they are placed as they were in its training.

    Args:
        name: What errors call the size.
        size: Side of the square images, or (height, width) of others. The longer one is the side of the canvas.

    Raises:
        ValueError: A side that is no power of two from 8 on, or bars of different widths.
    """

    def __init__(self, name: str, size: Size):
        self.height, self.width = _height_width(name, size)
        self.side = max(self.height, self.width)
        self.size: Size = self.side if self.height == self.width else (self.height, self.width)
        require_power_of_two(name if isinstance(size, int) else f"The longer side of {name}", self.side)
        above, left = self.side - self.height, self.side - self.width
        if above % 2 or left % 2:
            raise ValueError(f"{name}={(self.height, self.width)} cannot be centred: make both sides even.")
        self.bars = left // 2, left // 2, above // 2, above // 2

    def place(self, image: Tensor) -> Tensor:
        """(N, 3, height, width) in [-1, 1] -> (N, 3, side, side)"""
        return F.pad(image, self.bars, value=-1.0) if any(self.bars) else image

    def cut(self, image: Tensor) -> Tensor:
        """(N, 3, side, side) -> (N, 3, height, width)"""
        left, _, above, _ = self.bars
        return image[:, :, above : above + self.height, left : left + self.width]

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def _height_width(name: str, size: Size) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Sequence) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size):
        return size[0], size[1]
    raise ValueError(f"{name} must be one whole number or (height, width), but it is {size!r}.")


def canvases(in_size: Size, out_size: Size) -> tuple[SquarePadding, SquarePadding]:
    """The canvases of a restorer's input and output.

    Raises:
        ValueError: A size without a canvas, or two between which the scale is not one power of two from 2 on.
    """
    lq, gt = SquarePadding("in_size", in_size), SquarePadding("out_size", out_size)
    if lq.side >= gt.side:
        raise ValueError(f"in_size must be smaller than out_size, but they are {in_size} and {out_size}.")
    if lq.height * gt.side != gt.height * lq.side or lq.width * gt.side != gt.width * lq.side:
        raise ValueError(f"in_size and out_size must have one aspect, but they are {in_size} and {out_size}.")
    return lq, gt
