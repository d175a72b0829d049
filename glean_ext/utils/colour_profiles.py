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


def convert_to_srgb(image: Image.Image, icc: bytes, exact: bool = False) -> Image.Image | None:
    """An image of mode L, RGB or CMYK -> RGB; None where the profile is damaged or describes other colours.

    Args:
        exact: Compute every pixel, which takes long, instead of interpolating in a table, which is wrong by up to ten
            levels in the shadows of steep curves.
    """
    from PIL import ImageCms

    flags = ImageCms.Flags.NOOPTIMIZE if exact else ImageCms.Flags.NONE
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB", flags=flags)
    except Exception:  # Pillow wraps the colour engine's errors in several types
        return None


def convert_gray_to_srgb(gray: np.ndarray, icc: bytes) -> np.ndarray | None:
    """(h, w) uint8 or uint16 -> (h, w, 3) of the same dtype; None as above.

    Source: the colour engine's values of the 256 levels of 8 bits; those between them are interpolated.
    """
    converted = convert_to_srgb(Image.fromarray(np.arange(256, dtype=np.uint8)[None]), icc, exact=True)
    if converted is None:
        return None
    table = np.asarray(converted)[0]  # (256, 3)
    if gray.dtype == np.uint16:
        curves = table.astype(np.float64).T * 257
        table = np.stack([np.interp(np.arange(65536), np.arange(256) * 257, curve) for curve in curves], axis=1)
    return np.rint(table).astype(gray.dtype)[gray]


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
