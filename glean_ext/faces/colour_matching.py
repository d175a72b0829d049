"""Restored faces get the colours of the photograph.

Luminance and chroma are Y, Cb and Cr of ITU-R BT.601, which are a linear map of RGB. All steps and bounds are in 8-bit
levels; 16-bit images are 257 times finer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from glean_ext.inference.size_policy import size_of
from glean_ext.utils.array_conversion import ROWS
from glean_ext.utils.imresize import imresize

TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
TO_RGB = np.linalg.inv(TO_YCBCR)
LUMINANCE_GAINS = (0.5, 2.0)  # bounds of the factor by which contrast changes
MAX_CHROMA_GAIN = 2.0  # chroma may shrink to nothing: networks also draw colours where the photograph has none
MAX_SLOPE = 0.5  # of chroma over luminance; strongly toned photographs have less
# A photograph is toned where luminance determines chroma. In sepia photographs from JPEG files of quality 50 to 95,
# chroma differs from the tone by 1 to 2.6 levels, less than half of its deviation; in colour photographs by 8 and more.
TONE_LEVELS = 64
MAX_TONE_ERROR = 1.0  # standard deviation of chroma around the tone, in levels
MAX_NOISY_TONE_ERROR, MAX_TONE_ERROR_SHARE = 2.6, 0.5  # in levels, and in standard deviations of chroma
TONE_SIDE = 512  # pixels; larger photographs are reduced first, which also averages the noise of JPEG's chroma

Array = np.ndarray


def is_gray(image: Array) -> bool:
    """Whether R, G and B are equal in every pixel of (H, W, 3)."""
    return bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())


def to_gray(image: Array) -> Array:
    """(H, W, 3) uint8 or uint16 -> its luminance in all three channels; gray pixels stay exactly as they are."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def with_luminance(image: Array, photo: Array) -> Array:
    """The colours of an image with the luminance of a photograph, both (H, W, 3) uint8 or uint16 of one dtype.

    A colour outside of the gamut is drawn towards gray, which does not change its luminance.
    """
    out, top_level = np.empty_like(image), np.iinfo(image.dtype).max
    for top in range(0, len(image), ROWS):
        rows = image[top : top + ROWS].astype(np.float64)
        luminance = (photo[top : top + ROWS] @ TO_YCBCR[0])[..., None]  # (rows, W, 1)
        offset = rows - (rows @ TO_YCBCR[0])[..., None]
        room = np.where(offset > 0, top_level - luminance, luminance)
        share = (room / np.maximum(np.abs(offset), 1e-9)).min(axis=2, keepdims=True).clip(0, 1)
        out[top : top + ROWS] = np.rint(luminance + share * offset)
    return out


@dataclass(frozen=True, eq=False)
class Tone:
    """The colours of a gray or toned photograph as a function of luminance.

    Attributes:
        levels: (N,) luminances, ascending, in levels.
        chroma: (N, 2) Cb and Cr at these luminances.
        gray: All chroma is exactly zero.
    """

    levels: Array
    chroma: Array
    gray: bool = False

    @classmethod
    def of(cls, photo: Array) -> Tone | None:
        """The tone of a photograph, (H, W, 3) uint8 or uint16; None for a colour photograph."""
        if is_gray(photo):
            return cls(np.zeros(1), np.zeros((1, 2)), gray=True)
        factor = max(2 if min(photo.shape[:2]) > 64 else 1, max(photo.shape[:2]) / TONE_SIDE)
        size = [max(1, round(length / factor)) for length in photo.shape[1::-1]]
        reduced = cv2.resize(photo, size, interpolation=cv2.INTER_AREA).reshape(-1, 3) / _level(photo)
        ycbcr = reduced @ TO_YCBCR.T  # (N, 3)
        luminance, chroma = ycbcr[:, 0], ycbcr[:, 1:]
        bins = (luminance * (TONE_LEVELS / 256)).astype(int).clip(0, TONE_LEVELS - 1)
        counts = np.bincount(bins, minlength=TONE_LEVELS)
        used = counts > 0
        means = np.stack([np.bincount(bins, column, TONE_LEVELS)[used] / counts[used] for column in ycbcr.T], axis=1)
        tone = cls(means[:, 0], means[:, 1:])
        error = np.sqrt(((chroma - tone.at(luminance)) ** 2).mean(axis=0)).max()
        toned = error <= MAX_TONE_ERROR
        noisy = error <= min(MAX_NOISY_TONE_ERROR, MAX_TONE_ERROR_SHARE * chroma.std(axis=0).max())
        return tone if toned or noisy else None

    def at(self, luminance: Array) -> Array:
        """(...,) luminances in levels -> (..., 2) Cb and Cr."""
        return np.stack([np.interp(luminance, self.levels, column) for column in self.chroma.T], axis=-1)

    def apply(self, image: Array) -> Array:
        """Keep the luminance of (H, W, 3) uint8 or uint16, and give each pixel the chroma that belongs to it."""
        if self.gray:
            return to_gray(image)
        out, level = np.empty_like(image), _level(image)
        for top in range(0, len(image), ROWS):
            luminance = image[top : top + ROWS] @ TO_YCBCR[0] / level
            ycbcr = np.concatenate([luminance[..., None], self.at(luminance)], axis=-1)
            out[top : top + ROWS] = np.rint(ycbcr @ TO_RGB.T * level).clip(0, np.iinfo(image.dtype).max)
        return out


