"""Image files with all that belongs to the picture: 16 bits, transparency, colour profile."""

from __future__ import annotations

import os
import re
import struct
import zlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps
from PIL.PngImagePlugin import PngImageFile

from glean_ext.errors import InputError
from glean_ext.files import atomic_path
from glean_ext.images import PIXEL_TYPES, opened, pillow_rgb, require_image
from glean_ext.quiet import CODECS, quiet_stderr

Array = np.ndarray

DEEP = re.compile(r"(RGB[AaX]*|LA|CMYKX*);16")  # Pillow's names of layouts that it cuts down to 8 bits
PREMULTIPLIED = re.compile("RGBa")
OPAQUE = re.compile("RGBX+;")  # the rest is anything
TIFF_STARTS = b"II", b"MM"  # of a TIFF's bytes
ORIENTATION = 0x0112  # EXIF's tag
SEEN = 1 / 32  # opacity from which on a pixel counts as seen; the colours of fainter ones are mostly rounding
PNG_HEADER = 33  # bytes of a PNG's signature and first chunk, which colour profiles come after
PNG_COMPRESSION = 4  # of 9: on photographs 1% larger than the default 6, in half the time


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, upright.

    Attributes:
        pixels: (h, w, 3) uint8 or uint16 RGB. What is under transparent pixels is what the file has there.
        alpha: (h, w) of the same dtype, 0 is transparent; None: all is opaque.
        icc: The colour profile that gives ``pixels`` their meaning; None: sRGB, as everybody assumes.
    """

    pixels: Array
    alpha: Array | None = None
    icc: bytes | None = None

    @cached_property
    def filled(self) -> Array:
        """``pixels``, but where nothing is seen the colour of the nearest pixel that is.

        What editors leave there is arbitrary, and a network would draw it into what is seen.
        """
        if self.alpha is None:
            return self.pixels
        hidden = self.alpha < SEEN * np.iinfo(self.alpha.dtype).max
        if not hidden.any() or hidden.all():
            return self.pixels
        import cv2

        _, labels = cv2.distanceTransformWithLabels(
            hidden.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
        )
        colours = np.zeros((labels.max() + 1, 3), self.pixels.dtype)
        colours[labels[~hidden]] = self.pixels[~hidden]
        return colours[labels]


def read_picture(path: str | os.PathLike) -> Picture:
    """Read an image file.

    The EXIF orientation is applied. 16 bits stay where they are gray, or RGB in PNG and TIFF. Gray becomes RGB, palette
    and CMYK are converted as :func:`glean_ext.images.read_rgb` does; only profiles of RGB colours are kept.

    Raises:
        InputError: As :func:`~glean_ext.images.read_rgb`; 16-bit CMYK or more than four channels.
    """
    path = require_image(path)
    with _quiet(path), opened(path, str(path)) as image:
        icc = image.info.get("icc_profile")
        icc = icc if isinstance(icc, bytes) and icc[16:20] == b"RGB " else None
        if _has_layout(image, DEEP):
            pixels, alpha = _read_16_bits(image, path)
        elif image.mode == "I" or image.mode.startswith("I;16"):
            hidden = image.info.get("transparency")  # the gray that is
            pixels, alpha = _gray_16_bits(np.asarray(ImageOps.exif_transpose(image)), path), None
            if isinstance(hidden, int):
                alpha = np.where(pixels[..., 0] == hidden, 0, 65535).astype(np.uint16)
        elif image.has_transparency_data:
            rgba = np.array(ImageOps.exif_transpose(image).convert("RGBA"))
            pixels, alpha = np.ascontiguousarray(rgba[..., :3]), rgba[..., 3]
        else:
            pixels, alpha = pillow_rgb(image, str(path)), None
    return Picture(pixels, None if alpha is None or _opaque(alpha) else np.ascontiguousarray(alpha), icc)


def _quiet(path: Path) -> AbstractContextManager[None]:
    """libtiff tells on stderr what Pillow raises anyway."""
    try:
        with path.open("rb") as file:
            return quiet_stderr(CODECS) if file.read(2) in TIFF_STARTS else nullcontext()
    except OSError:
        return nullcontext()  # Pillow will say so


def _opaque(alpha: Array) -> bool:
    return bool((alpha == np.iinfo(alpha.dtype).max).all())


def _has_layout(image: Image.Image, names: re.Pattern[str]) -> bool:
    if not isinstance(image, ImageFile.ImageFile) or image.format not in ("PNG", "TIFF"):
        return False
    layouts = (layout for tile in image.tile for layout in (tile.args if isinstance(tile.args, tuple) else [tile.args]))
    return any(names.match(str(layout)) for layout in layouts)


def _read_16_bits(image: Image.Image, path: Path) -> tuple[Array, Array | None]:
    """By OpenCV, which keeps them. Pillow reads the file first: it refuses what is damaged."""
    import cv2

    premultiplied, opaque = _has_layout(image, PREMULTIPLIED), _has_layout(image, OPAQUE)
    turned = image.getexif().get(ORIENTATION, 1) if isinstance(image, PngImageFile) else 1  # OpenCV turns TIFF itself
    image.load()
    with quiet_stderr(CODECS):
        decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3 or decoded.shape[2] not in (3, 4):
        raise InputError(f"{path} has 16-bit colours in a way that is not read. Save it as PNG.")
    upright = _upright(decoded, turned)
    pixels = np.ascontiguousarray(upright[..., 2::-1])  # from BGR
    alpha = upright[..., 3] if upright.shape[2] == 4 and not opaque else None
    if premultiplied and alpha is not None:
        pixels = np.rint(pixels * (65535 / np.maximum(alpha, 1)[..., None])).clip(0, 65535).astype(np.uint16)
    return pixels, alpha


def _upright(pixels: Array, orientation: int) -> Array:
    """Turn (H, W, C) as EXIF's orientation says: mirrored for 2, 4, 5, 7, then turned by quarters."""
    quarters = {3: 2, 4: 2, 5: 1, 6: -1, 7: -1, 8: 1}.get(orientation, 0)
    mirrored = pixels[:, ::-1] if orientation in (2, 4, 5, 7) else pixels
    return np.rot90(mirrored, quarters)


