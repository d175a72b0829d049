"""Files behind URLs such as ``s3://bucket/folder``, which fsspec reads and writes with the user's own credentials."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from glean_ext.errors import InputError, first_line
from glean_ext.utils.downloads import without_secrets

SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=.)", re.IGNORECASE)
# Protocols of object stores, which show a file when all of it is there. On others it gets its name afterwards.
OBJECT_STORES = {"abfs", "abfss", "az", "gcs", "gs", "memory", "oci", "oss", "r2", "s3", "s3a"}
LOCAL = ("file", "local")  # protocols of files on this machine
TRIES = 3  # to read a file
PAUSE = 1.0  # seconds after the first of them
IN_A_ROW = 8  # files that fail: is it their store?


class UrlPath(PurePosixPath):
    """A URL whose parts are read and changed as those of a path.

    >>> url = UrlPath("s3://bucket/in/face.png")
    >>> str(url), url.name, str(url.with_suffix(".jpg")), str(url.parent / "b.png")
    ('s3://bucket/in/face.png', 'face.png', 's3://bucket/in/face.jpg', 's3://bucket/in/b.png')
    """

    def __str__(self) -> str:
        return SCHEME.sub(lambda found: start_of(found[1]), super().__str__(), count=1)


def start_of(scheme: str) -> str:
    """A scheme as URLs begin with it: those of this machine's files have a third slash, that of the path."""
    return f"{scheme}:///" if scheme.lower() in LOCAL else f"{scheme}://"


def is_file_url(text: object) -> bool:
    """Whether this is the URL of files that are not reached by a path."""
    return SCHEME.match(str(text)) is not None and "://" in str(text)


def local_part(place: str | os.PathLike) -> Path | str:
    """The path that a place on this machine has, also by a URL as ``file:///a``; other URLs stay as they are."""
    text = os.fspath(place)
    if not is_file_url(text):
        return Path(text)
    return Path(open_url(text)[1]) if text.split("://")[0].lower() in LOCAL else text


class UrlFile(NamedTuple):
    """A file behind a URL.

    Attributes:
        url: Where it is.
        within: Its path within the folder that was given.
        size: Bytes; None where its store does not say it.
        stamp: Changes with the file, as far as its store says it.
    """

    url: UrlPath
    within: PurePosixPath
    size: int | None
    stamp: str


def list_url(url: str) -> list[UrlFile]:
    """All files below a URL or that its pattern matches, sorted.

    Raises:
        InputError: The URL cannot be read, or there is nothing.
    """
    with url_errors(url):
        system, path = open_url(url)
        base = re.split(r"[^/]*[*?\[]", path, maxsplit=1)[0] if re.search(r"[*?\[]", path) else path
        if base != path:
            found = {name: info for name, info in system.glob(path, detail=True).items() if not system.isdir(name)}
        elif not path.endswith("/") and system.isfile(path):  # a web server has a page for a folder, too
            found = {path: system.info(path)}
        else:
            found = system.find(path, detail=True)
    if not found:
        raise InputError(
            f"{without_secrets(url)}: there is no such file, and no such folder with files. Correct the URL."
        )
    base = str(PurePosixPath(base).parent) if list(found) == [path] else base
    start = start_of(url.split("://")[0])
    return [
        UrlFile(
            UrlPath(name if name.startswith(start) else f"{start}{name.lstrip('/')}"),
            PurePosixPath(name.lstrip("/")).relative_to(base.strip("/")),
            info.get("size"),
            stamp_of(info),
        )
        for name, info in sorted(found.items())
    ]


def stamp_of(info: Mapping[str, Any]) -> str:
    """What changes with a file, of what fsspec has from its store."""
    changing = {str(info[key]) for key in ("ETag", "etag", "LastModified", "mtime", "created") if info.get(key)}
    return " ".join([str(info.get("size")), *sorted(changing)])


def existing_below(url: str) -> frozenset[str]:
    """The URLs of all files in a folder, which need not be there; a bucket has to.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return frozenset(str(file.url) for file in list_url(url))
    except InputError as error:
        scheme, _, bucket, *_ = url.split("/")
        absent = error.__cause__ is None or isinstance(error.__cause__, FileNotFoundError)
        in_bucket = error.__cause__ is None or scheme.lower().rstrip(":") not in OBJECT_STORES
        if not absent or (not in_bucket and _is_missing(f"{scheme}//{bucket}")):
            raise
        return frozenset()


def _is_missing(url: str) -> bool:
    """Whether a store says that a file or bucket is not there; False where it says nothing."""
    with suppress(Exception):  # those of the stores' libraries have no common base
        return _info(url) is None
    return False


def answers(url: str) -> bool:
    """Whether the store of a URL answers, and shows it to its user; it need not be there."""
    with suppress(Exception):
        _info(url)
        return True
    return False


def _info(url: str) -> dict | None:
    """What a store knows of a file or bucket now; None: it is not there."""
    system, path = open_url(url)
    system.invalidate_cache()
    with suppress(FileNotFoundError):
        return system.info(path)
    return None
    return True


def read_url(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes of a file from ``start`` to ``end``, tried several times: networks fail now and then.

    Raises:
        InputError: It cannot be read.
    """
    for attempt in range(TRIES):
        try:
            with url_errors(url):
                system, path = open_url(url)
                return bytes(system.cat_file(path, start=start, end=end))
        except InputError as error:
            if attempt + 1 == TRIES or isinstance(error.__cause__, FileNotFoundError | PermissionError):
                raise
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError


def fetch(source: UrlPath, to: Path) -> None:
    """Copy a file here.

    Raises:
        InputError: It cannot be read.
    """
    with url_errors(str(source)):
        system, path = open_url(str(source))
        system.get_file(path, str(to))


def deliver(file: Path, to: UrlPath) -> None:
    """Copy a file there; it appears as a whole.

    Raises:
        InputError: It cannot be written.
    """
    with url_errors(str(to)):
        system, path = open_url(str(to))
        protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
        if protocols & OBJECT_STORES:
            system.put_file(str(file), path)
            return
        partial = f"{path}.partial"
        system.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
        system.put_file(str(file), partial)
        system.mv(partial, path)


def open_url(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path there."""
    from fsspec.core import url_to_fs  # comes with torch, and takes a moment to load

    return url_to_fs(url)


@contextmanager
def url_errors(url: str) -> Iterator[None]:
    """Any error in the block is one of the file behind ``url``: a package, the network, credentials or a name."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # those of the stores' libraries have no common base
        kind = "" if isinstance(error, (OSError, ImportError)) else f"{type(error).__name__}: "
        shown = without_secrets(url)
        reason = first_line(error).replace(url, shown)
        raise InputError(
            f"{shown} cannot be used ({kind}{reason}). Correct the URL or its store's credentials, or try "
            "again when the store answers."
        ) from error
