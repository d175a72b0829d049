"""Freed memory that the C library's heap does not return to the system."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache


def return_freed_memory() -> None:
    """Return the memory that Python and torch have freed to the system (glibc only; otherwise without effect)."""
    if trim := _malloc_trim():
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
