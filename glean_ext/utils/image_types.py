"""Images as programs have them: paths, arrays, Pillow's images and pictures, and results of the same kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from glean_ext.errors import Notice
from glean_ext.utils.array_conversion import PIXEL_TYPES, to_8_bits
from glean_ext.utils.files import expand_home
from glean_ext.utils.image_io import pillow_picture, read_picture, write_picture
from glean_ext.utils.messages import log_notice
from glean_ext.utils.picture import Picture

ImageLike = str | os.PathLike | Picture | Image.Image | np.ndarray


def as_picture(image: ImageLike, name: str, caller: str = "restore") -> Picture:
    """Any image as a picture.

    Args:
        image: The path of a file, a picture, an image of Pillow, or an array, (h, w, 3) uint8 or uint16 RGB.
        name: What errors call it where it has no path.
        caller: The function that takes it, for messages.

    Raises:
        InputError: A file that cannot be read.
        TypeError: Anything else, or an array of another shape or dtype.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, str | os.PathLike):
        return read_picture(image)
    if isinstance(image, Image.Image):
        return pillow_picture(image, name)
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"{caller} takes a path, an image of Pillow, a Picture, or (h, w, 3) uint8 or uint16 RGB, but got a "
            f"{type(image).__name__}."
        )
    if image.dtype not in PIXEL_TYPES or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise TypeError(f"{caller} takes (h, w, 3) uint8 or uint16 RGB, but got {image.shape} {image.dtype}.")
    return Picture(image)


def name_of(image: ImageLike, otherwise: str) -> str:
    """What messages call an image: its path, if it is one."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else otherwise


def like(image: ImageLike, picture: Picture) -> Any:
    """A result as what ``image`` was: an array for an array, an image of Pillow for such one, otherwise a picture."""
    if isinstance(image, np.ndarray):
        return picture.pixels
    return as_pillow(picture) if isinstance(image, Image.Image) else picture


def as_pillow(picture: Picture) -> Image.Image:
    """An image of Pillow, of 8 bits, whose ``info`` has the profile and the metadata."""
    channels = [to_8_bits(picture.pixels), *([] if picture.alpha is None else [to_8_bits(picture.alpha)])]
    image = Image.fromarray(np.dstack(channels))
    found = {"icc_profile": picture.icc, "exif": picture.exif, "xmp": picture.xmp, "dpi": picture.dpi}
    image.info.update({key: value for key, value in found.items() if value is not None})
    return image


def write_image(
    image: Picture | Image.Image | np.ndarray, path: str | os.PathLike, notify: Callable[[Notice], None] = log_notice
) -> None:
    """Write an image file: PNG, JPEG or WebP, by its extension, with all that the format has a place for.

    >>> picture = glean_ext.read_image("photo.jpg")
    >>> glean_ext.write_image(picture, "copy.webp")  # with the colour profile, the date and the camera of the photo
    >>> glean_ext.write_image(picture.pixels, "pixels.png")

    Args:
        image: A picture, an image of Pillow, or an array, (h, w, 3) uint8 or uint16 RGB.
        path: Missing folders are made; the file appears whole or not at all.
        notify: Gets a notice that names what the format has no place for, see
            :func:`~glean_ext.utils.image_writer.write_picture`.

    Raises:
        InputError: Another extension, an image too large for the format, or a file that cannot be written.
        TypeError: ``image`` is something else.
    """
    if isinstance(image, str | os.PathLike):
        raise TypeError(f"write_image takes the image first, but got the path {Path(image)}.")
    write_picture(as_picture(image, "the image", "write_image"), expand_home(path), notify)
