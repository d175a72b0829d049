"""Overlapping tiles with feathered seams: how an image is restored that does not go through a network as a whole.

An image (N, C, h, w) is cut into tiles, each is enlarged ``scale`` times by a function, and the results are joined.
Only one row of tiles is held at a time. All arrays are float32; networks of any kind can be behind the function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np

from glean_ext.size_requirements import Size

Array = np.ndarray
Forward = Callable[[Array], Array]  # (N, C, h, w) -> (N, C, scale h, scale w)
Span = tuple[int, int]  # the pixels from the first number to before the second


def smallest_tile(overlap: int, period: int, least: int) -> int:
    """The smallest tiles that :func:`spans` can lay."""
    return max(overlap + period, least + period - 1)


def spans(length: int, tile: int, overlap: int, period: int = 1, least: int = 1) -> list[Span]:
    """Where the tiles of one axis lie.

    Neighbours overlap by ``overlap`` pixels, by up to ``period - 1`` more where starts have to be rounded down; only
    the last one, which ends with the axis, may be shorter than the others, and overlaps more where it would otherwise
    be shorter than ``least``.

    Args:
        length: Pixels of the axis, at least ``least``.
        tile: Pixels of a tile.
        overlap: Pixels that neighbours share.
        period: Every tile starts at a multiple of it.
        least: No tile is shorter.

    Raises:
        ValueError: Tiles too small for the overlap, the period or ``least``.

    >>> spans(100, tile=40, overlap=8, period=16, least=8)
    [(0, 40), (32, 72), (64, 100)]
    """
    if length < least or (length > tile and tile < smallest_tile(overlap, period, least)):
        raise ValueError(f"no tiles of {tile} for {length} pixels: overlap {overlap}, period {period}, least {least}.")
    stride = (tile - overlap) // period * period
    starts = [0]
    while starts[-1] + tile < length:
        starts.append(starts[-1] + stride)
    starts[-1] = min(starts[-1], (length - least) // period * period)
    return [(start, min(start + tile, length)) for start in starts]


def ramp(length: int, share: float = 1.0) -> Array:
    """Weights that rise linearly from 0 to 1 in the middle ``share`` of ``length`` pixels: (length,).

    Reversed they are ``1 - ramp``.

    >>> ramp(4), ramp(4, share=0.5)
    (array([0.125, 0.375, 0.625, 0.875], dtype=float32), array([0.  , 0.25, 0.75, 1.  ], dtype=float32))
    """
    centres = (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(max(length, 1))
    return ((centres - np.float32(0.5)) / np.float32(share) + np.float32(0.5)).clip(0, 1)


def cross_fade(first: Array, second: Array, axis: int, share: float = 1.0) -> Array:
    """From ``first`` to ``second`` along ``axis``, by :func:`ramp`; both have one shape.

    The weights of the two sum to 1, and where they are equal the result is exactly that.
    """
    weights = ramp(first.shape[axis], share).reshape([-1 if i == axis else 1 for i in range(first.ndim)])
    mixed = second - first
    mixed *= weights
    mixed += first
    return mixed


@dataclass(frozen=True)
class Tiling:
    """How images are cut into tiles and joined again; lengths in pixels of the input."""

    tile: Size
    overlap: int  # of neighbours, at least
    scale: int  # of the network
    period: int = 1  # tiles start at multiples of it
    least: Size = (1, 1)  # no tile is smaller; smaller images are padded by repeating their border
    feather: float = 1.0  # the share of an overlap, in its middle, over which one tile fades into the next

    @property
    def smallest_tile(self) -> int:
        """The side that tiles must have at least."""
        return smallest_tile(self.overlap, self.period, max(self.least))

    def sides(self, size: Size) -> range:
        """The sides that square tiles of an image may have, so that none is larger than needed."""
        first = self.overlap + self.period * ceil((self.smallest_tile - self.overlap) / self.period)
        return range(first, max(size) + self.period, self.period)

    def smaller_tile(self, size: Size) -> Size | None:
        """Square tiles of at most half the side that an image has now, or the smallest; None: it has those already."""
        now = max(min(length, tile) for length, tile in zip(size, self.tile, strict=True))
        sides = [side for side in self.sides(size) if side < now]
        if not sides:
            return None
        side = max((side for side in sides if side <= now // 2), default=sides[0])
        return side, side

    def spans(self, size: Size) -> tuple[list[Span], list[Span]]:
        """The rows and columns of tiles for an image."""
        rows, columns = (
            spans(max(length, least), tile, self.overlap, self.period, least)
            for length, tile, least in zip(size, self.tile, self.least, strict=True)
        )
        return rows, columns

    def count(self, size: Size) -> int:
        """The number of tiles for an image."""
        rows, columns = self.spans(size)
        return len(rows) * len(columns)

    def bands(self, forward: Forward, image: Array) -> Iterator[Array]:
        """The result from top to bottom: (N, C, h, w) -> (N, C, rows, scale w), ``scale h`` rows in all.

        A band is valid until the next one is taken.
        """
        height, width = image.shape[2:]
        rows, columns = self.spans((height, width))
        down, right = max(0, self.least[0] - height), max(0, self.least[1] - width)
        image = np.pad(image, ((0, 0), (0, 0), (0, down), (0, right)), mode="edge") if down or right else image
        unfinished = None  # the rows that the next row of tiles overlaps
        for i, (top, bottom) in enumerate(rows):
            band = self._row(forward, image[:, :, top:bottom], columns)
            if unfinished is not None:
                seam = unfinished.shape[2]
                band[:, :, :seam] = cross_fade(unfinished, band[:, :, :seam], 2, self.feather)
            end = rows[i + 1][0] if i + 1 < len(rows) else height
            done = self.scale * (end - top)
            unfinished = band[:, :, done:]
            yield band[:, :, :done, : self.scale * width]

    def _row(self, forward: Forward, image: Array, columns: list[Span]) -> Array:
        """One row of tiles, joined: (N, C, h, w) -> (N, C, scale h, scale w)."""
        n, c, height, width = image.shape
        band = np.empty((n, c, self.scale * height, self.scale * width), np.float32)
        filled = 0
        for left, right in columns:
            piece = forward(np.ascontiguousarray(image[..., left:right]))
            start, stop = self.scale * left, self.scale * right
            seam = filled - start
            band[..., start:filled] = cross_fade(band[..., start:filled], piece[..., :seam], 3, self.feather)
            band[..., filled:stop] = piece[..., seam:]
            filled = stop
        return band


def largest_difference(forward: Forward, image: Array, tiling: Tiling, whole: Array | None = None) -> float:
    """How much tiles change the result: 0 not at all, 1 black became white.

    Args:
        forward: The network.
        image: (1, C, h, w) in [-1, 1].
        tiling: How it is cut.
        whole: ``forward(image)``, where it is known already.
    """
    whole = forward(image) if whole is None else whole
    top, largest = 0, 0.0
    for band in tiling.bands(forward, image):
        there = whole[:, :, top : top + band.shape[2]]
        largest = max(largest, float(np.abs(band.clip(-1, 1) - there.clip(-1, 1)).max()) / 2)
        top += band.shape[2]
    return largest
