"""How large uploads and results may be, and the check of an upload before it is queued."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

from glean_ext.errors import InputError
from glean_ext.utils.image_io import decode_rgb, opened

NAME_LENGTH = 100


@dataclass(frozen=True)
class Limits:
    """What the page accepts and keeps.

    Attributes:
        upload_bytes: Of one upload.
        upload_seconds: In which an upload has to arrive.
        receiving_bytes: Of all uploads that are arriving or being checked.
        pixels: Of an upload.
        result_pixels: Of a result.
        waiting: Jobs in the queue.
        keep_seconds: How long results are kept, unless newer ones take their places.
        keep_bytes: Of all results that are kept; the newest one is kept whatever its size.
        keep_jobs: Number of results that are kept.
        max_faces: Of a photo: each is in memory until the photo is done, with 3 MB at 1024x1024.
        faces: Shown of a photo, besides the photo itself.
        tile: Side of LightGLEAN's tiles without their overlap, in pixels of the input; a job can be cancelled between
            two tiles.
    """

    upload_bytes: int = 20_000_000
    upload_seconds: float = 120
    receiving_bytes: int = 160_000_000
    pixels: int = 25_000_000
    result_pixels: int = 32_000_000
    waiting: int = 8
    keep_seconds: float = 3600
    keep_bytes: int = 1_000_000_000
    keep_jobs: int = 200
    max_faces: int = 100
    faces: int = 24
    tile: int = 128


def clean_name(name: str) -> str:
    """The name of an upload in messages: the last part of its path without unprintable characters.

    >>> clean_name("C:\\\\photos\\\\me.png"), clean_name("../..")
    ('me.png', '..')
    """
    last = re.split(r"[\\/]", name)[-1]
    return "".join(char for char in last if char.isprintable()).strip()[:NAME_LENGTH] or "the image"


def check_image(content: bytes, name: str, limits: Limits) -> tuple[int, int]:
    """Height and width of an upload that can be restored. Its size is read before its pixels are decoded.

    Raises:
        InputError: It is no image, damaged, or has too many pixels.
    """
    if content:  # decode_rgb has the message about an empty file
        with opened(io.BytesIO(content), name) as image:
            if image.width * image.height > limits.pixels:
                raise InputError(
                    f"{name} has {image.width}x{image.height} pixels, but at most {limits.pixels / 1e6:g} million are "
                    "taken here. Crop it or scale it down."
                )
    height, width = decode_rgb(content, name).shape[:2]
    return height, width
