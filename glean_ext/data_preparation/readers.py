"""Where raw images come from: a folder with its subfolders, a zip, or an LMDB such as LSUN's. Nothing is unpacked."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from glean_ext.errors import InputError
from glean_ext.utils.image_io import EXTENSIONS

LARGEST = 1 << 30  # bytes of one image file, unpacked. Pillow's own limit of 89 million pixels lies far below
SHAPE = re.compile(r"\s+\(\d+,\s*\d+(,\s*\d+)?\).*$")  # what follows the name in a meta_info: (height, width, channels)


@dataclass(frozen=True)
class Entry:
    """An image file of a source.

    Attributes:
        key: Its path in the source, with ``/``: printable and different from all others.
        locator: How the source finds it.
        stamp: Changes when the file does.
    """

    key: str
    locator: Any
    stamp: str


class Source(Protocol):
    """Finds and reads image files."""

    def find(self) -> tuple[list[Entry], int]:
        """The image files by extension, sorted by key, and how many other files there are.

        Raises:
            InputError: A part of the source cannot be read.
        """

    def read(self, entry: Entry) -> bytes:
        """The file's content.

        Raises:
            InputError: It cannot be read, or is larger than :data:`LARGEST`.
        """


def open_source(path: str | os.PathLike) -> Source:
    """The source that a path is.

    Raises:
        InputError: There is no such file or folder, or it is neither a folder nor a zip.
    """
    path = Path(path)
    if path.is_dir():
        return LMDBSource(path) if (path / "data.mdb").is_file() else FolderSource(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such folder or zip file. Give where the images are.")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is neither a folder nor a zip file. Unpack it, and give the folder.")
    return ZipSource(path)


class FolderSource:
    """A folder and its subfolders; links are followed, a folder that contains itself is read once."""

    def __init__(self, root: Path):
        self.root = root

    def find(self) -> tuple[list[Entry], int]:
        found, others = [], 0
        for path in self._files():
            relative = path.relative_to(self.root)
            if not _is_image(relative.name):
                others += 1
                continue
            status = path.stat() if path.exists() else path.lstat()  # a link to nowhere is rejected when it is read
            found.append((_printable(relative.as_posix()), str(relative), f"{status.st_size} {status.st_mtime_ns}"))
        return _entries(found), others

    def _files(self) -> Iterator[Path]:
        seen = set()
        for folder, subfolders, names in os.walk(self.root, onerror=_stop, followlinks=True):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                subfolders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            yield from (Path(folder, name) for name in names)

    def read(self, entry: Entry) -> bytes:
        path = self.root / entry.locator
        try:
            if path.stat().st_size > LARGEST:
                raise _too_large(entry.key, path.stat().st_size)
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"{entry.key} cannot be read ({error.strerror or error}).") from error


class ZipSource:
    """A zip file. Members are read into memory one at a time: their names are never used as paths to write to.

    Raises:
        InputError: The file is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.file = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
            raise InputError(f"{path} is a damaged zip file ({error}). Get it anew.") from error
        self.members = self.file.infolist()

    def find(self) -> tuple[list[Entry], int]:
        files = [(i, member) for i, member in enumerate(self.members) if not member.is_dir()]
        images = [(i, member) for i, member in files if _is_image(Path(member.filename).name)]
        found = [(_printable(member.filename), i, f"{member.file_size} {member.CRC}") for i, member in images]
        return _entries(found), len(files) - len(images)

    def read(self, entry: Entry) -> bytes:
        member = self.members[entry.locator]
        if member.file_size > LARGEST:
            raise _too_large(entry.key, member.file_size)
        if member.flag_bits & 1:
            raise InputError(f"{entry.key} is encrypted. Unpack the zip with its password, and give the folder.")
        try:
            return self.file.read(member)  # no more than file_size, whatever the packed data would give
        except (OSError, EOFError, NotImplementedError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{entry.key} is truncated or damaged ({error}). Get the zip anew.") from error


class LMDBSource:
    """An LMDB whose values are image files, as LSUN is distributed.

    Raises:
        InputError: The database is damaged.
    """

    def __init__(self, path: Path):
        import lmdb

        self.path = path
        try:
            self.database = lmdb.open(str(path), readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise InputError(f"{path} is a damaged LMDB ({error}). Get it anew.") from error

    def find(self) -> tuple[list[Entry], int]:
        with self.database.begin(buffers=True) as reader:
            found = [(bytes(key), len(value)) for key, value in reader.cursor()]
        return _entries((_printable(os.fsdecode(key)), key, str(size)) for key, size in found), 0

    def read(self, entry: Entry) -> bytes:
        with self.database.begin() as reader:
            content = reader.get(entry.locator, b"")
        if len(content) > LARGEST:
            raise _too_large(entry.key, len(content))
        return content


def _is_image(name: str) -> bool:
    """By extension; hidden files are none, and neither are the ``._x.jpg`` that macOS puts into zips."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _printable(name: str) -> str:
    """File names need not be text: bytes that are no UTF-8 become escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _entries(found: Iterable[tuple[str, Any, str]]) -> list[Entry]:
    """Sorted; a key that was there before, as zips may have it, gets a number."""
    entries: dict[str, Entry] = {}
    for key, locator, stamp in sorted(found, key=lambda one: (one[0], str(one[1]))):
        unique, count = key, 1
        while unique in entries:
            count += 1
            unique = f"{key} ({count})"
        entries[unique] = Entry(unique, locator, stamp)
    return sorted(entries.values(), key=lambda entry: entry.key)


def _too_large(key: str, size: int) -> InputError:
    return InputError(f"{key} has {size} bytes, and {LARGEST} are the most that is read. Scale the image down.")


def _stop(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read ({error.strerror}). Correct its rights.") from error


_FORMS: tuple[Callable[[Path], str], ...] = (
    Path.as_posix,
    lambda path: path.with_suffix("").as_posix(),
    lambda path: path.name,
    lambda path: path.stem,
)


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


def listed(entries: Iterable[Entry], path: str | os.PathLike) -> set[str]:
    """The keys of the files that a list names: by path, or by the name alone, with or without extension.

    Raises:
        InputError: The list names a file that is not there, or a name that several have.
    """
    index: dict[str, list[str]] = {}
    entries = list(entries)
    for form in _FORMS:
        forms: dict[str, list[str]] = {}
        for entry in entries:
            forms.setdefault(form(Path(entry.key)), []).append(entry.key)
        index = forms | index  # what matches more exactly goes first
    keys, missing = set(), []
    for name in read_list(path):
        matches = index.get(name) or index.get(Path(name).with_suffix("").as_posix(), [])
        if len(matches) > 1:
            raise InputError(f"{path} names {name}, which {matches[0]} and {matches[1]} both are. Give the whole path.")
        if matches:
            keys.add(matches[0])
        else:
            missing.append(name)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{path} names {missing[0]}{more}, which SOURCE does not have. Correct the list or SOURCE.")
    return keys
