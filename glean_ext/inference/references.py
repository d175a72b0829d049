"""Reference images: other images of what is to be restored, as files or pixels, and what a network gets of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from glean_ext.errors import InputError, Notice
from glean_ext.inference.size_policy import Resize, Size, size_of
from glean_ext.size_requirements import format_size
from glean_ext.utils.file_listing import list_files
from glean_ext.utils.files import expand_home
from glean_ext.utils.image_io import EXTENSIONS
from glean_ext.utils.image_types import ImageLike, as_picture, name_of
from glean_ext.utils.messages import summarize_names

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference image: (h, w, 3) uint8 RGB of any size, and what messages call it."""

    pixels: Array
    name: str


def list_references(references: Iterable[str | os.PathLike]) -> list[Path]:
    """The files, those of a folder in its place, sorted.

    Raises:
        InputError: A folder without images.
    """
    found = []
    for path in (Path(expand_home(reference)) for reference in references):
        files = list_files(path, EXTENSIONS, recursive=False).files if path.is_dir() else [path]
        if not files:
            raise InputError(
                f"{path} has no images ({' '.join(EXTENSIONS)}).", "references", "Give others as {references}."
            )
        found.extend(files)
    return found


def read_references(references: ImageLike | Sequence[ImageLike]) -> list[Reference]:
    """The pixels of a reference image, of several, or of folders of them, over white where they are transparent.

    Raises:
        InputError: A folder without images, or a file that is no image.
        TypeError: No image.
    """
    images: list[ImageLike] = []
    for image in references if isinstance(references, list | tuple) else [cast(ImageLike, references)]:
        images.extend(list_references([image]) if isinstance(image, str | os.PathLike) else [image])
    names = [name_of(image, f"reference {number}") for number, image in enumerate(images, 1)]
    return [
        Reference(as_picture(image, name, "references").flattened, name)
        for image, name in zip(images, names, strict=True)
    ]


def resized(references: Sequence[Reference], size: Size, notify: Callable[[Notice], None]) -> list[Array]:
    """All at the size that a network takes, their aspect kept and their border repeated; a notice names the others."""
    others = [reference for reference in references if size_of(reference.pixels) != size]
    if others:
        first = others[0]
        notify(
            Notice(
                f"{len(others)} of {len(references)} references were resized to the model's {format_size(size)}: "
                f"{summarize_names([other.name for other in others])} (the first has "
                f"{format_size(size_of(first.pixels))} pixels)."
            )
        )
    resize = Resize(size, "pad")
    return [
        reference.pixels if size_of(reference.pixels) == size else resize.prepare(reference.pixels)
        for reference in references
    ]
