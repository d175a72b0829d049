"""Further processes of this program."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

# What the libraries of computation look at when a process starts.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def count_cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count() -> int:
    """``OMP_NUM_THREADS``, or else the cores that this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given):
        return int(given)
    return count_cores()


@contextmanager
def quiet_processes(threads: int) -> Iterator[None]:
    """Processes that start meanwhile compute with so many threads, and signals to all processes do not reach them.

    Threads of several processes would slow each other down. The parent ends its processes: one that Ctrl-C ends during
    its imports writes a traceback, and one that is ended by SIGTERM looks as if it were out of memory.
    """
    before = {name: os.environ[name] for name in THREADS if name in os.environ}
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    resource_tracker.ensure_running()  # its start would unblock signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name in THREADS:
            del os.environ[name]
        os.environ.update(before)
