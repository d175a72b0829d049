"""What sizes of images a network takes, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Size = tuple[int, int]  # height, width
MIN_INPUT = 8  # side of the smallest image LightGLEAN takes; as glean_ext.networks.shapes, which imports torch


def format_size(size: Size) -> str:
    """As people write sizes, the width first.

    >>> format_size((3, 4))
    '4x3'
    """
    return f"{size[1]}x{size[0]}"


@dataclass(frozen=True)
class SizeRequirements:
    """The sizes of images that a network takes, and how many times larger it makes them."""

    nominal: Size  # what it was trained with
    scale: int
    any_size: bool  # False: ``nominal`` only; True: all from 8x8 on

    @classmethod
    def of(cls, net: Any) -> SizeRequirements:
        """Those of a restorer: GLEAN has its size in ``in_size``; LightGLEAN has None there, and ``nominal_size``."""
        any_size = net.in_size is None
        nominal = _pair(net.nominal_size if any_size else net.in_size)
        return cls(nominal, _pair(net.out_size)[0] // nominal[0], any_size)

    def accept(self, size: Size) -> bool:
        return min(size) >= MIN_INPUT if self.any_size else size == self.nominal

    def __str__(self) -> str:
        return f"any size from {MIN_INPUT}x{MIN_INPUT} on" if self.any_size else f"{format_size(self.nominal)} only"


def _pair(size: int | Size) -> Size:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
