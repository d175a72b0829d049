"""One file over HTTP, which continues where an earlier attempt ended, in this process or another one.

What was received is kept in a ``.partial`` file. Beside it, a JSON file says which version of the file the server had
(its ETag or date) and how long that is. A server continues only the same version (``If-Range``), or begins again.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.client import HTTPMessage, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urldefrag
from urllib.request import Request, urlopen

from glean_ext.errors import first_line

logger = logging.getLogger(__name__)

ATTEMPTS = 3  # that may fail in a row without a byte more than before
SECONDS_BEFORE_RETRY = 1.0  # after the first failure; longer after each further one
TIMEOUT = 60  # seconds without an answer or a byte
BLOCK = 1 << 20  # bytes
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416  # status codes of HTTP
BUSY = {408, 425, 429, 500, 502, 503, 504}  # status codes after which the same request may succeed

Progress = Callable[[int, "int | None"], None]  # bytes that are there, and all of them if known


class StorageError(OSError):
    """What was received cannot be written."""


class InterruptedTransferError(OSError):
    """The connection ended early, or the server had a passing fault."""


@dataclass(frozen=True)
class Version:
    """Which version of a file a server sends.

    Attributes:
        validator: What ``If-Range`` takes: a strong ETag, else the date of the last change, else None.
        length: In bytes; None if the server does not say.
    """

    validator: str | None = None
    length: int | None = None

    @classmethod
    def of(cls, headers: HTTPMessage) -> Version:
        etag, length = headers.get("ETag", ""), headers.get("Content-Length", "")
        strong = etag if etag and not etag.startswith("W/") else None
        return cls(strong or headers.get("Last-Modified"), int(length) if length.isdecimal() else None)


class Transfer:
    """The transfer of one file.

    Args:
        url: http or https; a user name and password in it are sent to its host only.
        name: Of the URL, for the log.
        partial: Where to keep what was received; one process at a time may use it.
        checked: The content is checked by a hash afterwards, so that it may also be continued from a server that does
            not tell versions apart.
        progress: Called with each block.
    """

    def __init__(self, url: str, name: str, partial: Path, checked: bool, progress: Progress):
        self.url, self.name, self.partial, self.checked, self.progress = url, name, partial, checked, progress
        self.facts = partial.with_name(f"{partial.name}.json")

    def run(self) -> bool:
        """Receive the file; returns whether a part of it came from an earlier process.

        What can be continued stays after an error, anything else is removed.

        Raises:
            StorageError: The file cannot be written: the disk is full, for example.
            OSError, HTTPException, ValueError: The server cannot be reached, or does not send the whole file.
        """
        continued = bool(self._continuable())
        try:
            with self._open() as file:
                self._receive_in_attempts(file)
        except BaseException as error:
            if isinstance(error, StorageError) or not self._continuable():  # a full disk must not stay full
                self.discard()
            raise
        return continued

    def discard(self) -> None:
        """Remove what was received."""
        for path in self.partial, self.facts:
            with suppress(OSError):
                path.unlink()

    def _receive_in_attempts(self, file: BinaryIO) -> None:
        most, failures = file.tell(), 0
        while True:
            try:
                self._receive(file)
                return
            except (ConnectionError, TimeoutError, IncompleteRead, InterruptedTransferError, URLError) as error:
                if not _is_passing(error):
                    raise
                failures = 1 if file.tell() > most else failures + 1
                most = max(most, file.tell())
                if failures == ATTEMPTS:
                    raise
                logger.warning("%s: %s; it is continued", self.name, first_line(error))
                time.sleep(SECONDS_BEFORE_RETRY * failures)

    def _receive(self, file: BinaryIO) -> None:
        version = self._continuable()
        have = file.tell() if version else 0
        if version and have == version.length:
            return
        request = make_request(self.url)
        if version and have:
            request.add_header("Range", f"bytes={have}-")
            if version.validator:
                request.add_header("If-Range", version.validator)
        with self._answer(request, file) as answer:
            if version and have and answer.status == PARTIAL_CONTENT:
                self._require_continuation(answer, file, have, version)
            else:
                have, version = 0, Version.of(answer.headers)
                self._begin(file, version)
            self._require_space(version.length, have)
            while block := answer.read1(BLOCK):
                have += self._write(file, block)
                self.progress(have, version.length)
        if version.length is not None and have != version.length:
            raise InterruptedTransferError(f"the connection ended after {have} of {version.length} bytes")

    def _answer(self, request: Request, file: BinaryIO) -> HTTPResponse:
        try:
            return urlopen(request, timeout=TIMEOUT)
        except HTTPError as error:
            if error.code != RANGE_NOT_SATISFIABLE:
                raise
            self._begin(file, Version())
            raise InterruptedTransferError("the server has another file now") from error

    def _require_continuation(self, answer: HTTPResponse, file: BinaryIO, have: int, version: Version) -> None:
        span = answer.headers.get("Content-Range", "")
        if not span.startswith(f"bytes {have}-") or span.rpartition("/")[2] not in ("*", str(version.length)):
            self._begin(file, Version())
            raise InterruptedTransferError(f"the server continued with {span[:80] or 'something'}")

    def _continuable(self) -> Version | None:
        """Which version of the file the partial file is a part of; None if it cannot be continued."""
        try:
            version = Version(**json.loads(self.facts.read_text()))
            size = self.partial.stat().st_size
        except (OSError, ValueError, TypeError):
            return None
        known = isinstance(version.length, int) and 0 < size <= version.length
        return version if known and (version.validator or self.checked) else None

    def _open(self) -> BinaryIO:
        try:
            file = self.partial.open("r+b" if self._continuable() else "wb", buffering=0)
            file.seek(0, os.SEEK_END)
        except OSError as error:
            raise StorageError(*error.args) from error
        return file

    def _begin(self, file: BinaryIO, version: Version) -> None:
        try:
            file.seek(0)
            file.truncate()
            self.facts.write_text(json.dumps(asdict(version)))
        except OSError as error:
            raise StorageError(*error.args) from error

    def _require_space(self, length: int | None, have: int) -> None:
        free = shutil.disk_usage(self.partial.parent).free
        if length is not None and length - have > free:
            raise StorageError(f"it takes {(length - have) / 1e6:.0f} MB, but {free / 1e6:.0f} MB are free")

    def _write(self, file: BinaryIO, block: bytes) -> int:
        try:
            rest = memoryview(block)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            raise StorageError(*error.args) from error
        return len(block)


def make_request(url: str) -> Request:
    """A request for a URL: spaces and other letters quoted, as browsers do, and without its fragment."""
    scheme, _, rest = urldefrag(url).url.partition("//")
    host, slash, path = rest.partition("/")
    user, at, host = host.rpartition("@")
    path = quote(path, safe="/?&=%:;,@!$'()*+~[]")
    request = Request(f"{scheme}//{host}{slash}{path}", headers={"User-Agent": "glean-ext"})
    if at:
        token = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _is_passing(error: Exception) -> bool:
    """Whether another attempt may succeed: not after a refused connection, an unknown host or a missing file."""
    if isinstance(error, HTTPError):
        return error.code in BUSY
    if isinstance(error, URLError):
        return isinstance(error.reason, (TimeoutError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError))
    return not isinstance(error, ConnectionRefusedError)
