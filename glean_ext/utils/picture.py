"""A picture in memory: its pixels, and all that an image file says about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image

from glean_ext.utils.array_conversion import to_8_bits
from glean_ext.utils.colour_profiles import convert_to_srgb, is_srgb

MIN_VISIBLE_OPACITY = 1 / 32  # the colours of pixels with less are mostly rounding errors
MATTE = "white"  # behind transparent pixels, as in a viewer or on paper

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright picture.

    Attributes:
        pixels: (h, w, 3) uint8 or uint16 RGB. Transparent pixels have the colours that the file stores for them.
        alpha: (h, w) of the same dtype, 0 is transparent; None: everything is opaque.
        icc: The profile that defines the colours of ``pixels``; None: sRGB.
        exif: EXIF metadata as bytes that begin with ``Exif``; without orientation, size and thumbnail.
        xmp: XMP metadata, an XML document in UTF-8.
        dpi: Resolution in pixels per inch, horizontally and vertically.
        not_carried: What the file contains but this picture does not, in words: ``'4 more frames of the animation'``.
        further: Of these, frames and pages after the first one.
    """

    pixels: Array
    alpha: Array | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    not_carried: tuple[str, ...] = ()
    further: tuple[str, ...] = ()

    def with_pixels(self, pixels: Array, alpha: Array | None = None) -> Picture:
        """Other pixels with the profile and the metadata of this picture."""
        return replace(self, pixels=pixels, alpha=alpha)

    @cached_property
    def filled(self) -> Array:
        """(h, w, 3): ``pixels`` with the colour of the nearest visible pixel wherever nothing is visible.

        Editors leave arbitrary colours under transparent pixels, which a network would blend into the visible ones.
        """
        if self.alpha is None:
            return self.pixels
        hidden = self.alpha < MIN_VISIBLE_OPACITY * np.iinfo(self.alpha.dtype).max
        if not hidden.any() or hidden.all():
            return self.pixels
        import cv2

        _, labels = cv2.distanceTransformWithLabels(
            hidden.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
        )
        colours = np.zeros((labels.max() + 1, 3), self.pixels.dtype)
        colours[labels[~hidden]] = self.pixels[~hidden]
        return colours[labels]

    @property
    def lost_when_flattened(self) -> tuple[str, ...]:
        """What the file contains but :attr:`flattened` does not, in words."""
        transparent = self.alpha is not None and bool((self.alpha < np.iinfo(self.alpha.dtype).max).any())
        lost = ["its transparency (it is laid over white)"] if transparent else []
        lost += ["its 16 bits"] if self.pixels.dtype == np.uint16 else []
        lost += ["its metadata"] if self.exif or self.xmp else []
        return (*lost, *self.not_carried)

    @property
    def flattened(self) -> Array:
        """(h, w, 3) uint8 sRGB over white: how a viewer shows the picture."""
        pixels = to_8_bits(self.pixels)
        if self.alpha is not None:
            pixels = lay_over_matte(pixels, to_8_bits(self.alpha))
        if self.icc is not None and not is_srgb(self.icc):
            converted = convert_to_srgb(Image.fromarray(pixels), self.icc)
            pixels = pixels if converted is None else np.array(converted)
        return pixels


def lay_over_matte(pixels: Array, alpha: Array) -> Array:
    """(h, w, 3) and (h, w) uint8 -> (h, w, 3) uint8, as a viewer shows a transparent picture."""
    image = Image.fromarray(np.dstack([pixels, alpha]))
    return np.array(Image.alpha_composite(Image.new("RGBA", image.size, MATTE), image).convert("RGB"))
