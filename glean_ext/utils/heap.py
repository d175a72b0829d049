"""Memory that the C library's heap keeps though it was freed."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache


def return_freed_memory() -> None:
    """Give what Python and torch freed back to the system (with glibc; nothing elsewhere)."""
    if trim := _malloc_trim():
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
