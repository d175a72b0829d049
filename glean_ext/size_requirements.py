"""What sizes of images a network takes, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

Size = tuple[int, int]  # height, width
MIN_SIZE = 4  # pixels: side of a bank's smallest features
MIN_INPUT = 8  # pixels: side of the smallest image that a network of any size takes


def format_size(size: Size) -> str:
    """A size as people write it, the width first.

    >>> format_size((3, 4))
    '4x3'
    """
    return f"{size[1]}x{size[0]}"


@dataclass(frozen=True)
class SizeRequirements:
    """The sizes of images that a network takes, and how many times larger it makes them.

    Every restorer has them as its attribute ``size_requirements``.
    """

    nominal: Size  # pixels: what the network was trained with
    scale: int  # output pixels per input pixel, on each axis
    any_size: bool  # False: only the nominal size; True: every size from MIN_INPUT on

    def accept(self, size: Size) -> bool:
        """Whether the network takes an image of this size as it is."""
        return min(size) >= MIN_INPUT if self.any_size else size == self.nominal

    def __str__(self) -> str:
        return f"any size from {MIN_INPUT}x{MIN_INPUT} on" if self.any_size else f"{format_size(self.nominal)} only"


class SquareSize:
    """A size from a config, and the square that is as long as its longer side.

    Args:
        name: The parameter that errors name.
        size: Side of a square, or (height, width).
        least: The smallest side of the square, in pixels.

    Raises:
        ValueError: The side is no power of two or too small, or the size cannot lie in the middle of the square.
    """

    def __init__(self, name: str, size: int | Sequence[int], least: int = MIN_SIZE):
        self.height, self.width = _height_width(name, size)
        self.side = max(self.height, self.width)
        self.size: int | Size = self.side if self.height == self.width else (self.height, self.width)
        require_power_of_two(f"The longer side of {name}" if isinstance(size, Sequence) else name, self.side, least)
        if (self.side - self.height) % 2 or (self.side - self.width) % 2:
            raise ValueError(f"{name}={(self.height, self.width)} cannot be centred: make both sides even.")

    def __str__(self) -> str:
        return format_size((self.height, self.width))


def require_scale(lq: SquareSize, gt: SquareSize) -> None:
    """Raise ValueError unless ``gt`` is ``lq`` enlarged, both sides by one power of two from 2 on."""
    if lq.side >= gt.side:
        raise ValueError(f"in_size must be smaller than out_size, but they are {lq.size} and {gt.size}.")
    if lq.height * gt.side != gt.height * lq.side or lq.width * gt.side != gt.width * lq.side:
        raise ValueError(f"in_size and out_size must have one aspect, but they are {lq.size} and {gt.size}.")


def require_power_of_two(name: str, value: int, least: int) -> None:
    """Raise ValueError unless ``value`` is a power of two of at least ``least``."""
    if not isinstance(value, int) or value < least or value & (value - 1):
        raise ValueError(f"{name} must be a power of two of at least {least}, but it is {value!r}.")


def _height_width(name: str, size: int | Sequence[int]) -> Size:
    if isinstance(size, Integral):
        return int(size), int(size)
    if isinstance(size, Sequence) and len(size) == 2 and all(isinstance(n, Integral) and n > 0 for n in size):
        return int(size[0]), int(size[1])
    raise ValueError(f"{name} must be one whole number or (height, width), but it is {size!r}.")


def _pair(size: int | Size) -> Size:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
