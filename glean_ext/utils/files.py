"""Files appear whole or not at all: written to a temporary name in the same folder, then renamed.

A process holds a lock on its temporary files while it lives. So the next process that writes there recognises what a
killed one left behind, and removes it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar, cast

from glean_ext.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and nothing that was left behind is removed
    fcntl = None  # type: ignore[assignment]

AnyPath = TypeVar("AnyPath", bound=str | os.PathLike)

NAMED = 40  # characters
TEMPORARY = re.compile(r"\..*\.partial-[0-9a-f]{8}")  # the stem of a temporary name

_searched: set[tuple[str, str]] = set()  # folders and suffixes whose leftovers are removed already
_searching = threading.Lock()


def expand_home(path: AnyPath) -> AnyPath:
    """A path as a shell expands it: ``~`` and ``~user`` at its beginning are home folders. Others stay as they are.

    A ``Path`` whose first part is there by that name stays, too: its ``./`` is lost.

    Raises:
        InputError: There is no such user, and nothing of that name.
    """
    text = str(path)
    if not text.startswith("~"):
        return path
    first = Path(text).parts[0]
    expanded = text if os.path.lexists(first) and isinstance(path, Path) else os.path.expanduser(text)
    if expanded == text:
        if os.path.lexists(first):
            return path
        problem = f"there is no user {first[1:]}" if first != "~" else "your home folder is not known"
        raise InputError(f"{text}: {problem}. Correct it, or write ./{text} where a name begins with ~.")
    return cast(AnyPath, expanded if isinstance(path, str) else Path(expanded))


def expand_homes(options: object, *names: str) -> None:
    """Set attributes, also of frozen dataclasses, that are paths, tuples of paths or None, by :func:`expand_home`.

    Raises:
        InputError: As :func:`expand_home`.
    """
    for name in names:
        value = getattr(options, name)
        if isinstance(value, list | tuple):
            object.__setattr__(options, name, tuple(map(expand_home, value)))
        elif value is not None:
            object.__setattr__(options, name, expand_home(value))


@contextmanager
def atomic_path(target: str | os.PathLike) -> Iterator[Path]:
    """A temporary path to write to; it becomes ``target`` when the block ends well and vanishes when it fails.

    It is an empty file at first. Temporary files with the suffix of ``target`` which a killed process left in the
    folder are removed.

    Raises:
        InputError: The file cannot be written: no rights, no space, a file where a folder should be.
    """
    target = Path(target)
    with _temporary(target, lambda partial: partial.touch(exist_ok=False)) as partial:
        yield partial
        partial.replace(target)


def nearest_folder(folder: Path) -> tuple[Path, bool]:
    """The folder, or the nearest one above it that exists, and whether it is a folder that may be written to."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder, folder.is_dir() and os.access(folder, os.W_OK)


def tells_case(folder: Path) -> bool:
    """Whether files in a folder, which need not exist yet, may be called A and a. False where nothing may be written.

    A temporary file shows it: disks of one machine differ.
    """
    try:
        with tempfile.NamedTemporaryFile(prefix=".Case-", dir=nearest_folder(folder)[0]) as file:
            path = Path(file.name)
            return not path.with_name(path.name.swapcase()).exists()
    except OSError:
        return False


def require_suffix(out: str | os.PathLike, suffix: str) -> None:
    """Raise InputError if a file to be written, the parameter ``out``, has another suffix."""
    if Path(out).suffix != suffix:
        raise InputError(f"{out} must end in {suffix}. Choose another output.", parameter="out")


@contextmanager
def temporary_folder_beside(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` for files that it is made from; removed after the block, or as :func:`atomic_path`.

    Raises:
        InputError: As :func:`atomic_path`.
    """
    with _temporary(target, Path.mkdir) as folder:
        yield folder


@contextmanager
def _temporary(target: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """A new, locked file or folder beside ``target``, which is removed after the block where it is still there."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent, target.suffix)
        path, lock = _create(target, make)
        try:
            yield path
        finally:
            _remove(path)
            _unlock(lock)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror or error}). Choose another output.") from error


def temporary_name(target: Path) -> Path:
    """A new name beside ``target`` and with its suffix.

    It has a part of the target's name only: with all of it, it might be too long for the file system.
    """
    return target.with_name(f".{target.stem[:NAMED]}.partial-{secrets.token_hex(4)}{target.suffix}")


def remove_leftovers(folder: Path, suffix: str) -> None:
    """Remove what killed processes left in a folder under temporary names with this suffix; once per process."""
    key = os.path.realpath(folder), suffix
    with _searching:
        if fcntl is None or key in _searched:
            return
        _searched.add(key)
        found: list[Path] = []
        with suppress(OSError), os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if entry.name.endswith(suffix)]
    for path in found:
        if TEMPORARY.fullmatch(path.name.removesuffix(suffix)) and not path.is_symlink():
            _remove_unless_locked(path)


def _remove_unless_locked(path: Path) -> None:
    lock = _lock(path, wait=False)
    if lock is not None:
        _remove(path)
        _unlock(lock)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # it is not there, or cannot be removed
            path.unlink()


def _create(target: Path, make: Callable[[Path], None]) -> tuple[Path, int | None]:
    """What ``make`` makes under a temporary name, and the descriptor that holds its lock."""
    while True:
        path = temporary_name(target)
        make(path)
        lock = _lock(path)
        if path.exists():  # else another process took it for a leftover before it was locked
            return path, lock
        _unlock(lock)


def _lock(path: Path, wait: bool = True) -> int | None:
    """The descriptor that holds a lock on a file or folder; None where it cannot be locked."""
    if fcntl is None:
        return None
    opened = None
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        _unlock(opened)
        return None
    return opened


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def write_json(content: object, path: str | os.PathLike) -> None:
    """Write ``content`` as indented JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
