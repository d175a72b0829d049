"""What libraries in C and C++ write past Python."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from glean_ext.errors import InputError

# Lines of libtiff and libpng, whose reason Pillow or OpenCV raise or which change nothing.
CODECS = re.compile(
    rb"_?TIFF|tempfile\.tif: |MissingRequired: |More samples per pixel than can be decoded|"
    rb"(ZIP|LZW|O?JPEG|Fax|CCITT|PixarLog|LogL|PackBits|LERC|ZSTD|WebP|LZMA|Dump|NeXT|Thunder|Predictor)\w*: |"
    rb"libpng (warning|error): |\[ *(WARN|ERROR):"
)
# Lines of mediapipe's logging, which no setting reaches: glog's and TensorFlow Lite's.
MEDIAPIPE = re.compile(rb"[IWE]\d{4} |INFO: |WARNING: All log messages before absl::InitializeLog")

_HOLDING = threading.RLock()  # stderr is the whole process's


@contextmanager
def filter_stderr(chatter: re.Pattern[bytes]) -> Iterator[None]:
    """Hold back what is written on stderr, by any thread, and drop the lines that begin with ``chatter``.

    The other lines are shown after the block, and all of them if the block fails, but for an InputError, which says
    why. Blocks of several threads wait for each other. What is held is lost if the process dies: keep the block small.
    """
    with _HOLDING, tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(held.fileno(), 2)
        failed = False
        try:
            yield
        except BaseException as error:
            failed = not isinstance(error, InputError)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            shown = [line for line in held if failed or not chatter.match(line)]
            if shown:
                os.write(2, b"".join(shown))
