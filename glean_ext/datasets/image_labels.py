"""The classes of a folder's images: from subfolders, or from a JSON file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from glean_ext.datasets.json_by_image import FOLDERS, read_json_by_image
from glean_ext.errors import InputError
from glean_ext.utils.messages import summarize_names

Image = TypeVar("Image", bound=Hashable)


def image_labels(
    names: Sequence[str], labels: str, root: str, classes: Sequence[str] | int | None = None
) -> dict[str, int]:
    """The class of each image as a number; images of other classes than ``classes`` are left out.

    Args:
        names: The images, relative to their folder.
        labels: ``'folders'``: the class of an image is the first folder of its name, as in ImageNet. Otherwise a JSON
            file, relative to ``root``, with a class for each image's name or stem.
        root: The folder of the data set.
        classes: The classes in the order of their numbers; a number: all, sorted, and there must be so many; None: all.

    Raises:
        InputError: The file cannot be used, an image has no class, or there are no images of a class.
    """
    return class_numbers(_from_folders(names) if labels == FOLDERS else _from_file(names, Path(root) / labels), classes)


def class_numbers(named: Mapping[Image, str], classes: Sequence[str] | int | None) -> dict[Image, int]:
    """The number of each image's class, of which the name is known; see :func:`image_labels`.

    Raises:
        InputError: There are no images of a class, or another number of classes.
    """
    if isinstance(classes, int) and classes != (count := len(set(named.values()))):
        raise InputError(f"The images have {count} classes, but classes={classes}. Correct the folder or the number.")
    classes = sorted(set(named.values())) if classes is None or isinstance(classes, int) else list(classes)
    if empty := sorted(set(classes) - set(named.values())):
        found = summarize_names(sorted(set(named.values())), 10)
        raise InputError(f"There are no images of the class {empty[0]!r}; the classes are {found}. Correct classes.")
    numbers = {kind: number for number, kind in enumerate(classes)}
    return {image: numbers[kind] for image, kind in named.items() if kind in numbers}


def _from_folders(names: Sequence[str]) -> dict[str, str]:
    if loose := [name for name in names if len(PurePath(name).parts) < 2 or PurePath(name).is_absolute()]:
        raise InputError(
            f"{summarize_names(loose, 1)}: labels='folders' takes the class from the folder of an image, but it is in "
            "none below the ground truth. Sort the images into a folder for each class and set recursive=True, or "
            "name a JSON file."
        )
    return {name: PurePath(name).parts[0] for name in names}


def _from_file(names: Sequence[str], path: Path) -> dict[str, str]:
    content = read_json_by_image(
        path, "labels", "a class", lambda kind: isinstance(kind, str), content="the name of a class"
    )
    named = {name: content.get(PurePath(name).stem, content.get(name)) for name in names}
    if missing := [name for name, kind in named.items() if kind is None]:
        raise InputError(f"{path} has no class for {summarize_names(missing, 1)}. Add it, or remove the image.")
    return named
