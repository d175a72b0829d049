"""MATLAB's ``imresize`` with its default, the antialiased bicubic, which made the low-resolution images of the papers.

Other libraries' bicubic differs (OpenCV's does not antialias, Pillow's has other weights at the borders), and GLEAN is
visibly worse on images made with it.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import NamedTuple

import numpy as np

KERNEL_WIDTH = 4  # the cubic is zero from a distance of 2 on
CHUNK_PIXELS = 2**21  # converted to float64 at a time: a whole image would take eight times its memory
BLOCK = 8  # output pixels computed by one matrix product; the fastest of several sizes for 1024 -> 64


class Block(NamedTuple):
    """Output pixels ``first:last`` are ``weights`` (last - first, stop - start) times the input's ``start:stop``."""

    first: int
    last: int
    start: int
    stop: int
    weights: np.ndarray


def imresize(image: np.ndarray, scale: float | None = None, size: tuple[int, int] | None = None) -> np.ndarray:
    """Resize as MATLAB does: bicubic, with a kernel that widens by the factor by which the image shrinks.

    As in MATLAB the axis that shrinks most is resized first, and uint8 and uint16 are rounded (half up) and clipped
    after each axis; convert the image to float first for a result without rounding.

    Args:
        image: (H, W) or (H, W, C), uint8, uint16 or float of any range.
        scale: Factor for both axes; the new size is rounded up. Either this or ``size``.
        size: New height and width.

    Returns:
        (h, w) or (h, w, C), of the image's dtype. Float results may over- and undershoot the image's range.

    Raises:
        TypeError: Another dtype.
        ValueError: Another number of axes, an empty image, or not exactly one positive ``scale`` or ``size``.
    """
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise TypeError(f"imresize takes uint8, uint16 or float images, but got {image.dtype}.")
    if image.ndim not in (2, 3) or not image.size:
        raise ValueError(f"imresize takes (H, W) or (H, W, C) images, but got shape {image.shape}.")
    height, width = image.shape[:2]
    if scale is not None and size is None and scale > 0:
        plan = [(ceil(scale * height), float(scale)), (ceil(scale * width), float(scale))]
    elif size is not None and scale is None and min(size) >= 1:
        plan = [(int(size[0]), size[0] / height), (int(size[1]), size[1] / width)]
    else:
        raise ValueError(f"imresize takes a positive scale or a positive size, but got scale={scale}, size={size}.")
    for axis in sorted((0, 1), key=lambda axis: plan[axis][1]):
        image = _resize_axis(image, axis, *plan[axis])
    return image


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -1/2 (IEEE Trans. ASSP 1981, equation 15)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def contributions(in_size: int, out_size: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The input pixels of each output pixel: indices and weights, both (out_size, taps).

    The weights of a row sum to 1. The image is mirrored at its border, and the border pixel is repeated.
    """
    shrink = min(scale, 1.0)
    taps = ceil(KERNEL_WIDTH / shrink) + 2
    centre = (np.arange(out_size) + 0.5) / scale - 0.5  # of output pixels, in input pixels
    first = np.floor(centre - KERNEL_WIDTH / shrink / 2).astype(np.int64)
    indices = first[:, None] + np.arange(taps)
    weights = cubic(shrink * (centre[:, None] - indices))
    weights /= weights.sum(axis=1, keepdims=True)
    indices %= 2 * in_size
    return np.where(indices < in_size, indices, 2 * in_size - 1 - indices), weights


@lru_cache(maxsize=64)
def _blocks(in_size: int, out_size: int, scale: float) -> tuple[Block, ...]:
    """The resize of one axis as a few small matrix products, since the whole matrix is nearly all zeros."""
    indices, weights = contributions(in_size, out_size, scale)
    step = max(BLOCK, ceil(BLOCK * scale))
    blocks = []
    for first in range(0, out_size, step):
        last = min(first + step, out_size)
        used = indices[first:last]
        start, stop = int(used.min()), int(used.max()) + 1
        matrix = np.zeros((last - first, stop - start))
        np.add.at(matrix, (np.arange(last - first)[:, None], used - start), weights[first:last])
        blocks.append(Block(first, last, start, stop, matrix))
    return tuple(blocks)


def _resize_axis(image: np.ndarray, axis: int, out_size: int, scale: float) -> np.ndarray:
    in_size = image.shape[axis]
    if in_size == out_size and scale == 1:
        return image.copy()
    lines = np.swapaxes(image, 0, axis)
    rest = lines.shape[1:]
    lines = lines.reshape(in_size, -1)
    out = np.empty((out_size, lines.shape[1]), image.dtype)
    for block in _blocks(in_size, out_size, scale):
        columns = max(1, CHUNK_PIXELS // (block.stop - block.start))
        for left in range(0, lines.shape[1], columns):
            part = slice(left, left + columns)
            values = block.weights @ lines[block.start : block.stop, part].astype(np.float64)
            if image.dtype.kind == "u":
                np.clip(values, 0, np.iinfo(image.dtype).max, out=values)
                np.add(values, 0.5, out=values)
                np.floor(values, out=values)
            out[block.first : block.last, part] = values
    return np.ascontiguousarray(np.swapaxes(out.reshape(out_size, *rest), 0, axis))
