"""Image files and tensors: anything Pillow reads becomes 8-bit RGB, and PNG is what is written."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from glean_ext.errors import InputError
from glean_ext.files import atomic_path

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
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
BACKGROUND = "white"  # what shows through transparent pixels, as in a viewer or on paper


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as RGB, (H, W, 3) uint8, the way a viewer shows it.

    The EXIF orientation is applied, transparency is laid over white, grayscale is repeated, palette and CMYK are
    converted, 16 bits are scaled to 8; of an animation or a multi-page file it is the first picture.

    Raises:
        InputError: The file is missing, empty, damaged, no image of :data:`FORMATS`, too large, or has pixels whose
            range is unknown (32 bits, float).
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not an image" if path.is_dir() else "there is no such file"
        raise InputError(f"{path}: {what}. Give the path of an image.")
    if not path.stat().st_size:
        raise InputError(f"{path} is empty (0 bytes). Get the file anew.")
    return _read(path, str(path))


def decode_rgb(content: bytes, name: str) -> np.ndarray:
    """As :func:`read_rgb`, from the bytes of an image file, say of a zip's member; messages call it ``name``.

    Raises:
        InputError: As :func:`read_rgb` does.
    """
    if not content:
        raise InputError(f"{name} is empty (0 bytes). Get the file anew.")
    return _read(io.BytesIO(content), name)


def _read(file: Path | BinaryIO, name: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=list(FORMATS)) as image:
                return _to_rgb(ImageOps.exif_transpose(image), name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name} is too large: {_reason(error)}. Crop it or scale it down.") from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name} is no image, or of a format that is not read ({', '.join(FORMATS)} are). Save it as PNG."
        ) from error
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{name} is truncated or damaged ({_reason(error)}). Get the file anew.") from error


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
        raise InputError(f"{name} is truncated or damaged ({_reason(error)}). Get the file anew.") from error


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


def _reason(error: BaseException) -> str:
    return (str(error).strip().rstrip(".") or type(error).__name__).splitlines()[0][:200]


def write_png(image: np.ndarray, path: str | os.PathLike) -> None:
    """Write (H, W, 3) uint8 RGB as PNG, under a temporary name first, so that no partial file is ever at ``path``.

    Missing folders are made.

    Raises:
        InputError: The name does not end in .png, or the place cannot be written to.
    """
    path = Path(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise TypeError(f"write_png takes (H, W, 3) uint8, but got {image.shape} {image.dtype}.")
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: images are written as PNG. Name it {path.with_suffix('.png')}.")
    try:
        with atomic_path(path) as partial:
            Image.fromarray(image).save(partial, format="PNG")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}). Choose another output.") from error


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


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [-1, 1]."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise TypeError(f"to_tensor takes (H, W, 3) uint8, but got {image.shape} {image.dtype}.")
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))  # (3, H, W)
    return pixels[None].float() / 127.5 - 1


def to_uint8(tensor: Tensor) -> np.ndarray:
    """(1, 3, H, W) or (3, H, W) float in [-1, 1] -> (H, W, 3) uint8, rounded; what is outside is clamped."""
    if tensor.ndim == 4 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.ndim != 3 or len(tensor) != 3:
        raise TypeError(f"to_uint8 takes one RGB image, but got a tensor of shape {tuple(tensor.shape)}.")
    import torch

    pixels = ((tensor.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(1, 2, 0).contiguous().cpu().numpy()
