"""Which files belong together: the results of each restorer, the reference, and the input, by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from glean_ext.errors import InputError, Notice
from glean_ext.utils.file_listing import list_files
from glean_ext.utils.image_io import EXTENSIONS
from glean_ext.utils.messages import summarize_names


@dataclass(frozen=True)
class Group:
    """The files of one image.

    Attributes:
        name: Their path in the folders, without extension.
        outputs: One result of each restorer.
        reference: The ground truth; None where none is given.
        input: What was restored; None where none is given.
    """

    name: str
    outputs: tuple[Path, ...]
    reference: Path | None = None
    input: Path | None = None


@dataclass(frozen=True)
class Pairing:
    """The images that all folders have, and what was left out of them.

    Attributes:
        groups: Sorted by name.
        notices: One for each folder that has files without a partner, or that are no images.
    """

    groups: list[Group]
    notices: list[Notice] = field(default_factory=list)


def pair_files(outputs: list[Path], reference: Path | None, inputs: Path | None, suffix: str = "") -> Pairing:
    """Find the images that all folders have: only those are compared, so that every mean is over the same images.

    Args:
        outputs: The folders of results, one for each restorer.
        reference: The folder of ground truths.
        inputs: The folder of inputs.
        suffix: What the results' names have at their end more than the other names, such as ``_restored``.

    Raises:
        InputError: A folder is missing or has no images, two files of a folder have one name, or no name is in all.
    """
    folders = [*outputs, *(folder for folder in (reference, inputs) if folder is not None)]
    notices: list[Notice] = []
    named = [_by_name(folder, suffix if i < len(outputs) else "", notices) for i, folder in enumerate(folders)]
    common = set(named[0]).intersection(*named[1:])
    if not common:
        examples = ", ".join(f"{next(iter(files))!r} in {folder}" for folder, files in zip(folders, named, strict=True))
        raise InputError(
            f"no image has the same name in all folders: {examples}.",
            "suffix",
            "Give what is added to the names of the results as {suffix}.",
        )
    for folder, files in zip(folders, named, strict=True):
        if alone := sorted(set(files) - common):
            notices.append(
                Notice(f"{folder}: {len(alone)} images have no partner and are left out: {summarize_names(alone)}")
            )
    groups = []
    for name in sorted(common):
        paths = [by_name[name] for by_name in named]
        partners = iter(paths[len(outputs) :])
        groups.append(
            Group(
                name,
                tuple(paths[: len(outputs)]),
                next(partners) if reference is not None else None,
                next(partners) if inputs is not None else None,
            )
        )
    return Pairing(groups, notices)


def _by_name(folder: Path, suffix: str, notices: list[Notice]) -> dict[str, Path]:
    """The images of a folder by their path in it, without extension and suffix."""
    listing = list_files(folder, EXTENSIONS, follow_links=True)
    if not listing.files:
        raise InputError(f"{folder} holds no images. Give the folder of the images.")
    if left_out := listing.describe_left_out(folder, EXTENSIONS):
        notices.append(Notice(left_out))
    found: dict[str, Path] = {}
    for path in listing.files:
        name = _without_extensions(path.relative_to(folder)).as_posix().removesuffix(suffix)
        if name in found:
            raise InputError(
                f"{found[name]} and {path} both have the name {name!r}, by which files are paired. Move one of them."
            )
        found[name] = path
    return found


def _without_extensions(path: Path) -> Path:
    """Without those of images, of which the results of other formats have two: ``a`` of ``a.jpg.png``."""
    while path.suffix.lower() in EXTENSIONS:
        path = path.with_suffix("")
    return path
