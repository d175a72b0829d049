"""Signals that end a process become exceptions, so that everything is closed and removed as after Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

NAMES = ("SIGTERM", "SIGHUP")  # sent by kill, batch systems and containers, and by a terminal that is closed
LAUNCHED = "GLEAN_EXT_LAUNCHED"  # set in the processes that glean_ext.cli.launch starts, which ends them itself


class Terminated(KeyboardInterrupt):
    """The process got a signal that ends it."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@contextmanager
def as_exceptions() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP raise :class:`Terminated` in the main thread; ignored ones stay ignored.

    After the first one both are ignored, so that nothing interrupts the work of closing.
    """
    if LAUNCHED in os.environ or threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for name in NAMES if (number := getattr(signal, name, None)) is not None]
    before = {number: signal.getsignal(number) for number in numbers}
    handled = [number for number in numbers if before[number] == signal.SIG_DFL]  # nohup ignores SIGHUP

    def end(number: int, frame: FrameType | None) -> NoReturn:
        for other in handled:
            signal.signal(other, signal.SIG_IGN)
        raise Terminated(number)

    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
