"""Colour profiles (ICC): pixels of any colour space become sRGB.

The rendering intent is perceptual, which is Pillow's default.
"""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import product

import numpy as np
from PIL import Image

SAME_COLOUR = 2  # of 255; profiles of sRGB by different makers differ by less


def convert_to_srgb(image: Image.Image, icc: bytes) -> Image.Image | None:
    """An image of mode L, RGB or CMYK -> RGB; None where the profile is damaged or describes other colours."""
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except Exception:  # Pillow wraps the colour engine's errors in several types
        return None


def gray_to_srgb_16_bits(gray: np.ndarray, icc: bytes) -> np.ndarray | None:
    """(h, w) uint16 -> (h, w, 3) uint16; None as above. The colour engine has 8 bits; between them it is linear."""
    converted = convert_to_srgb(Image.fromarray(np.arange(256, dtype=np.uint8)[None]), icc)
    if converted is None:
        return None
    curves = np.asarray(converted)[0].astype(np.float64) * 257  # (256, 3)
    levels = np.arange(65536)
    table = np.stack([np.interp(levels, np.arange(256) * 257, curve) for curve in curves.T], axis=1)
    return np.rint(table).astype(np.uint16)[gray]


@lru_cache(maxsize=16)
def is_rgb_profile(icc: bytes) -> bool:
    """Whether a profile describes RGB colours and can be used."""
    return icc[16:20] == b"RGB " and convert_to_srgb(Image.new("RGB", (1, 1)), icc) is not None


@lru_cache(maxsize=16)
def is_srgb(icc: bytes) -> bool:
    """Whether a profile of RGB colours leaves them as they are in sRGB."""
    grid = np.array([list(product(range(0, 256, 51), repeat=3))], np.uint8)  # (1, 216, 3)
    converted = convert_to_srgb(Image.fromarray(grid), icc)
    return converted is None or int(np.abs(np.asarray(converted).astype(int) - grid).max()) <= SAME_COLOUR
