"""Image files: read as 8-bit RGB, or with 16 bits, transparency and colour profile; written as PNG."""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from glean_ext.errors import InputError, first_line
from glean_ext.utils.array_conversion import PIXEL_TYPES
from glean_ext.utils.files import atomic_path
from glean_ext.utils.stderr_filter import CODECS, filter_stderr

# Pillow's name of the format -> extensions. Formats that start another program (EPS) or accept anything (TGA) are out.
FORMATS = {
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg"),
    "JPEG2000": (".jp2",),
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm", ".pbm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
EXTENSIONS = tuple(extension for extensions in FORMATS.values() for extension in extensions)
# What Pillow's decoders raise on damaged files.
DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, MemoryError),
    *(struct.error, zlib.error),
)
_OPENING = threading.Lock()
BACKGROUND = "white"  # what shows through transparent pixels, as in a viewer or on paper


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as RGB, (H, W, 3) uint8, the way a viewer shows it.

    The EXIF orientation is applied, transparency is laid over white, grayscale is repeated, palette and CMYK are
    converted, 16 bits are scaled to 8; of an animation or a multi-page file it is the first picture.

    Raises:
        InputError: The file is missing, empty, damaged, no image of :data:`FORMATS`, too large, or has pixels whose
            range is unknown (32 bits, float).
    """
    path = require_image(path)
    with opened(path, str(path)) as image:
        return _to_rgb(ImageOps.exif_transpose(image), str(path))


def require_image(path: str | os.PathLike) -> Path:
    """The path of a file that may be an image.

    Raises:
        InputError: It is missing, a folder or empty.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not an image" if path.is_dir() else "there is no such file"
        raise InputError(f"{path}: {what}. Give the path of an image.")
    if not path.stat().st_size:
        raise InputError(f"{path} is empty (0 bytes). Get the file anew.")
    return path


def decode_rgb(content: bytes, name: str) -> np.ndarray:
    """As :func:`read_rgb`, from the bytes of an image file, say of a zip's member; messages call it ``name``.

    Raises:
        InputError: As :func:`read_rgb` does.
    """
    if not content:
        raise InputError(f"{name} is empty (0 bytes). Get the file anew.")
    with opened(io.BytesIO(content), name) as image:
        return _to_rgb(ImageOps.exif_transpose(image), name)


@contextmanager
def opened(file: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """An image as Pillow opens it; what its decoders raise meanwhile is told as InputError. Any thread may.

    Raises:
        InputError: The file cannot be read, is damaged, no image of :data:`FORMATS`, or too large.
    """
    try:
        with _OPENING, warnings.catch_warnings():  # which is the whole process's
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=list(FORMATS))
        with image:
            pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
            if limit is not None and pixels > limit:
                raise Image.DecompressionBombError(f"Image size ({pixels} pixels) exceeds limit of {limit} pixels")
            yield image
    except Image.DecompressionBombError as error:
        # Pillow raises, and names, twice its limit; here nothing larger than the limit is read.
        reason = re.sub(r"limit of .*", f"limit of {Image.MAX_IMAGE_PIXELS} pixels", first_line(error))
        raise InputError(f"{name} is too large: {reason}. Crop it or scale it down.") from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name} is no image, or of a format that is not read ({', '.join(FORMATS)} are). Save it as PNG."
        ) from error
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}). Correct its rights.") from error
    except DAMAGE as error:
        raise _damaged(error, name) from error


def pillow_rgb(image: Image.Image, name: str) -> np.ndarray:
    """As :func:`read_rgb`, from an image that Pillow has opened or made; messages call it ``name``.

    Raises:
        InputError: Its file is damaged, or its pixels have an unknown range.
    """
    try:
        return _to_rgb(ImageOps.exif_transpose(image), name)
    except InputError:
        raise
    except DAMAGE as error:
        raise _damaged(error, name) from error


def _damaged(error: BaseException, name: str) -> InputError:
    if isinstance(error, MemoryError):  # so much that it is asked for in vain, which sizes in damaged files do
        return InputError(f"{name} is damaged, or too large for the memory. Get the file anew, or scale it down.")
    return InputError(f"{name} is truncated or damaged ({first_line(error)}). Get the file anew.")


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(np.asarray(image), name)
    if image.mode == "F":
        raise InputError(f"{name} has floating-point pixels, whose range is unknown. Save it with 8 or 16 bits.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
    return np.array(image.convert("RGB"))


def _from_16_bits(gray: np.ndarray, name: str) -> np.ndarray:
    """(H, W) in 0 .. 65535 -> (H, W, 3) uint8; 65535 / 257 = 255."""
    gray = gray.astype(np.int64)
    if gray.min() < 0 or gray.max() > 65535:
        raise InputError(f"{name} has 32-bit pixels, whose range is unknown. Save it with 8 or 16 bits.")
    return np.repeat(((gray + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)


def write_png(image: np.ndarray, path: str | os.PathLike) -> None:
    """Write (H, W, 3) uint8 or uint16 RGB.

    Raises:
        InputError, TypeError: As :func:`glean_ext.utils.image_io.write_picture`.
    """

    write_picture(Picture(image), path)


def image_files(folder: str | os.PathLike) -> tuple[list[Path], list[Path]]:
    """What lies in a folder, sorted: the image files by extension, and all the rest (other files, sub-folders).

    Raises:
        InputError: There is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder. Give a folder of images.")
    entries = sorted(folder.iterdir())
    images = [path for path in entries if path.suffix.lower() in EXTENSIONS and not path.is_dir()]
    if not images:
        raise InputError(f"{folder} has no images ({' '.join(EXTENSIONS)}). Give a folder of images.")
    return images, [path for path in entries if path not in images]


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
    and CMYK are converted as :func:`glean_ext.utils.image_io.read_rgb` does; only profiles of RGB colours are kept.

    Raises:
        InputError: As :func:`~glean_ext.utils.image_io.read_rgb`; 16-bit CMYK or more than four channels.
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
            return filter_stderr(CODECS) if file.read(2) in TIFF_STARTS else nullcontext()
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
    with filter_stderr(CODECS):
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
