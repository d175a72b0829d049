"""What sizes of images a network takes, as data."""

from __future__ import annotations

from dataclasses import dataclass

Size = tuple[int, int]  # height, width
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


def _pair(size: int | Size) -> Size:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
