"""3x3 convolutions with a quarter of the multiplications, for training on CPUs in fp32.

oneDNN computes them directly, and is near the processor's limit with that. Here an image is divided into tiles of 4x4.
A tile with its margin, 6x6, and the kernel are transformed so that the convolution becomes 36 products of matrices,
(tiles x channels) @ (channels x channels). Transforms and products are PyTorch's.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4: F(4x4, 3x3). With the
points below, which are not the paper's, the rounding error is about twice that of the direct computation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

POINTS = 0, 5 / 8, -5 / 8, 3 / 2, -3 / 2  # and infinity: where the polynomials are evaluated
KERNEL, TILE, WINDOW = 3, 4, 6  # sides, in pixels
TILES_AT_ONCE = 128  # so that a group's transforms stay in the cache
WEIGHTS_AT_ONCE = 20 * 2**20  # transformed numbers; more output channels are computed in parts, which limits memory


class _Transforms(NamedTuple):
    """Of flattened squares: matrices that are multiplied from the left."""

    window: Tensor  # (36, 36)
    kernel: Tensor  # (36, 9)
    tile: Tensor  # (16, 36), of the results


@cache
def _transforms() -> _Transforms:
    def evaluate(terms: int) -> Tensor:  # of polynomials: (6, terms)
        powers = [[point**power for power in range(terms)] for point in POINTS]
        return torch.tensor([*powers, [0] * (terms - 1) + [1]], dtype=torch.float64, device="cpu")

    kernel, tile = evaluate(KERNEL), evaluate(TILE)
    # Pixel i of a tile is the sum of kernel[k] * window[i + k]; this determines the transform of the window.
    products = (tile[:, :, None] * kernel[:, None]).flatten(1).t()  # (4 3, 6)
    wanted = torch.zeros(TILE, KERNEL, WINDOW, dtype=torch.float64, device="cpu")
    for i in range(TILE):
        wanted[i, range(KERNEL), range(i, i + KERNEL)] = 1
    window = torch.linalg.lstsq(products, wanted.flatten(0, 1)).solution  # (6, 6)
    return _Transforms(*(torch.kron(matrix, matrix).float() for matrix in (window, kernel, tile.t())))


def convolution_3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=1)``, channels-last and without a graph for autograd.

    Args:
        x: (N, C, H, W), fp32; H and W are multiples of 4.
        weight: (O, C, 3, 3)
        bias: (O,)

    Returns:
        (N, O, H, W)
    """
    n, _, height, width = x.shape
    y = torch.empty(n, len(weight), height, width, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    first = 0
    for kernels in weight.chunk(_parts(*weight.shape[:2])):
        outputs = slice(first, first := first + len(kernels))
        factors = _transformed(_transforms().kernel, kernels.permute(2, 3, 0, 1)).transpose(1, 2)  # (36, C, O)
        for rows, windows in _windows(x):
            tiles = _transforms().tile @ (windows @ factors).flatten(1)  # (16, T O)
            tiles = tiles.view(TILE, TILE, n, -1, width // TILE, len(kernels))
            if bias is not None:
                tiles += bias[outputs]
            target = y[:, outputs, rows].permute(0, 2, 3, 1).unflatten(2, (-1, TILE)).unflatten(1, (-1, TILE))
            target.copy_(tiles.permute(2, 3, 0, 4, 1, 5))  # (N, rows / 4, 4, W / 4, 4, O)
    return y


def weight_gradient_3x3(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of :func:`convolution_3x3`'s weight: x (N, C, H, W), grad (N, O, H, W) -> (O, C, 3, 3)"""
    channels, outputs = x.shape[1], grad.shape[1]
    gradients = []
    for part in grad.chunk(_parts(outputs, channels), 1):
        factors = x.new_zeros(WINDOW**2, part.shape[1], channels)  # (36, O, C)
        for rows, windows in _windows(x):
            pixels = part[:, :, rows].permute(0, 2, 3, 1).unflatten(2, (-1, TILE)).unflatten(1, (-1, TILE))
            tiles = _transformed(_transforms().tile.t(), pixels.permute(2, 4, 0, 1, 3, 5))  # (36, T, O)
            factors.baddbmm_(tiles.transpose(1, 2), windows)
        gradient = (_transforms().kernel.t() @ factors.flatten(1)).view(KERNEL, KERNEL, -1, channels)
        gradients.append(gradient.permute(2, 0, 1, 3))
    return torch.cat(gradients).contiguous().permute(0, 3, 1, 2)


def _parts(outputs: int, channels: int) -> int:
    """In how many parts a weight (O, C, 3, 3) is used."""
    return math.ceil(outputs * channels * WINDOW**2 / WEIGHTS_AT_ONCE)


def _transformed(transform: Tensor, squares: Tensor) -> Tensor:
    """A transform (36, k k) of squares (k, k, ..., channels), which need not be contiguous: (36, T, channels)"""
    return (transform @ squares.reshape(transform.shape[1], -1)).view(len(transform), -1, squares.shape[-1])


def _windows(x: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The transformed windows of ``x`` in groups of whole rows of tiles: (rows of pixels, (36, T, C))"""
    n, channels, height, width = x.shape
    tiles_in_row = n * width // TILE
    step = TILE * max(1, TILES_AT_ONCE // tiles_in_row)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        padded = x.new_zeros(n, bottom - top + 2, width + 2, channels)
        above, below = min(top, 1), min(height - bottom, 1)  # rows of the image around these
        inner = x[:, :, top - above : bottom + below].permute(0, 2, 3, 1)
        padded[:, 1 - above : 1 - above + inner.shape[1], 1:-1] = inner
        windows = padded.unfold(1, WINDOW, TILE).unfold(2, WINDOW, TILE)  # (N, rows / 4, W / 4, C, 6, 6)
        yield slice(top, bottom), _transformed(_transforms().window, windows.permute(4, 5, 0, 1, 2, 3))
