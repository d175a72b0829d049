"""The shape legend of this package, and the two rules every size obeys.

Comments and docstrings in ``glean_ext.networks`` write shapes with these letters:

    N     images in a batch
    C     channels of a feature map; O: output channels of a convolution
    H, W  height and width of the high-resolution image or of a feature map
    h, w  height and width of the low-resolution input
    S     channels of a style code (512 in the released models)
    K     style codes an image gets: two a resolution, ``2 * log2(out_size) - 2`` in all
"""

from __future__ import annotations

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


def require_scale(in_size: int, out_size: int) -> None:
    """Raise ValueError unless a restorer can enlarge ``in_size`` to ``out_size``: powers of two, the second larger."""
    require_power_of_two("in_size", in_size)
    require_power_of_two("out_size", out_size)
    if in_size >= out_size:
        raise ValueError(f"in_size must be smaller than out_size, but they are {in_size} and {out_size}.")
