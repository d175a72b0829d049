"""Which images of a source are used, in which split, and under which names."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from glean_ext.data_preparation.readers import Entry
from glean_ext.errors import InputError
from glean_ext.utils.messages import summarize_names

REST = "rest"  # in place of a list of training images: all images that the list of test images does not name
NAME_LENGTH = 100
SHAPE = re.compile(r"\s+\(\d+,\s*\d+(,\s*\d+)?\).*$")  # what follows the name in a meta_info: (height, width, channels)

# Ways to name an entry of a source, the most exact first.
_FORMS: tuple[Callable[[PurePosixPath], str], ...] = (
    lambda path: path.as_posix(),
    lambda path: path.with_suffix("").as_posix(),
    lambda path: path.name,
    lambda path: path.stem,
)


def choose_images(entries: Sequence[Entry], lists: Mapping[str, str]) -> dict[str, str]:
    """Key -> the split that a list wants an image in, or empty; images that no list names are left out.

    Args:
        entries: All images.
        lists: As in :func:`~glean_ext.data_preparation.prepare.prepare`.

    Raises:
        InputError: As :func:`find_listed`; both lists name one image.
    """
    if not lists:
        return {entry.key: "" for entry in entries}
    if "all" in lists:
        return dict.fromkeys(find_listed(entries, lists["all"]), "")
    wanted = dict.fromkeys(find_listed(entries, lists["test"]), "test") if "test" in lists else {}
    if lists.get("train") == REST:
        return {entry.key: wanted.get(entry.key, "train") for entry in entries}
    if "train" in lists:
        for key in sorted(find_listed(entries, lists["train"])):
            if key in wanted:
                raise InputError(f"{key} is in both {lists['train']} and {lists['test']}. Take it out of one.")
            wanted[key] = "train"
    return wanted


def read_list(path: str | os.PathLike) -> list[str]:
    """The names in a list of files, one a line, as in the ``meta_info`` files that GLEAN was published with.

    What follows a name, ``(1024, 1024, 3)`` say, and empty lines are left out.

    Raises:
        InputError: The file cannot be read, or names nothing.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"{path}: the list cannot be read ({reason}). Give a text file with a name a line.") from error
    names = [SHAPE.sub("", line).strip() for line in lines]
    names = [name for name in names if name]
    if not names:
        raise InputError(f"{path} names no files. Put a name on each line.")
    return names


def find_listed(entries: Iterable[Entry], path: str | os.PathLike) -> set[str]:
    """The keys of the files that a list names: by path, or by the name alone, with or without extension.

    Raises:
        InputError: The list names a file that is not there, or a name that several have.
    """
    paths = {entry.key: PurePosixPath(entry.key) for entry in entries}
    index: dict[str, list[str]] = {}
    for form in _FORMS:
        forms: dict[str, list[str]] = {}
        for key, entry_path in paths.items():
            forms.setdefault(form(entry_path), []).append(key)
        index = forms | index  # a more exact form comes first
    keys, missing = set(), []
    for name in read_list(path):
        matches = index.get(name) or index.get(PurePosixPath(name).with_suffix("").as_posix(), [])
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
