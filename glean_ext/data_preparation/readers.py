"""Where raw images come from: a folder with its subfolders, a zip, an LMDB such as LSUN's, or a folder behind a URL.

Nothing is unpacked, and nothing is copied as a whole.
"""

from __future__ import annotations

import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from glean_ext.errors import InputError, UnreadableImageError, first_line
from glean_ext.utils.file_listing import list_files
from glean_ext.utils.image_io import EXTENSIONS
from glean_ext.utils.optional_packages import import_optional
from glean_ext.utils.url_files import list_url, local_part, read_url

MAX_BYTES = 1 << 30  # of one image file, unpacked. Pillow's own limit of 89 million pixels is far below

HARMLESS_BYTES = 1 << 26  # of an image file in a zip, however well it is packed
MAX_RATIO = 100  # that larger ones may be packed by: photographs are hardly, even as BMP by less than 10


@dataclass(frozen=True)
class Entry:
    """An image file of a source.

    Attributes:
        key: Its path in the source, with ``/``: printable and different from all others.
        locator: What the source finds it by.
        size: Bytes, unpacked.
        stamp: Changes when the file does.
    """

    key: str
    locator: Any
    size: int
    stamp: str


class Source(ABC):
    """Image files. Another process that gets a source opens it again."""

    def __init__(self, path: Path | str):
        self.path = path

    def __reduce__(self) -> tuple:
        return type(self), (self.path,)

    def absolute(self) -> Source:
        """The same for a process in another folder."""
        return type(self)(Path(os.path.abspath(self.path)))

    @abstractmethod
    def find(self) -> tuple[list[Entry], list[str]]:
        """The image files by extension, sorted by key, and the paths of everything else.

        Raises:
            InputError: A part of the source cannot be read.
        """

    @abstractmethod
    def _read(self, entry: Entry) -> bytes: ...

    def read(self, entry: Entry) -> bytes:
        """The content of a file.

        Raises:
            UnreadableImageError: It is damaged.
            InputError: It cannot be read, or is larger than :data:`MAX_BYTES`.
        """
        if entry.size > MAX_BYTES:
            raise InputError(f"{entry.key} has {entry.size} bytes, and {MAX_BYTES} is the limit. Scale the image down.")
        try:
            return self._read(entry)
        except InputError:
            raise
        except Exception as error:  # decompressors raise errors of nearly every type
            if isinstance(error, OSError) and error.errno is not None:  # by the system
                raise InputError(f"{entry.key} cannot be read ({error.strerror}).") from error
            raise UnreadableImageError(
                f"{entry.key} is truncated or damaged ({first_line(error)}). Download or copy {self.path} again."
            ) from error


class UrlSource(Source):
    """A folder behind a URL, or what its pattern matches. Each image is read when it is its turn."""

    def absolute(self) -> Source:
        return self

    def find(self) -> tuple[list[Entry], list[str]]:
        files = [(file, file.within.as_posix()) for file in list_url(str(self.path))]
        found = [(name, str(file.url), file.size or 0, file.stamp) for file, name in files if _is_image(name)]
        return _entries(found), sorted(_printable(name) for _, name in files if not _is_image(name))

    def _read(self, entry: Entry) -> bytes:
        return read_url(entry.locator, end=None if entry.size else MAX_BYTES)


class FolderSource(Source):
    """A folder and its subfolders; links are followed, a folder that contains itself is read once."""

    path: Path

    def find(self) -> tuple[list[Entry], list[str]]:
        listing = list_files(self.path, EXTENSIONS, follow_links=True)
        found = []
        for path in listing.files:
            status = path.stat() if path.exists() else path.lstat()  # a link to nowhere is rejected when it is read
            within = path.relative_to(self.path)
            found.append((within.as_posix(), within, status.st_size, status.st_mtime_ns))
        left_out = [_printable(path.relative_to(self.path).as_posix()) for path in listing.left_out + listing.hidden]
        return _entries(found), sorted(left_out)

    def _read(self, entry: Entry) -> bytes:
        return (self.path / entry.locator).read_bytes()