class Statistics(NamedTuple):
    """Weighted statistics of an image in Y, Cb and Cr."""

    mean: Array  # (3,)
    luminance_deviation: float
    slope: Array  # (2,): chroma over luminance by linear regression
    chroma_deviation: Array  # (2,): what the regression leaves

    @classmethod
    def of(cls, image: Array, weights: Array) -> Statistics:
        """Of (h, w, 3) with weights (h, w, 1), whose sum is 1."""
        pixels = image @ TO_YCBCR.T
        mean = (pixels * weights).sum(axis=(0, 1))
        pixels -= mean
        luminance, chroma = pixels[..., :1], pixels[..., 1:]
        variance = float((luminance**2 * weights).sum())
        level = _level(image)
        covariance = (luminance * chroma * weights).sum(axis=(0, 1))
        slope = (covariance / max(variance, level**2)).clip(-MAX_SLOPE, MAX_SLOPE)
        rest = ((chroma - slope * luminance) ** 2 * weights).sum(axis=(0, 1))
        return cls(mean, variance**0.5, slope, np.sqrt(rest))


def match_colours(restored: Array, crop: Array, mask: Array, smooth: Callable[[Array], Array] | None = None) -> Array:
    """Give ``restored`` the colour statistics that ``crop`` has under the mask.

    These are the mean and deviation of luminance, the mean of chroma, its linear dependence on luminance, and its
    deviation from that. They are compared at the size of ``crop``: so the added detail does not count as contrast.
    Gains are bounded, and a gray crop makes the result gray.

    Source: Reinhard et al., "Color Transfer between Images", IEEE CG&A 2001, in another colour space.

    Args:
        restored: (S, S, 3) RGB, uint8 or uint16.
        crop: (s, s, 3) RGB, of the same dtype.
        mask: (M, M) float.
        smooth: Gets the affine map of colours, (3, 4), and returns the one to apply.

    Returns:
        As ``restored``.
    """
    size = size_of(crop)
    weights = imresize(mask, size=size).clip(0)[..., None]
    if not weights.sum() > 0:
        return restored
    weights = weights / weights.sum()
    source = Statistics.of(imresize(restored, size=size), weights)
    target = Statistics.of(crop, weights)
    level = _level(restored)
    gain = _gain(source.luminance_deviation, target.luminance_deviation, level, *LUMINANCE_GAINS)
    chroma_gain = _gain(source.chroma_deviation, target.chroma_deviation, level, 0, MAX_CHROMA_GAIN)
    linear = np.zeros((3, 3))  # from Y, Cb, Cr to Y, Cb, Cr
    linear[0, 0] = gain
    linear[1:, 0] = gain * target.slope - chroma_gain * source.slope
    linear[[1, 2], [1, 2]] = chroma_gain
    shift = target.mean - linear @ source.mean
    colours = np.column_stack([TO_RGB @ linear @ TO_YCBCR, TO_RGB @ shift])
    matched = cv2.transform(restored, colours if smooth is None else smooth(colours))  # rounds and clips
    return to_gray(matched) if is_gray(crop) else matched


def _gain(source: Array | float, target: Array | float, level: float, low: float, high: float) -> Array:
    """Bounded factors between deviations. Deviations of less than a level are rounding errors: they do not grow."""
    ratio = np.asarray(target) / np.maximum(source, 1e-6 * level)
    return np.where(np.asarray(source) > level, ratio.clip(low, high), ratio.clip(low, 1))


def _level(image: Array) -> float:
    """One 8-bit level in units of the image."""
    return np.iinfo(image.dtype).max / 255
