"""Image files, arrays and tensors: anything Pillow reads becomes 8-bit RGB, and PNG is what is written.

:mod:`glean_ext.picture_io` keeps what is left out here: 16 bits, transparency, colour profiles.
"""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from glean_ext.errors import InputError, first_line

if TYPE_CHECKING:  # torch takes seconds to load, which processes that only read images need not wait for
    from torch import Tensor

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
PIXEL_TYPES = (np.uint8, np.uint16)
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
        InputError, TypeError: As :func:`glean_ext.picture_io.write_picture`.
    """
    from glean_ext.picture_io import Picture, write_picture  # which imports this module

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


def to_floats(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 or uint16 -> (1, 3, H, W) float32 in [-1, 1]."""
    if image.dtype not in PIXEL_TYPES or image.ndim != 3 or image.shape[2] != 3:
        raise TypeError(f"an image is (H, W, 3) uint8 or uint16, but got {image.shape} {image.dtype}.")
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)  # (1, 3, H, W)
    pixels /= _half_range(image.dtype)
    pixels -= 1
    return pixels


def from_floats(pixels: np.ndarray, dtype: npt.DTypeLike = np.uint8) -> np.ndarray:
    """(1, 3, H, W) or (3, H, W) float32 in [-1, 1] -> (H, W, 3) uint8 or uint16, rounded and clamped."""
    pixels = pixels[0] if pixels.ndim == 4 and len(pixels) == 1 else pixels
    if pixels.ndim != 3 or len(pixels) != 3:
        raise TypeError(f"one RGB image is (3, H, W), but got an array of shape {pixels.shape}.")
    half = _half_range(dtype)
    pixels = pixels + np.float32(1)
    pixels *= half
    np.rint(pixels, out=pixels)
    np.clip(pixels, 0, 2 * half, out=pixels)
    return np.ascontiguousarray(pixels.astype(dtype).transpose(1, 2, 0))


def _half_range(dtype: npt.DTypeLike) -> np.float32:
    return np.float32(np.iinfo(dtype).max / 2)


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 or uint16 -> (1, 3, H, W) float32 in [-1, 1]."""
    import torch

    return torch.from_numpy(to_floats(image))


def to_uint8(tensor: Tensor) -> np.ndarray:
    """(1, 3, H, W) or (3, H, W) float in [-1, 1] -> (H, W, 3) uint8, rounded; what is outside is clamped."""
    return from_tensor(tensor, np.uint8)


def from_tensor(tensor: Tensor, dtype: npt.DTypeLike) -> np.ndarray:
    """As :func:`from_floats`, for a tensor on any device."""
    tensor = tensor.detach().float()
    if tensor.device.type == "cpu":
        return from_floats(tensor.numpy(), dtype)
    import torch

    half = float(_half_range(dtype))  # where the tensor is: four times less has to be moved then
    pixels = ((tensor + 1) * half).round().clamp(0, 2 * half)
    pixels = pixels.to(torch.uint8 if dtype == np.uint8 else torch.int32).reshape(tensor.shape[-3:])
    return pixels.permute(1, 2, 0).contiguous().cpu().numpy().astype(dtype, copy=False)