class ZipSource(Source):
    """A zip file. Members are read into memory one at a time: their names are never used as paths to write to."""

    def __init__(self, path: Path):
        super().__init__(path)
        try:
            self.file = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
            raise InputError(f"{path} is a damaged zip file ({error}). Download or copy it again.") from error
        self.members = self.file.infolist()

    def find(self) -> tuple[list[Entry], list[str]]:
        found, left_out = [], []
        for i, member in enumerate(self.members):
            if _is_image(member.filename):
                found.append((member.filename, i, member.file_size, member.CRC))
            elif not member.is_dir():
                left_out.append(_printable(member.filename))
        return _entries(found), sorted(left_out)

    def _read(self, entry: Entry) -> bytes:
        member = self.members[entry.locator]
        if member.flag_bits & 1:
            raise InputError(f"{entry.key} is encrypted. Unpack the zip with its password, and give the folder.")
        if member.file_size > max(HARMLESS_BYTES, MAX_RATIO * member.compress_size):
            raise InputError(
                f"{entry.key} unpacks from {member.compress_size} to {member.file_size} bytes, as no image."
            )
        return self.file.read(member)  # at most file_size bytes, even if the packed data would give more


class LMDBSource(Source):
    """An LMDB whose values are image files, as LSUN is distributed."""

    def __init__(self, path: Path):
        super().__init__(path)
        with self._damage_as_input_error() as lmdb:
            self.database = lmdb.open(str(path), readonly=True, lock=False, readahead=False)

    @contextmanager
    def _damage_as_input_error(self) -> Iterator[ModuleType]:
        lmdb = import_optional("lmdb", str(self.path), "pip install lmdb")
        try:
            yield lmdb
        except lmdb.Error as error:
            raise InputError(f"{self.path} is a damaged LMDB ({error}). Download or copy it again.") from error

    def find(self) -> tuple[list[Entry], list[str]]:
        with self._damage_as_input_error(), self.database.begin(buffers=True) as reader:
            found = [(bytes(key), len(value)) for key, value in reader.cursor()]
        return _entries((os.fsdecode(key), key, size, "") for key, size in found), []

    def _read(self, entry: Entry) -> bytes:
        with self.database.begin() as reader:
            return reader.get(entry.locator, b"")


def open_source(path: str | os.PathLike) -> Source:
    """A source of the kind that ``path`` is.

    Raises:
        InputError: There is no such file or folder, or it is neither a folder nor a zip; a zip behind a URL.
    """
    path = local_part(path)
    if isinstance(path, str):
        if str(path).lower().endswith(".zip"):
            raise InputError(f"{path} is a zip behind a URL. Download it, or give a folder of images.")
        return UrlSource(path)
    if path.is_dir():
        return LMDBSource(path) if (path / "data.mdb").is_file() else FolderSource(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such folder or zip file. Give where the images are.")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is neither a folder nor a zip file. Unpack it, and give the folder.")
    return ZipSource(path)


def _is_image(name: str) -> bool:
    """By extension, as :func:`~glean_ext.utils.file_listing.list_files`: not in hidden folders, nor macOS's ``._x``."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return name.lower().endswith(EXTENSIONS) and not any(part.startswith(".") for part in parts)


def _printable(name: str) -> str:
    """File names need not be text: bytes that are no UTF-8 become escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _entries(found: Iterable[tuple[str, Any, int, object]]) -> list[Entry]:
    """From name, locator, size and stamp. A name that occurs again, which is possible in zips, gets a number."""
    entries: dict[str, Entry] = {}
    counts: dict[str, int] = {}
    for name, locator, size, stamp in sorted(found, key=lambda file: (file[0], str(file[1]))):
        key = unique = _printable(name)
        while unique in entries:
            counts[key] = counts.get(key, 1) + 1
            unique = f"{key} ({counts[key]})"
        entries[unique] = Entry(unique, locator, size, f"{size} {stamp}")
    return sorted(entries.values(), key=lambda entry: entry.key)
