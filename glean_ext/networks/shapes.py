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

from glean_ext.size_requirements import MIN_SIZE, SizeRequirements, SquareSize, require_power_of_two, require_scale

Size = int | Sequence[int]  # the side of a square, or (height, width)


def channels_by_resolution(out_size: int, channel_multiplier: float = 2, max_channels: int = 512) -> dict[int, int]:
    """Channels of the bank's feature maps, for every resolution 4, 8, ... out_size.

    The rule of StyleGAN2 (Karras et al., CVPR 2020; configuration f is ``channel_multiplier=2``):
    ``16384 * channel_multiplier / resolution``, at most ``max_channels``. As in MMagic, a multiplier above 2 widens
    the resolutions from 64 on only, and their limit with them.

    >>> channels_by_resolution(64, channel_multiplier=0.25, max_channels=128)
    {4: 128, 8: 128, 16: 128, 32: 128, 64: 64}
    >>> channels_by_resolution(128, channel_multiplier=4)
    {4: 512, 8: 512, 16: 512, 32: 512, 64: 1024, 128: 512}
    """
    require_power_of_two("out_size", out_size, MIN_SIZE)
    limits = max_channels, int(max_channels * max(1, channel_multiplier / 2))
    table = {
        res: min(limits[res >= 64], int(16384 * channel_multiplier) // res) for res in resolutions(MIN_SIZE, out_size)
    }
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


def assert_shape(x: Tensor, shape: Sequence[int | None]) -> None:
    """Check the shape of a block's input where a wrong one would broadcast; None stands for any number.

    Raises:
        AssertionError: The shapes differ: a mistake of the calling code.
    """
    assert x.ndim == len(shape), f"expected a tensor of shape {tuple(shape)}, but got {tuple(x.shape)}"
    for length, expected in zip(x.shape, shape, strict=True):
        if expected is not None:
            assert length == expected, f"expected a tensor of shape {tuple(shape)}, but got {tuple(x.shape)}"


def require_one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {tuple(choices)}, but it is {value!r}.")


class SquarePadding(SquareSize):
    """The square that a bank works on: an image in the middle, black bars on two of its sides.

    Square images get no bars. StyleGAN2's bank of cars was trained on 512x384 images (width x height) padded to 512x512
    with black (``create_lsun_wide`` of NVIDIA's dataset tool) and starts from 4x4 as all banks do: padded in the same
    way, an image lies where the images of the bank's training lay.
    """

    def __init__(self, name: str, size: Size, least: int = MIN_SIZE):
        super().__init__(name, size, least)
        rows, columns = (self.side - self.height) // 2, (self.side - self.width) // 2
        self.bars = columns, columns, rows, rows  # left, right, top, bottom

    def pad(self, image: Tensor) -> Tensor:
        """(N, C, height, width) in [-1, 1] -> (N, C, side, side)"""
        return F.pad(image, self.bars, value=-1.0) if any(self.bars) else image

    def crop(self, image: Tensor) -> Tensor:
        """(N, C, side, side) -> (N, C, height, width)"""
        left, _, top, _ = self.bars
        return image[:, :, top : top + self.height, left : left + self.width]


def square_paddings(in_size: Size, out_size: Size, least: int = MIN_SIZE) -> tuple[SquarePadding, SquarePadding]:
    """The padding of a restorer's input, whose side is at least ``least``, and that of its output.

    Raises:
        ValueError: A size that cannot be padded, or two between which the scale is not one power of two from 2 on.
    """
    lq, gt = SquarePadding("in_size", in_size, least), SquarePadding("out_size", out_size, 2 * MIN_SIZE)
    require_scale(lq, gt)
    return lq, gt


def size_requirements(lq: SquarePadding, gt: SquarePadding, any_size: bool) -> SizeRequirements:
    """The sizes that a restorer with these paddings takes; with ``any_size`` other sizes than its own, too."""
    return SizeRequirements((lq.height, lq.width), gt.side // lq.side, any_size)
