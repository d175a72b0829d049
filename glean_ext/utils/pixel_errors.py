"""PSNR and SSIM of images as arrays."""

from __future__ import annotations

import math

import numpy as np

from glean_ext.utils.imresize import imresize

PEAK = 255
WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian window, in pixels
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """The peak signal-to-noise ratio of two uint8 images of one shape, in dB; infinity for equal ones."""
    mse = float(np.square(a.astype(np.float64) - b).mean())
    return 10 * math.log10(PEAK**2 / mse) if mse else math.inf


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """The structural similarity of two images (H, W, C) uint8 of at least 11 pixels a side: the mean over channels.

    As in Wang et al., IEEE TIP 2004, where the window lies within the image.
    """
    return float(np.mean([_ssim(x, y) for x, y in zip(*(np.moveaxis(i, 2, 0) for i in (a, b)), strict=True)]))


def lr_errors(output: np.ndarray, lq: np.ndarray) -> tuple[float, float]:
    """PSNR (dB) and mean absolute error (of 1) of an input (h, w, 3) uint8 and the output, resized to its size.

    The output is resized by MATLAB's antialiased bicubic ``imresize`` in 8 bits.
    """
    small = imresize(output, size=(lq.shape[0], lq.shape[1]))
    return psnr(small, lq), float(np.abs(small.astype(np.float64) - lq).mean() / PEAK)


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    mx, my = _blur(x), _blur(y)
    vx, vy, vxy = _blur(x * x) - mx * mx, _blur(y * y) - my * my, _blur(x * y) - mx * my
    return float(((2 * mx * my + C1) * (2 * vxy + C2) / ((mx * mx + my * my + C1) * (vx + vy + C2))).mean())


def _blur(x: np.ndarray) -> np.ndarray:
    """(H, W) -> (H - 10, W - 10)"""
    taps = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    taps /= taps.sum()
    height, width = (side - WINDOW + 1 for side in x.shape)
    rows = sum(tap * x[i : i + height] for i, tap in enumerate(taps))
    return np.asarray(sum(tap * rows[:, i : i + width] for i, tap in enumerate(taps)))
