"""What image files contain beside pixels: what is carried into results, and the names of what is not."""

from __future__ import annotations

import math
import os
import re
from typing import Any, NamedTuple

from PIL import ExifTags, Image, ImageFile
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import IFDRational

from glean_ext.utils.messages import summarize_names

ORIENTATION = ExifTags.Base.Orientation
SUB_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# EXIF tags of how the file stores its pixels (TIFF 6.0); another file stores them in another way.
STORAGE_TAGS = frozenset(
    [
        *range(254, 267),
        *range(273, 285),
        *range(288, 294),
        296,
        297,
        301,
        *range(317, 326),
        *range(330, 348),
        *range(512, 533),
        34675,
    ]
)
SIZE_TAGS = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, ExifTags.IFD.Interop)
XMP_TAG = 700
# Other contents of TIFF files, which PNG has no place for.
NAMED_TAGS = {
    33723: "the IPTC metadata",
    34377: "the Photoshop data",
    37724: "the Photoshop layers",
    **dict.fromkeys((33550, 33922, 34264, 34735, 34736, 34737), "the georeference"),
}
DAMAGED_EXIF = "the EXIF metadata, which is damaged"
XMP_ORIENTATION = re.compile(rb'(tiff:Orientation\s*=\s*["\']|<tiff:Orientation>\s*)[2-8]')
INCH, CENTIMETRE = 2, 3  # EXIF's units of resolution
# What JPEG2000 has in boxes of type uuid (ISO 15444-1, I.7.2), which Pillow does not read, by how their contents begin.
JPEG2000_CONTENTS = {
    b"JpgTiffExif->JP2": "the EXIF metadata",
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): "the XMP metadata",
    bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"): "the IPTC metadata",
    bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"): "the georeference",
}
MAX_BOXES = 1000  # of a file that are looked at
SRGB_GAMMA = 1 / 2.2
MIN_DPI, MAX_DPI = 1, 1e6  # exclusive; files without a resolution may have 1


class Metadata(NamedTuple):
    """As the fields of :class:`~glean_ext.utils.picture.Picture`."""

    exif: bytes | None
    xmp: bytes | None
    dpi: tuple[float, float] | None
    not_carried: tuple[str, ...]


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where it is missing or damaged. Call it when the image is loaded."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged block raises errors of several types
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def further_frames(image: Image.Image) -> tuple[str, ...]:
    """The name of all frames or pages besides the one that is shown; call it before the image is loaded."""
    first = image.tell()
    try:
        count = getattr(image, "n_frames", 1) - 1
    except Exception:
        return ("further frames or pages, which are damaged",)
    finally:
        if image.tell() != first:
            image.seek(first)
    if count < 1:
        return ()
    kind = {"TIFF": "page", "MPO": "image", "HEIF": "image"}.get(image.format or "", "frame")
    whole = {"page": "file", "image": "file", "frame": "animation"}[kind]
    return (f"{count} more {kind}{'s' if count > 1 else ''} of the {whole}",)


def boxes_of_jpeg2000(image: Image.Image) -> tuple[str, ...]:
    """The names of the metadata in a JPEG2000 file; empty for others. Call it before loading."""
    if not isinstance(image, ImageFile.ImageFile) or image.format != "JPEG2000":
        return ()
    file, names = image.fp, []
    assert file is not None, "an image that is not loaded"
    before, start, end = file.tell(), 0, file.seek(0, os.SEEK_END)
    for _ in range(MAX_BOXES):
        file.seek(start)
        header = file.read(32)
        size, kind, content = int.from_bytes(header[:4], "big"), header[4:8], header[8:24]
        if size == 1:
            size, content = int.from_bytes(header[8:16], "big"), header[16:32]
        if kind == b"uuid" and content in JPEG2000_CONTENTS:
            names.append(JPEG2000_CONTENTS[content])
        start += size
        if size < 8 or start >= end:  # the last box may have no size
            break
    file.seek(before)
    return tuple(dict.fromkeys(names))


def read_metadata(image: Image.Image) -> Metadata:
    """The metadata of a loaded image."""
    exif, names = _exif(image)
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    if isinstance(xmp, bytes) and xmp:
        xmp = XMP_ORIENTATION.sub(rb"\g<1>1", xmp.rstrip(b"\0"))
        if not _is_utf8(xmp):
            xmp, names = None, [*names, "the XMP metadata, which is damaged"]
    else:
        xmp = None
    if image.info.get("photoshop"):
        names.append("the Photoshop and IPTC metadata")
    if image.info.get("bit_depth", 8) > 8:  # of HEIC, which Pillow reduces
        names.append(f"the {image.info['bit_depth']} bits of its colours")
    gamma = image.info.get("gamma")  # of PNG: the brightness of the pixels is this power of their values
    if isinstance(gamma, float) and abs(gamma - SRGB_GAMMA) > 0.01 and not {"icc_profile", "srgb"} & image.info.keys():
        names.append(f"the gamma of {gamma:.2f}")
    if image.info.get("comment"):
        names.append("the comment")
    texts = [key for key in getattr(image, "text", {}) if not key.startswith(("XML:com.adobe.xmp", "Raw profile"))]
    if texts:
        names.append(f"the text entries {summarize_names(texts)}")
    return Metadata(exif, xmp, _resolution(image), tuple(dict.fromkeys(names)))


def _exif(image: Image.Image) -> tuple[bytes | None, list[str]]:
    """EXIF without what describes the stored pixels, and the names of what is left out."""
    kept, names = Image.Exif(), []
    try:
        original = image.getexif()
        for tag, value in original.items():
            if tag in NAMED_TAGS:
                names.append(NAMED_TAGS[tag])
            elif tag not in STORAGE_TAGS and tag not in SUB_IFDS and tag != XMP_TAG:
                kept[tag] = value
        for ifd in SUB_IFDS:
            content = {tag: value for tag, value in original.get_ifd(ifd).items() if tag not in SIZE_TAGS}
            if content:
                kept[ifd] = content
        return (kept.tobytes() if kept else None), names
    except Exception:  # a damaged block raises errors of several types
        return None, [*names, DAMAGED_EXIF]


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _resolution(image: Image.Image) -> tuple[float, float] | None:
    """In pixels per inch: where the format has a place for it, or in EXIF, as in WebP and HEIC."""
    if (dpi := _dpi(image.info.get("dpi"))) is not None:
        return dpi
    try:
        exif = image.getexif()
        inches = {INCH: 1, CENTIMETRE: 2.54}.get(exif.get(Base.ResolutionUnit, INCH), 0)
        return _dpi([float(exif[tag]) * inches for tag in (Base.XResolution, Base.YResolution)])
    except Exception:  # a damaged block raises errors of several types
        return None


def with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes:
    """EXIF metadata, from its start ``Exif``, which also has the resolution in pixels per inch."""
    tags = Image.Exif()
    if exif is not None:
        tags.load(exif)
    tags[Base.XResolution], tags[Base.YResolution], tags[Base.ResolutionUnit] = *map(IFDRational, dpi), INCH
    return tags.tobytes()


def _dpi(value: Any) -> tuple[float, float] | None:
    try:
        x, y = (float(number) for number in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(number) and MIN_DPI < number < MAX_DPI for number in (x, y)) else None
