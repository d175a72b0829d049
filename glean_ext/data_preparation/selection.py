"""Which images of a source are used, in which split, and under which names."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from glean_ext.data_preparation.readers import Entry
from glean_ext.errors import InputError
from glean_ext.utils.file_lists import read_file_list
from glean_ext.utils.messages import summarize_names

REST = "rest"  # in place of a list of training images: all images that the list of test images does not name
NAME_LENGTH = 100

# Ways to name an entry of a source, the most exact first.
_FORMS: tuple[Callable[[PurePosixPath], str], ...] = (
    lambda path: path.as_posix(),
    lambda path: path.with_suffix("").as_posix(),
    lambda path: path.name,
    lambda path: path.stem,
)


def choose_images(entries: Sequence[Entry], lists: Mapping[str, str], source: Path | str) -> dict[str, str]:
    """Key -> the split that a list wants an image in, or empty; images that no list names are left out.

    Args:
        entries: All images.
        lists: As in :func:`~glean_ext.data_preparation.prepare.prepare`.
        source: Folder that the keys of images are relative to.

    Raises:
        InputError: As :func:`find_listed`; both lists name one image.
    """
    if not lists:
        return {entry.key: "" for entry in entries}
    if "all" in lists:
        return dict.fromkeys(find_listed(entries, lists["all"], source), "")
    wanted = dict.fromkeys(find_listed(entries, lists["test"], source), "test") if "test" in lists else {}
    if lists.get("train") == REST:
        return {entry.key: wanted.get(entry.key, "train") for entry in entries}
    if "train" in lists:
        for key in sorted(find_listed(entries, lists["train"], source)):
            if key in wanted:
                raise InputError(f"{key} is in both {lists['train']} and {lists['test']}. Take it out of one.")
            wanted[key] = "train"
    return wanted


def find_listed(entries: Iterable[Entry], path: str | os.PathLike, source: Path | str = Path()) -> set[str]:
    """The keys of the files that a list names: by path, or by the name alone, with or without extension.

    Args:
        entries: All images.
        path: The list, see :func:`~glean_ext.utils.file_lists.read_file_list`. Paths are absolute, or relative to the
            source, the list's folder or the working directory.
        source: Folder that the keys are relative to.

    Raises:
        InputError: The list cannot be read, names nothing, a file that is missing, or a name that several files have.
    """
    index: dict[str, list[str]] = {}
    paths = {entry.key: PurePosixPath(entry.key) for entry in entries}
    for form in _FORMS:
        forms: dict[str, list[str]] = {}
        for key, entry_path in paths.items():
            forms.setdefault(form(entry_path), []).append(key)
        index = forms | index  # a more exact form comes first

    def find(name: str) -> list[str]:
        from_folders = (os.path.join(folder, name) for folder in (os.getcwd(), os.path.dirname(os.path.abspath(path))))
        names = [name, posixpath.normpath(name), *(os.path.relpath(place, source) for place in from_folders)]
        return next((index[name] for name in names if name in index), [])

    names = read_file_list(path, lambda name: bool(find(name)))
    if not names:
        raise InputError(f"{path} names no files. Put a name on each line.")
    keys, missing = set(), []
    for name in names:
        matches = find(name) or find(os.path.splitext(name)[0])
        if len(matches) > 1:
            raise InputError(f"{path} names {name}, which {matches[0]} and {matches[1]} both are. Give the whole path.")
        if matches:
            keys.add(matches[0])
        else:
            missing.append(name)
    if missing:
        raise InputError(
            f"{path} names {summarize_names(missing, shown=1)}, which {{source}} does not have. Correct the list or "
            "{source}.",
            "source",
        )
    return keys


def assign_names(keys: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    """File names for the output: the image's own, with its folders where that is taken, and else with a hash.

    Args:
        keys: Paths of images in the source.
        names: Key -> name, of images that already have one.

    Returns:
        Key -> name, for all. Names differ in more than upper and lower case, and have ASCII letters, digits and
        ``.-_`` only: MMagic cuts the lines of lists at spaces, and keys of LMDB databases are ASCII.
    """
    names = dict(names)
    taken = {name.lower() for name in names.values()}
    for key in keys:
        if key in names:
            continue
        path = PurePosixPath(key)
        digest = hashlib.sha256(key.encode()).hexdigest()[:12]
        plain, long = _to_ascii(path.stem), _to_ascii("_".join((*path.parent.parts, path.stem)))
        for stem in plain, long, f"{plain}_{digest}".lstrip("_"):
            if stem and f"{stem}.png".lower() not in taken:
                names[key] = f"{stem}.png"
                taken.add(names[key].lower())
                break
    return names


def _to_ascii(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:NAME_LENGTH]
