"""Blur kernels as pure functions: what the parameters are drawn from is the stages' business.

Sources: Real-ESRGAN (Wang et al., ICCVW 2021), section 3.1, for the generalised Gaussian and plateau kernels, and
section 3.3 for the sinc filter. Values agree with MMagic's ``blur_kernels``.
"""

from __future__ import annotations

import numpy as np
import torch

Array = np.ndarray

NEGLIGIBLE = 1e-6  # share of a kernel's weight that may be cut off with its border: below 0.001 of 255 levels


def gaussian(size: int, sigma_x: float, sigma_y: float, angle: float, beta: float = 1.0) -> Array:
    """exp(-q^beta / 2), where q is the squared distance in units of sigma: (size, size), its sum is 1.

    Args:
        size: Side in pixels, odd.
        sigma_x: Along the first axis of the ellipse, in pixels.
        sigma_y: Along the second one.
        angle: Of the first axis, in radians, from the horizontal one downwards.
        beta: 1 is the Gaussian; below it has heavier tails, above flatter tops.
    """
    return _normalised(np.exp(-0.5 * _squared_distance(size, sigma_x, sigma_y, angle) ** beta))


def plateau(size: int, sigma_x: float, sigma_y: float, angle: float, beta: float) -> Array:
    """1 / (1 + q^beta), arguments and result as :func:`gaussian`."""
    return _normalised(1 / (1 + _squared_distance(size, sigma_x, sigma_y, angle) ** beta))


def sinc(size: int, cutoff: float) -> Array:
    """The circular low-pass filter, which rings as sharpened and compressed images do: (size, size), its sum is 1.

    Args:
        size: Side in pixels, odd.
        cutoff: The highest frequency that passes, in radians a pixel, at most pi.
    """
    x, y = _grid(size)
    distance = np.hypot(x, y)
    distance[size // 2, size // 2] = 1.0  # any but 0; the value there is set below
    bessel = torch.special.bessel_j1(torch.from_numpy(cutoff * distance)).numpy()
    kernel = cutoff * bessel / (2 * np.pi * distance)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * np.pi)
    return _normalised(kernel)


def trimmed(kernel: Array) -> Array:
    """The kernel without a border of negligible weight: small kernels are much faster."""
    weights, cut = np.abs(kernel), 0
    total = weights.sum()
    while 2 * cut + 3 <= len(kernel):
        inner = weights[cut + 1 : -cut - 1, cut + 1 : -cut - 1]
        if total - inner.sum() > NEGLIGIBLE * total:
            break
        cut += 1
    return _normalised(kernel[cut : len(kernel) - cut, cut : len(kernel) - cut])


def _grid(size: int) -> tuple[Array, Array]:
    offsets = np.arange(size, dtype=np.float64) - size // 2
    x, y = np.meshgrid(offsets, offsets)
    return x, y


def _squared_distance(size: int, sigma_x: float, sigma_y: float, angle: float) -> Array:
    x, y = _grid(size)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def _normalised(kernel: Array) -> Array:
    return kernel / kernel.sum()
