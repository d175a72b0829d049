"""Files by URL: downloaded once, whole, and with the hash that their URL promises."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urldefrag, urlsplit

from glean_ext.errors import InputError, first_line
from glean_ext.utils.http_transfer import BLOCK, StorageError, Transfer

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 15  # of progress in a log
DAYS_KEPT = 7  # what interrupted downloads left, to be continued
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

    What an interrupted download left is continued, also by a later process. Its SHA-256 is checked after the download,
    and again each time it is taken from the cache, where the URL gives it:
    ``https://.../model-abcdef12.pth`` (the first 8 digits, as OpenMMLab and PyTorch name files; or all 64) or
    ``https://.../model.safetensors#sha256=<64 digits>``. Other cached files must be as they were downloaded. A user
    name and password in the URL are sent to its host only.

    Args:
        url: http or https.
        cache: A folder; the file's name in it depends on the whole URL.

    Raises:
        InputError: The file cannot be downloaded, is not whole, or has another hash.
    """
    name, place = without_secrets(url), ""
    try:
        path = cache / cached_name(url)
        place = f", or save it as {path}"
        digits = expected_hash(url)
        if not _is_valid(path, digits or _digest_of_download(path)):
            with _locked(path, name):
                # Another process may have downloaded it meanwhile.
                if not _is_valid(path, digits or _digest_of_download(path)):
                    _fetch(url, path, digits)
    except StorageError as error:
        raise InputError(
            f"{name} cannot be kept in {cache} ({_reason(error)}). Free space there, or set TORCH_HOME to another "
            "folder."
        ) from error
    except (OSError, ValueError, HTTPException) as error:
        raise InputError(
            f"{name} could not be downloaded ({_reason(error)}). Download it elsewhere and give the path of the file"
            f"{place}."
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
    return unquote(urlsplit(urldefrag(url).url).path).rpartition("/")[2]


def _is_valid(path: Path, digits: str) -> bool:
    return path.is_file() and (not digits or file_hash(path).startswith(digits))


def _digest_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _digest_of_download(path: Path) -> str:
    """The SHA-256 that a cached file had when it was downloaded; empty if earlier versions did that."""
    try:
        return _digest_file(path).read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    """One process at a time downloads a file; the others wait for it. Makes the folder.

    Raises:
        StorageError: The folder cannot be written to.
    """
    from filelock import FileLock, Timeout  # torch needs it, too

    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.warning("another process downloads %s; this one waits for it", name)
            lock.acquire()
    except OSError as error:
        raise StorageError(*error.args) from error
    try:
        yield
    finally:
        lock.release()


def _fetch(url: str, path: Path, digits: str) -> None:
    if path.is_file():
        promised = digits or _digest_of_download(path)
        logger.warning("%s is damaged: its SHA-256 does not begin with %s. It is downloaded again.", path, promised)
    _remove_old_leftovers(path.parent)
    logger.info("downloading %s to %s", without_secrets(url), path)
    partial, show, last = path.with_name(f".{path.name}.partial"), show_progress.get() or ProgressLog(), _last_part(url)
    transfer = Transfer(url, without_secrets(url), partial, bool(digits), lambda done, total: show(last, done, total))
    continued = transfer.run()
    digest = file_hash(partial)
    if continued and not digest.startswith(digits):
        logger.warning("%s: what an earlier download left is damaged; it begins again", without_secrets(url))
        transfer.discard()
        transfer.run()
        digest = file_hash(partial)
    if not digest.startswith(digits):
        transfer.discard()
        raise ValueError(f'invalid hash value (expected "{digits}", got "{digest}")')
    _digest_file(path).unlink(missing_ok=True)  # else a kill after the next step leaves the digest of another file
    os.replace(partial, path)
    _digest_file(path).write_text(digest)
    transfer.discard()


def _remove_old_leftovers(cache: Path) -> None:
    """Remove what downloads left that nobody has continued for some days."""
    oldest = time.time() - DAYS_KEPT * 24 * 3600
    for pattern in ".*.partial", ".*.partial.json":
        for left in cache.glob(pattern):
            with suppress(OSError):
                if left.stat().st_mtime < oldest:
                    left.unlink()


def _reason(error: BaseException) -> str:
    if isinstance(error, HTTPError):
        return f"HTTP Error {error.code}: {error.reason}"
    if isinstance(error, URLError) and isinstance(error.reason, OSError):
        error = error.reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)
