"""Files by URL: downloaded once, whole, and with the hash that their URL promises."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urldefrag, urlsplit
from urllib.request import Request, urlopen

from glean_ext.errors import InputError, first_line

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 15  # of progress in a log
ATTEMPTS = 3  # to continue a download whose connection ends early
SECONDS_BEFORE_RETRY = 1.0  # the first time; longer each time
PARTIAL_CONTENT = 206  # HTTP: what was asked for with Range
TIMEOUT = 60  # seconds without an answer or a byte
BLOCK = 1 << 20  # bytes
MAX_NAME = 80  # characters of a URL's last part that the cached file keeps
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8}|[0-9a-f]{64})\.\w+$")  # the first 8 digits, or all of them
DATE = re.compile(r"(19|20)\d\d[01]\d[0-3]\d")  # eight digits, too
HASH_IN_FRAGMENT = re.compile(r"sha256=([0-9a-f]{64})", re.IGNORECASE)


class ProgressLog:
    """Logs how far a download is, at most every 15 seconds."""

    def __init__(self) -> None:
        self.started = self.last = time.monotonic()

    def __call__(self, name: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN_LINES:
            self.last = now
            rest = f"/{total / 1e6:.0f} MB, {(now - self.started) * (total / done - 1):.0f} s left" if total else " MB"
            logger.info("%s: %.0f%s", name, done / 1e6, rest)


# Called with the file's name, the bytes that are there, and all of them if known. Front ends set it for a progress bar.
show_progress: ContextVar[Callable[[str, int, int | None], None] | None] = ContextVar("show_progress", default=None)


def cache_folder() -> Path:
    """Where downloads are kept: a folder in torch's own cache, which ``TORCH_HOME`` and ``XDG_CACHE_HOME`` move."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(caches, "torch"))  # as torch.hub does, which takes seconds to load
    return Path(os.path.expanduser(home), "hub", "checkpoints", "glean-ext")


def is_url(source: str) -> bool:
    """Whether ``source`` is a URL that :func:`download` takes."""
    return source.lower().startswith(("http://", "https://"))


def without_secrets(source: str) -> str:
    """A URL for messages and logs: without user name, password and the values of its query.

    >>> without_secrets("https://me:secret@example.org/model.pth?id=7&token=abc#sha256=0")
    'https://example.org/model.pth?id=...&token=...'
    """
    if not is_url(source):
        return source
    address, question, query = urldefrag(source).url.partition("?")
    scheme, _, rest = address.partition("//")
    host, slash, path = rest.partition("/")
    return f"{scheme}//{host.rpartition('@')[2]}{slash}{path}{question}{re.sub('=[^&]*', '=...', query)}"


def download(url: str, cache: Path) -> Path:
    """The file behind a URL, from ``cache`` if it is there.

    Its SHA-256 is checked after the download, and again each time it is taken from the cache, where the URL gives it:
    ``https://.../model-abcdef12.pth`` (the first 8 digits, as OpenMMLab and PyTorch name files; or all 64) or
    ``https://.../model.safetensors#sha256=<64 digits>``. A user name and password in the URL are sent to its host only.

    Args:
        url: http or https.
        cache: A folder; the file's name in it depends on the whole URL.

    Raises:
        InputError: The file cannot be downloaded, is not whole, or has another hash.
    """
    path = cache / cached_name(url)
    try:
        digits = expected_hash(url)
        if not _is_valid(path, digits):
            cache.mkdir(parents=True, exist_ok=True)
            with _locked(path):
                if not _is_valid(path, digits):  # another process may have downloaded it meanwhile
                    _fetch(url, path, digits)
    except (OSError, ValueError, HTTPException) as error:
        raise InputError(
            f"{without_secrets(url)} could not be downloaded ({_reason(error)}). Download it on another "
            f"machine and save it as {path}, or give the path of the file."
        ) from error
    return path


def expected_hash(url: str) -> str:
    """The SHA-256 that a URL promises, or its first digits; empty where it promises none.

    Raises:
        ValueError: Its fragment gives something else as a SHA-256, which would not be checked.
    """
    address, fragment = urldefrag(url)
    if fragment.lower().startswith("sha256=") and not HASH_IN_FRAGMENT.fullmatch(fragment):
        raise ValueError(f"#{fragment[:80]} is not sha256= and 64 hexadecimal digits")
    found = HASH_IN_FRAGMENT.fullmatch(fragment) or HASH_IN_NAME.search(_last_part(address))
    return found[1].lower() if found and not DATE.fullmatch(found[1]) else ""


def cached_name(url: str) -> str:
    """The name of a cached file: it differs for any two URLs, and ends as the URL does."""
    address = urldefrag(url).url
    last = re.sub(r"[^\w.+-]", "_", _last_part(address))[-MAX_NAME:]
    return f"{hashlib.sha256(address.encode()).hexdigest()[:16]}-{last}"


def _last_part(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]


def _is_valid(path: Path, digits: str) -> bool:
    return path.is_file() and (not digits or _sha256(path).startswith(digits))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time downloads a file; the others wait for it."""
    from filelock import FileLock  # torch needs it, too

    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


def _fetch(url: str, path: Path, digits: str) -> None:
    partial = path.with_name(f".{path.name}.partial")  # what an interrupted download left there is replaced
    if path.is_file():
        logger.warning("%s is damaged: its SHA-256 does not begin with %s. It is downloaded again.", path, digits)
    logger.info("downloading %s to %s", without_secrets(url), path)
    show = show_progress.get() or ProgressLog()
    try:
        with partial.open("wb") as file:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    _receive(url, file, show)
                    break
                except (ConnectionError, TimeoutError, IncompleteDownloadError, IncompleteRead) as error:
                    if attempt == ATTEMPTS:
                        raise
                    logger.warning("%s: %s; it is continued", without_secrets(url), first_line(error))
                    time.sleep(SECONDS_BEFORE_RETRY * attempt)
        if not (digest := _sha256(partial)).startswith(digits):
            raise ValueError(f'invalid hash value (expected "{digits}", got "{digest}")')
        os.replace(partial, path)
    finally:
        with suppress(OSError):  # it became the file, or was never made
            partial.unlink()


def _receive(url: str, file: BinaryIO, show: Callable[[str, int, int | None], None]) -> None:
    """Append to ``file`` what it does not have yet; from the start where the server cannot continue."""
    request, have = _request(url), file.tell()
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urlopen(request, timeout=TIMEOUT) as answer:
        if have and answer.status != PARTIAL_CONTENT:
            have = file.seek(0)
            file.truncate()
        announced = answer.headers.get("Content-Length")
        total = have + int(announced) if announced else None
        while block := answer.read(BLOCK):
            have += file.write(block)
            show(_last_part(urldefrag(url).url), have, total)
    if total is not None and have != total:
        raise IncompleteDownloadError(f"the connection ended after {have} of {total} bytes")


class IncompleteDownloadError(ValueError):
    """The connection ended early."""


def _request(url: str) -> Request:
    address = urldefrag(url).url
    scheme, _, rest = address.partition("//")
    host, slash, path = rest.partition("/")
    user, at, host = host.rpartition("@")
    path = quote(path, safe="/?&=%:;,@!$'()*+~[]")  # spaces and letters that are not ASCII, as browsers do
    request = Request(f"{scheme}//{host}{slash}{path}", headers={"User-Agent": "glean-ext"})
    if at:
        token = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _reason(error: BaseException) -> str:
    if isinstance(error, HTTPError):
        return f"HTTP Error {error.code}: {error.reason}"
    reason = getattr(error, "reason", None)  # of an URLError
    return first_line(reason if isinstance(reason, OSError) else error)
