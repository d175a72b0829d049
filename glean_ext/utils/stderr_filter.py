"""Filtering what C and C++ libraries write to stderr without Python's knowledge."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from glean_ext.errors import InputError

# Lines of libtiff and libpng: Pillow or OpenCV raise the same error, or the line has no consequence.
CODECS = re.compile(
    rb"_?TIFF|tempfile\.tif: |MissingRequired: |More samples per pixel than can be decoded|"
    rb"(ZIP|LZW|O?JPEG|Fax|CCITT|PixarLog|LogL|PackBits|LERC|ZSTD|WebP|LZMA|Dump|NeXT|Thunder|Predictor)\w*: |"
    rb"libpng (warning|error): |\[ *(WARN|ERROR):"
)
# Lines of mediapipe's logging (glog and TensorFlow Lite), which no setting turns off.
MEDIAPIPE = re.compile(rb"[IWE]\d{4} |INFO: |WARNING: All log messages before absl::InitializeLog")
STDERR = 2  # the file descriptor

_redirecting = threading.RLock()  # stderr belongs to the whole process


@contextmanager
def filter_stderr(unwanted: re.Pattern[bytes]) -> Iterator[None]:
    """Hold back what any thread writes to stderr, and drop the lines that begin with ``unwanted``.

    The other lines are written after the block; all lines are written if the block fails with any error but an
    InputError, which says itself what is wrong. Blocks of several threads wait for each other. Held lines are lost if
    the process dies: keep the block short. Without a stderr, as in daemons, the filter does nothing.
    """
    with _redirecting:
        original = _duplicate_stderr()
        if original is None:
            yield
            return
        held = _open_buffer()
        _flush()
        os.dup2(held, STDERR)
        failed = False
        try:
            yield
        except BaseException as error:
            failed = not isinstance(error, InputError)
            raise
        finally:
            _flush()
            os.dup2(original, STDERR)
            os.close(original)
            with os.fdopen(held, "rb") as file, suppress(OSError):  # nobody reads stderr any more, or no buffer
                file.seek(0)
                kept = [line for line in file if failed or not unwanted.match(line)]
                if kept:
                    os.write(STDERR, b"".join(kept))


def _duplicate_stderr() -> int | None:
    """A second descriptor of stderr; None without a stderr."""
    if sys.__stderr__ is None:  # closed when Python started: another file may have its descriptor now
        return None
    try:
        return os.dup(STDERR)
    except OSError:  # closed since then
        return None


def _open_buffer() -> int:
    """The descriptor of a file in memory, else in the temporary folder, else of the null device."""
    if hasattr(os, "memfd_create"):
        with suppress(OSError):
            return os.memfd_create("stderr")
    with suppress(OSError), tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
    return os.open(os.devnull, os.O_RDWR)


def _flush() -> None:
    with suppress(OSError, ValueError, AttributeError):  # closed, or None
        sys.stderr.flush()
