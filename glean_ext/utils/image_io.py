"""Image files: read as pictures or as 8-bit RGB, and written."""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError, features

from glean_ext.errors import InputError, UnreadableImageError, first_line
from glean_ext.utils.files import expand_home
from glean_ext.utils.image_decoding import decode, decode_16_bits, layout_of_16_bits, reduced_depth
from glean_ext.utils.image_metadata import boxes_of_jpeg2000, further_frames, read_metadata
from glean_ext.utils.image_writer import write_picture
from glean_ext.utils.optional_packages import import_optional
from glean_ext.utils.picture import Picture
from glean_ext.utils.stderr_filter import CODECS, filter_stderr

__all__ = [
    "EXTENSIONS", "FORMATS", "MAX_PIXELS", "ImageTooLargeError", "Picture", "decode_rgb", "opened", "pillow_picture",
    "pillow_rgb", "pixel_limit", "read_picture", "read_rgb", "require_image", "write_picture",
]  # fmt: skip

# Pillow's name of the format -> extensions. Formats that start another program (EPS) or accept any file (TGA) are out.
FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
EXTENSIONS = tuple(extension for extensions in FORMATS.values() for extension in extensions)
TIFF_SIGNATURES = b"II", b"MM"
PNG_HEADER = struct.Struct(">16xIIBB")  # width, height, bits a channel, colour type
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
ISO_MEDIA = "AVIF", "HEIF"  # formats of one container, whose first box names its "brands" (ISO/IEC 14496-12)
AVIF_BRANDS = {b"avif", b"avis"}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
MAX_PIXELS = 200_000_000  # the largest photographs of telephones; a result of 8 bits takes 4.4 GB until it is written
HUFFMAN_CODED = (0xFFC0, 0xFFC1, 0xFFC2)  # frames of JPEG: baseline, extended, progressive
START_OF_SCAN, FILL_BYTES = 0xFFDA, 0xFFFF
# Pixels of a byte: a bit for each block of 8x8 values of one component, which may be a quarter of the image.
MAX_JPEG_PIXELS = 8 * 64 * 4
MAX_DEFLATE_RATIO = 1032  # the highest compression of zlib
MAYBE_RAW, MAX_RAW_PIXELS = ("BMP", "PPM", "TIFF"), 8  # of a byte without compression: a bit for each
# Pixels of a byte in other formats, which have no bound: in blank pages of facsimile there are up to 56,000 (A3, 600
# dots per inch), in a WebP of one colour even more. So a file may have these few pixels, whatever its length.
MAX_OTHER_PIXELS, HARMLESS_PIXELS = 1 << 16, 1 << 24

PngImagePlugin.MAX_TEXT_CHUNK = 1 << 24  # bytes of a profile or text; with Pillow's 1 MB large profiles are damage

logger = logging.getLogger(__name__)


class ImageTooLargeError(InputError):
    """An image file of more pixels than are read."""


_opening = threading.Lock()  # warnings' filters belong to the whole process


