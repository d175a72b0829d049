"""The references of a folder's images: others of the same identity, from subfolders or from a JSON file."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
from mmcv.transforms import BaseTransform

from glean_ext.datasets.json_by_image import FOLDERS, read_json_by_image
from glean_ext.errors import InputError
from glean_ext.utils.image_io import read_rgb
from glean_ext.utils.imresize import imresize
from glean_ext.utils.messages import summarize_names

MOST = 32  # references of an image that are kept of a folder

logger = logging.getLogger(__name__)


def image_references(names: Sequence[str], references: str, root: str) -> dict[str, list[str]]:
    """The references of each image; images without any are left out, with a warning.

    Args:
        names: The images, relative to their folder.
        references: ``'folders'``: the other images in the folder of an image, one for each identity; of a large folder
            the next :data:`MOST`, and on from the first. Otherwise a JSON file, relative to ``root``, with a list of
            names for the name of each image.
        root: The folder of the data set.

    Raises:
        InputError: The file cannot be used, it lacks an image or gives it itself, or no image has references.
    """
    found = _from_folders(names) if references == FOLDERS else _from_file(names, Path(root) / references)
    if alone := [name for name, others in found.items() if not others]:
        logger.warning("%d images have no references and are left out: %s.", len(alone), summarize_names(alone, 3))
    if len(alone) == len(found):
        raise InputError(
            "No image has references. With references='folders' there is a folder with several images for each "
            "identity; set recursive=True of the dataset."
        )
    return {name: others for name, others in found.items() if others}


def _from_folders(names: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[PurePath, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(PurePath(name).parent, []).append(name)
    loose = groups.get(PurePath("."), [])  # in no folder of an identity
    found: dict[str, list[str]] = {name: [] for name in names}
    for group in groups.values():
        if group is not loose:
            found |= {name: _next(group, place) for place, name in enumerate(group)}
    return found


def _next(group: Sequence[str], place: int) -> list[str]:
    """Up to MOST others after the one at a place, and on from the first."""
    return [group[(place + step) % len(group)] for step in range(1, min(len(group), MOST + 1))]


def _from_file(names: Sequence[str], path: Path) -> dict[str, list[str]]:
    content = read_json_by_image(path, "references", "a list of images", _is_list_of_names)
    if missing := [name for name in names if name not in content]:
        raise InputError(f"{path} has no list for {summarize_names(missing, 1)}. Add it, or remove the image.")
    if own := [name for name in names if name in content[name]]:
        raise InputError(f"{path} names {summarize_names(own, 1)} as its own reference. Remove it from its list.")
    return {name: content[name] for name in names}


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


class LoadReferences(BaseTransform):
    """Sets ``ref``, references: a list of ``number`` arrays (H, W, 3), uint8, RGB, of the size of ``gt``.

    They are files of ``ref_paths``, which a dataset with ``references`` has; where there are fewer, they are repeated.
    Those of another size are resized by MATLAB's bicubic.

    Args:
        number: How many, the same for every image.
        shuffle: Draw them, for training; otherwise they are the first ones.

    Raises:
        UnreadableImageError: A file is damaged, or no image.
        InputError: A file is missing, or its aspect differs from that of ``gt``; the dataset has no references.
    """

    def __init__(self, number: int = 1, shuffle: bool = True) -> None:
        if not isinstance(number, int) or number < 1:
            raise InputError(f"LoadReferences.number is {number!r}, but it must be a whole number, 1 or more.")
        self.number, self.shuffle = number, shuffle

    def transform(self, results: dict) -> dict:
        paths = results.get("ref_paths")
        if not paths:
            raise InputError("LoadReferences needs a dataset with references: set them to 'folders' or to a JSON file.")
        order = np.random.permutation(len(paths)) if self.shuffle else np.arange(len(paths))
        chosen = [paths[order[place % len(paths)]] for place in range(self.number)]
        size = results["gt"].shape[:2]
        # Arrays of their own, even of one file: transforms may change them in place.
        return results | {"ref": [_sized(read_rgb(path), size, path) for path in chosen]}


def _sized(image: np.ndarray, size: tuple[int, int], path: str | os.PathLike) -> np.ndarray:
    (height, width), (rows, columns) = image.shape[:2], size
    if height * columns != rows * width:
        raise InputError(
            f"{path} has {width}x{height} pixels, another aspect than the ground truth's {columns}x{rows}. Crop it."
        )
    return image if (height, width) == size else imresize(image, size=size)
