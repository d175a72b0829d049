"""What an upload may be, checked before anything is decoded."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

from glean_ext.errors import InputError
from glean_ext.utils.image_io import decode_rgb, opened

NAME_LENGTH = 100


@dataclass(frozen=True)
class Limits:
    """What the page takes and keeps."""

    upload_bytes: int = 20_000_000
    upload_seconds: float = 120
    pixels: int = 25_000_000  # of an upload
    result_pixels: int = 32_000_000
    waiting: int = 8  # jobs in the queue
    keep_seconds: float = 3600  # results, unless newer ones take their places
    keep_jobs: int = 32  # results
    max_faces: int = 100  # of a photo: each is kept until the photo is done, with 3 MB at 1024x1024
    faces: int = 24  # shown of a photo, besides the photo itself
    tile: int = 128  # pixels of the input beside the overlap: LightGLEAN's tiles, between which a job can be cancelled


def clean_name(name: str) -> str:
    """What messages call an upload: the last part of its name without anything unprintable.

    >>> clean_name("C:\\\\photos\\\\me.png"), clean_name("../..")
    ('me.png', '..')
    """
    last = re.split(r"[\\/]", name)[-1]
    return "".join(char for char in last if char.isprintable()).strip()[:NAME_LENGTH] or "the image"


def check_image(content: bytes, name: str, limits: Limits) -> tuple[int, int]:
    """Height and width of an upload that can be restored: its size is read first, then all of it is decoded.

    Raises:
        InputError: It is no image, damaged, or has too many pixels.
    """
    if content:  # of nothing decoding says that it is nothing
        with opened(io.BytesIO(content), name) as image:
            if image.width * image.height > limits.pixels:
                raise InputError(
                    f"{name} has {image.width}x{image.height} pixels, but at most {limits.pixels / 1e6:g} million are "
                    "taken here. Crop it or scale it down."
                )
    height, width = decode_rgb(content, name).shape[:2]
    return height, width