@contextmanager
def pixel_limit(max_pixels: int) -> Iterator[None]:
    """Within the block, images and frames of up to ``max_pixels`` are read and written, by all threads.

    It is Pillow's own limit, ``Image.MAX_IMAGE_PIXELS``, which stands against small files of huge images.
    """
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as RGB, (H, W, 3) uint8 sRGB, as a viewer shows it.

    The EXIF orientation and the colour profile are applied, transparency is laid over white, grayscale is repeated,
    palette and CMYK are converted, 16 bits are scaled to 8. Of an animation or a multi-page file it is the first image;
    a warning names the others.

    Raises:
        InputError: The file is missing, not accessible, or too large.
        UnreadableImageError: It is empty, damaged, no image of :data:`FORMATS`, or has pixels whose range is unknown
            (32 bits, float).
    """
    path = require_image(path)
    picture = _read(path, str(path))
    if picture.further:
        _warn_of_further(str(path), picture.further)
    return picture.flattened


@lru_cache
def _warn_of_further(name: str, further: tuple[str, ...]) -> None:
    """Once for each file, which training reads many times."""
    logger.warning("%s: only the first image is used, not %s.", name, ", ".join(further))


def decode_rgb(content: bytes, name: str) -> np.ndarray:
    """As :func:`read_rgb`, from the bytes of an image file, for example of a zip's member.

    Args:
        content: The image file.
        name: Its name in messages.

    Raises:
        InputError, UnreadableImageError: As :func:`read_rgb`.
    """
    if not content:
        raise _empty(name)
    return _read(content, name).flattened


def pillow_rgb(image: Image.Image, name: str) -> np.ndarray:
    """As :func:`read_rgb`, from an image that Pillow has opened or made; messages call it ``name``.

    Raises:
        UnreadableImageError: Its file is damaged, or its pixels have an unknown range.
    """
    with _decoder_errors(name):
        return decode(image, name).flattened


def pillow_picture(image: Image.Image, name: str) -> Picture:
    """As :func:`read_picture`, from an image that Pillow has opened or made; 16-bit colours have 8 bits there already.

    Raises:
        UnreadableImageError: As :func:`pillow_rgb`.
    """
    with _decoder_errors(name):
        picture, found = decode(image, name), read_metadata(image)
    return replace(picture, exif=found.exif, xmp=found.xmp, dpi=found.dpi)


def read_picture(path: str | os.PathLike) -> Picture:
    """Read an image file with its depth, transparency, colour profile and metadata.

    >>> picture = glean_ext.read_image("photo.jpg")
    >>> picture.pixels.shape, picture.pixels.dtype.name, picture.dpi
    ((256, 256, 3), 'uint8', (300.0, 300.0))

    The EXIF orientation is applied. 16 bits are kept where they are gray, or RGB in PNG and TIFF. Gray becomes RGB,
    palette, CMYK and Lab are converted as :func:`read_rgb` does; profiles of RGB colours are kept.

    Raises:
        InputError, UnreadableImageError: As :func:`read_rgb`; the latter also for 16-bit CMYK or more than four
            channels.
    """
    path = require_image(path)
    return _read(path, str(path), metadata=True)


def decode_picture(content: bytes, name: str) -> Picture:
    """As :func:`read_picture`, from the bytes of an image file; messages call it ``name``."""
    if not content:
        raise _empty(name)
    return _read(content, name, metadata=True)


def _read(source: Path | bytes, name: str, metadata: bool = False) -> Picture:
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with _without_codec_messages(source), opened(file, name) as image:
        layout, frames, depth = layout_of_16_bits(image), further_frames(image), reduced_depth(image)
        boxes = boxes_of_jpeg2000(image)
        image.load()
        found = read_metadata(image) if metadata else None
        picture = decode(image, name) if layout is None else decode_16_bits(image, name, layout, source)
        if found is None:
            return replace(picture, further=frames)
        names = (*frames, *depth, *boxes, *picture.not_carried, *found.not_carried)
        return replace(picture, exif=found.exif, xmp=found.xmp, dpi=found.dpi, not_carried=names, further=frames)


def require_image(path: str | os.PathLike) -> Path:
    """The path of a file that may be an image.

    Raises:
        InputError: It is missing, a folder, or cannot be reached.
        UnreadableImageError: It is empty.
    """
    path = Path(expand_home(path))
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last one: a zero byte in the name
        status = None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Correct its name or its rights.") from error
    if status is None or not stat.S_ISREG(status.st_mode):
        what = "there is no such file"
        if status is not None:
            what = "is a folder, not an image" if stat.S_ISDIR(status.st_mode) else "is a device, pipe or socket"
        raise InputError(f"{path}: {what}. Give the path of an image.")
    if not status.st_size:
        raise _empty(str(path))
    return path


def _empty(name: str) -> UnreadableImageError:
    return UnreadableImageError(f"{name} is empty (0 bytes). Get the file again.")


@contextmanager
def opened(file: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """An image as Pillow opens it. Any exception of its decoders inside the block becomes an UnreadableImageError.

    Several threads may use it at once.

    Raises:
        InputError: The file cannot be accessed, or is too large.
        UnreadableImageError: It is damaged, or no image of :data:`FORMATS`.
    """
    with _decoder_errors(name):
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = _open(file, _possible_formats(file, name), name)
        with image:
            pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
            if limit is not None and pixels > limit:
                raise Image.DecompressionBombError(f"Image size ({pixels} pixels) exceeds limit of {limit} pixels")
            _require_enough_bytes(file, image, name)
            yield image


def _open(file: Path | BinaryIO, formats: list[str], name: str) -> Image.Image:
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        if len(formats) > 1:
            raise
        raise UnreadableImageError(
            f"{name} is truncated or damaged (it begins as {formats[0]}). Get it again."
        ) from error


def _possible_formats(file: Path | BinaryIO, name: str) -> list[str]:
    """Pillow's names of the formats that a file may have, by its first bytes.

    Raises:
        InputError: It needs a package that is not installed.
    """
    with _rewound(file) as stream:
        head = stream.read(64)
    length, kind = int.from_bytes(head[:4], "big"), head[4:8]
    brands = {head[start : start + 4] for start in (8, *range(16, min(length, len(head)), 4))}
    if kind != b"ftyp" or not brands & (AVIF_BRANDS | HEIF_BRANDS):
        return [format for format in FORMATS if format not in ISO_MEDIA]
    if brands & AVIF_BRANDS:
        if not features.check("avif"):
            raise InputError(f"{name} is an AVIF, which needs Pillow 11.3 or later: pip install 'pillow>=11.3'")
        return ["AVIF"]
    import_optional("pillow_heif", name, "pip install 'glean-ext[heic]'").register_heif_opener()
    return ["HEIF"]


@contextmanager
def _rewound(file: Path | BinaryIO) -> Iterator[BinaryIO]:
    """The file from its start; where it is open already, it is put back to its place afterwards."""
    with file.open("rb") if isinstance(file, Path) else nullcontext(file) as stream:
        position = stream.tell()
        stream.seek(0)
        yield stream
        stream.seek(position)


def _require_enough_bytes(file: Path | BinaryIO, image: Image.Image, name: str) -> None:
    """Refuse a file that is too short for its pixels: Pillow allocates all of them, and makes up missing ones.

    Raises:
        UnreadableImageError: Its pixels need more bytes, even with the highest compression, or with any usual one.
    """
    size = f"{image.width}x{image.height}"
    with _rewound(file) as stream:
        needed = _min_bytes(image, stream)
        length = stream.seek(0, os.SEEK_END)
    if needed > length:
        raise UnreadableImageError(
            f"{name} is truncated or damaged ({length} bytes cannot hold {size} pixels). Get the file again."
        )
    pixels = image.width * image.height
    if image.format not in MIN_BYTES and pixels > max(HARMLESS_PIXELS, MAX_OTHER_PIXELS * length):
        raise UnreadableImageError(
            f"{name} is truncated, damaged or of one colour ({length} bytes for {size} pixels). Get the file again, or "
            "save it as PNG."
        )


def _min_bytes(image: Image.Image, stream: BinaryIO) -> float:
    """The bytes of a file with the pixels of ``image``; 0 where its format has no bound."""
    if image.format in MIN_BYTES:
        return MIN_BYTES[image.format](stream)
    raw = image.format in MAYBE_RAW and any(codec == "raw" for codec, *_ in getattr(image, "tile", ()))
    return image.width * image.height / MAX_RAW_PIXELS if raw else 0


def _min_bytes_of_png(stream: BinaryIO) -> float:
    width, height, depth, colour_type = PNG_HEADER.unpack(stream.read(PNG_HEADER.size))
    return height * (width * depth * PNG_CHANNELS.get(colour_type, 1) // 8) / MAX_DEFLATE_RATIO


def _min_bytes_of_jpeg(stream: BinaryIO) -> float:
    stream.seek(2)
    while len(header := stream.read(4)) == 4:
        marker, length = struct.unpack(">HH", header)
        if marker in HUFFMAN_CODED:
            _, height, width = struct.unpack(">BHH", stream.read(5))
            return height * width / MAX_JPEG_PIXELS
        if marker == FILL_BYTES:
            stream.seek(-3, os.SEEK_CUR)
        else:
            stream.seek(length - 2, os.SEEK_CUR)
        if marker == START_OF_SCAN:
            break
    return 0


MIN_BYTES = {"PNG": _min_bytes_of_png, "JPEG": _min_bytes_of_jpeg, "MPO": _min_bytes_of_jpeg}  # by Pillow's formats


@contextmanager
def _decoder_errors(name: str) -> Iterator[None]:
    """Decoders raise exceptions of nearly every type on damaged files."""
    try:
        yield
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        # Pillow names twice its limit and raises beyond it; here nothing larger than the limit itself is read.
        reason = re.sub(r"limit of .*", f"limit of {Image.MAX_IMAGE_PIXELS} pixels", first_line(error))
        raise ImageTooLargeError(f"{name} is too large: {reason}. Crop it or scale it down.") from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"{name} is no image, or of a format that is not read ({', '.join(FORMATS)} are). Save it as PNG."
        ) from error
    except PermissionError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}). Correct its rights.") from error
    except MemoryError as error:  # sizes in damaged files may be of any value
        raise UnreadableImageError(
            f"{name} is damaged, or too large for the memory. Get the file again, or scale it down."
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # by the system, not by a decoder
            raise InputError(f"{name} cannot be read ({error.strerror or first_line(error)}). Try again.") from error
        raise UnreadableImageError(
            f"{name} is truncated or damaged ({first_line(error)}). Get the file again."
        ) from error


def _without_codec_messages(source: Path | bytes) -> AbstractContextManager[None]:
    """libtiff writes to stderr what Pillow raises anyway."""
    if isinstance(source, bytes):
        return filter_stderr(CODECS) if source[:2] in TIFF_SIGNATURES else nullcontext()
    try:
        with source.open("rb") as file:
            return filter_stderr(CODECS) if file.read(2) in TIFF_SIGNATURES else nullcontext()
    except OSError:
        return nullcontext()  # Pillow raises the same error