def _gray_16_bits(gray: Array, path: Path) -> Array:
    """(H, W) in 0 .. 65535 -> (H, W, 3) uint16"""
    if gray.min() < 0 or gray.max() > 65535:
        raise InputError(f"{path} has 32-bit pixels, whose range is unknown. Save it with 8 or 16 bits.")
    return np.repeat(gray.astype(np.uint16)[..., None], 3, axis=2)


def write_picture(picture: Picture, path: str | os.PathLike) -> None:
    """Write a PNG with all that the picture has, under a temporary name first. Missing folders are made.

    Raises:
        InputError: The name does not end in .png, or the place cannot be written to.
        TypeError: Pixels or alpha of another dtype or shape.
    """
    path, pixels, alpha = Path(path), picture.pixels, picture.alpha
    if pixels.dtype not in PIXEL_TYPES or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise TypeError(f"pixels are (H, W, 3) uint8 or uint16, but got {pixels.shape} {pixels.dtype}.")
    if alpha is not None and (alpha.dtype != pixels.dtype or alpha.shape != pixels.shape[:2]):
        raise TypeError(f"alpha is (H, W) {pixels.dtype} as the pixels, but got {alpha.shape} {alpha.dtype}.")
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: images are written as PNG. Name it {path.with_suffix('.png')}.")
    image = pixels if alpha is None else np.dstack([pixels, alpha])
    with atomic_path(path) as partial:
        if image.dtype == np.uint16:
            partial.write_bytes(_png_of_16_bits(image, picture.icc))
        else:
            Image.fromarray(image).save(partial, format="PNG", icc_profile=picture.icc, compress_level=PNG_COMPRESSION)


def _png_of_16_bits(image: Array, icc: bytes | None) -> bytes:
    """(H, W, 3 or 4) uint16 -> a PNG file. OpenCV writes those, but no colour profiles."""
    import cv2

    order = [2, 1, 0, 3][: image.shape[2]]
    parameters = [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION]
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(image[..., order]), parameters)
    content = encoded.tobytes()
    if icc is None:
        return content
    data = b"iCCP" + b"ICC profile\0\0" + zlib.compress(icc)
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return content[:PNG_HEADER] + chunk + content[PNG_HEADER:]
