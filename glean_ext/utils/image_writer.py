"""Pictures into files: PNG, JPEG and WebP, by the name of the file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from glean_ext.errors import InputError, Notice
from glean_ext.size_requirements import format_size
from glean_ext.utils.array_conversion import PIXEL_TYPES, to_8_bits
from glean_ext.utils.files import atomic_path
from glean_ext.utils.image_metadata import with_resolution
from glean_ext.utils.messages import log_notice
from glean_ext.utils.picture import Picture, lay_over_matte
from glean_ext.utils.png_writer import write_png_file

QUALITY = 95  # of JPEG and WebP, of 100: what cameras and editors take for "best"
FULL_CHROMA = 0  # Pillow's number of 4:4:4: halved colours would soften lips and eyes, which the network has drawn
MAX_JPEG_BLOCK = 65533 - len(b"http://ns.adobe.com/xap/1.0/\0")  # bytes of a marker's content, of which XMP needs some


@dataclass(frozen=True)
class OutputFormat:
    """A format that results are written in.

    Attributes:
        name: What people call it.
        extensions: Of its files, in lower case; the first one is that of results.
        max_side: Longest side that it has place for, in pixels.
        alpha: It has transparency.
        deep: It has 16 bits.
    """

    name: str
    extensions: tuple[str, ...]
    max_side: int
    alpha: bool
    deep: bool


OUTPUT_FORMATS = {
    "png": OutputFormat("PNG", (".png",), 2**31 - 1, alpha=True, deep=True),
    "jpg": OutputFormat("JPEG", (".jpg", ".jpeg"), 65500, alpha=False, deep=False),
    "webp": OutputFormat("WebP", (".webp",), 16383, alpha=True, deep=False),
}
IMAGE_OUTPUTS = {extension: format for format in OUTPUT_FORMATS.values() for extension in format.extensions}


def output_format(path: str | os.PathLike) -> OutputFormat:
    """The format that the name of an image file asks for.

    Raises:
        InputError: It is none that is written.
    """
    path = Path(path)
    if path.suffix.lower() not in IMAGE_OUTPUTS:
        raise InputError(
            f"{path}: images are written as {', '.join(IMAGE_OUTPUTS)}. Name it {path.with_suffix('.png')}."
        )
    return IMAGE_OUTPUTS[path.suffix.lower()]


def write_picture(picture: Picture, path: str | os.PathLike, notify: Callable[[Notice], None] = log_notice) -> None:
    """Write an image file with all that the picture has, under a temporary name first. Missing folders are made.

    The extension decides. PNG keeps everything. JPEG and WebP have quality 95; JPEG keeps the colours' resolution
    (4:4:4), WebP always halves it (4:2:0).

    Args:
        notify: Gets a notice that names what the format has no place for: 16 bits, in JPEG transparency (which is laid
            over white).

    Raises:
        InputError: Another extension, a picture too large for the format, or a file that cannot be written.
        TypeError: Pixels or alpha of another dtype or shape.
    """
    path, pixels, alpha = Path(path), picture.pixels, picture.alpha
    if pixels.dtype not in PIXEL_TYPES or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise TypeError(f"pixels are (H, W, 3) uint8 or uint16, but got {pixels.shape} {pixels.dtype}.")
    if alpha is not None and (alpha.dtype != pixels.dtype or alpha.shape != pixels.shape[:2]):
        raise TypeError(f"alpha is (H, W) {pixels.dtype} as the pixels, but got {alpha.shape} {alpha.dtype}.")
    format, size = output_format(path), (pixels.shape[0], pixels.shape[1])
    if max(size) > format.max_side:
        raise InputError(
            f"{path}: {format.name} has place for {format.max_side} pixels a side, but the result has "
            f"{format_size(size)}. Name it {path.with_suffix('.png')}."
        )
    fitting, lost = _fitted(picture, format)
    if lost:
        notify(Notice(f"{path}: {format.name} has no place for {' and '.join(lost)}; PNG has.", level=logging.WARNING))
    with atomic_path(path) as partial:
        _WRITERS[format.name](fitting, partial)


def _fitted(picture: Picture, format: OutputFormat) -> tuple[Picture, list[str]]:
    """The picture as the format can hold it, and what that leaves out, in words."""
    lost = []
    if picture.pixels.dtype == np.uint16 and not format.deep:
        alpha = None if picture.alpha is None else to_8_bits(picture.alpha)
        picture, lost = picture.with_pixels(to_8_bits(picture.pixels), alpha), ["16 bits"]
    if picture.alpha is not None and not format.alpha:
        picture = picture.with_pixels(lay_over_matte(picture.pixels, picture.alpha))
        lost.append("transparency (it is laid over white)")
    if format.name == "JPEG":
        if len(picture.exif or b"") > MAX_JPEG_BLOCK:
            picture, lost = replace(picture, exif=None), [*lost, "so much EXIF metadata"]
        if len(picture.xmp or b"") > MAX_JPEG_BLOCK:
            picture, lost = replace(picture, xmp=None), [*lost, "so much XMP metadata"]
    return picture, lost


def _write_jpeg(picture: Picture, path: Path) -> None:
    dpi = None if picture.dpi is None else (round(picture.dpi[0]), round(picture.dpi[1]))
    options = {"icc_profile": picture.icc, "exif": picture.exif, "xmp": picture.xmp, "dpi": dpi}
    Image.fromarray(picture.pixels).save(
        path, format="JPEG", quality=QUALITY, subsampling=FULL_CHROMA, **_without_none(options)
    )


def _write_webp(picture: Picture, path: Path) -> None:
    """The resolution is part of EXIF here: WebP itself has none."""
    exif = picture.exif if picture.dpi is None else with_resolution(picture.exif, picture.dpi)
    options = {"icc_profile": picture.icc, "exif": exif, "xmp": picture.xmp}
    pixels = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    Image.fromarray(pixels).save(path, format="WEBP", quality=QUALITY, exact=True, **_without_none(options))


def _without_none(options: dict) -> dict:
    return {name: value for name, value in options.items() if value is not None}


_WRITERS: dict[str, Callable[[Picture, Path], None]] = {
    "PNG": write_png_file,
    "JPEG": _write_jpeg,
    "WebP": _write_webp,
}
