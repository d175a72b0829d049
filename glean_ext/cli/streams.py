"""The standard streams, which daemons and ``>&-`` close, and full disks and ended readers break."""

from __future__ import annotations

import os
import sys

STREAMS = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def open_missing() -> None:
    """Connect closed streams with the null device: else the next file that is opened would get their output."""
    for number, name, mode in STREAMS:
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def flush_stdout() -> None:
    """Raise OSError now, and not when Python ends, if what was printed cannot be written."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def discard_broken_stdout() -> OSError | None:
    """Why stdout cannot be written to, whose content is then thrown away; None if it can be."""
    try:
        sys.stdout.write("\n")  # what failed before is gone from the buffer
        sys.stdout.flush()
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        return error
    return None
