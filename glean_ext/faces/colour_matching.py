"""Restored faces get the colours of the photograph."""

from __future__ import annotations

import cv2
import numpy as np

from glean_ext.inference.size_policy import size_of
from glean_ext.utils.imresize import imresize

GAINS = (0.5, 2.0)  # bounds of the factor by which matching colours changes contrast
# RGB -> Y, Cb, Cr (ITU-R BT.601): luminance and chroma are matched separately, and the map is linear.
YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])

Array = np.ndarray


def match_colours(restored: Array, crop: Array, mask: Array) -> Array:
    """Give ``restored`` the mean and standard deviation, in Y, Cb and Cr, that ``crop`` has under the mask.

    They are compared at the size of ``crop``: so the added detail does not count as contrast.

    Source: Reinhard et al., "Color Transfer between Images", IEEE CG&A 2001, in another colour space.

    Args:
        restored: (S, S, 3) RGB, uint8 or uint16.
        crop: (s, s, 3) RGB, of the same dtype.
        mask: (M, M) float.

    Returns:
        As ``restored``.
    """
    size = size_of(crop)
    weights = imresize(mask, size=size).clip(0)[..., None]
    if not weights.sum() > 0:
        return restored
    weights = weights / weights.sum()

    def statistics(image: Array) -> tuple[Array, Array]:
        pixels = image @ YCBCR.T
        mean = (pixels * weights).sum(axis=(0, 1))
        return mean, np.sqrt(((pixels - mean) ** 2 * weights).sum(axis=(0, 1)))

    mean, deviation = statistics(imresize(restored, size=size))
    target_mean, target_deviation = statistics(crop)
    step = np.iinfo(restored.dtype).max / 255
    gain = np.where(deviation > step, np.clip(target_deviation / np.maximum(deviation, step), *GAINS), 1.0)
    to_rgb = np.linalg.inv(YCBCR)
    linear = (to_rgb * gain) @ YCBCR
    shift = to_rgb @ (target_mean - gain * mean)
    return cv2.transform(restored, np.column_stack([linear, shift]))  # rounds and clips
