"""What of mmengine's log reaches the terminal: a few lines. The log file has all of it."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

from mmengine.logging import MMLogger

from glean_ext.utils.messages import printable

PACKAGE = str(Path(__file__).parents[1])
# The messages of mmengine that tell a user something. The others describe its own work.
SHOWN = re.compile(
    r"Iter\(val\) \[(\d+)/\1\]|Saving checkpoint|The best checkpoint|Load checkpoint from|resumed epoch|LR is set based"
)
# Warnings of mmengine and MMagic about their own code.
CHATTER = re.compile(
    r"The prefix is not set|.*\bdeprecated\b|.* in message_hub cannot be copied|`save_param_scheduler` is True but"
)


class TerminalHandler(logging.Handler):
    """Writes what this package logs, and of other libraries warnings and :data:`SHOWN`, to stdout: a time, a line.

    stdout is looked up for each message, so that lines appear above a progress bar and not within it.
    """

    fixed: TextIO | None = None  # takes the place of stdout

    def emit(self, record: logging.LogRecord) -> None:
        """As :class:`logging.Handler`."""
        try:
            if is_shown(record):
                self.stream.write(f"{self.format(record)}\n")
                self.stream.flush()
        except Exception:  # as logging's own handlers
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        """A line for each line of the message, without control characters, which names of files may have."""
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        clock = logging.Formatter().formatTime(record, "%H:%M:%S")
        return f"{clock} {level}" + "\n".join(map(printable, record.getMessage().split("\n")))

    @property
    def stream(self) -> TextIO:
        return self.fixed or sys.stdout


def is_shown(record: logging.LogRecord) -> bool:
    """Whether a message is for the terminal."""
    if record.levelno > logging.WARNING or record.pathname.startswith(PACKAGE):
        return True
    message = record.getMessage()
    return not CHATTER.match(message) if record.levelno == logging.WARNING else bool(SHOWN.match(message))


def use_terminal_handler(logger: MMLogger) -> None:
    """Put a :class:`TerminalHandler` in the place of mmengine's handler for the terminal, with its level."""
    for position, handler in enumerate(logger.handlers):
        if type(handler) is logging.StreamHandler:
            own = TerminalHandler(handler.level)
            own.filters = handler.filters  # which drop warnings that were there before
            logger.handlers[position] = own


@contextmanager
def only_logged(logger: MMLogger) -> Iterator[None]:
    """Within the block, what is printed without the logger is dropped."""
    handlers = [handler for handler in logger.handlers if isinstance(handler, TerminalHandler)]
    for handler in handlers:
        handler.fixed = sys.stdout
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        for handler in handlers:
            handler.fixed = None
