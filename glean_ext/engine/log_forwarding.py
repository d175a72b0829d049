"""Shows in mmengine's log what the networks log through ``logging``, since they do not know mmengine."""

from __future__ import annotations

import logging

from mmengine.logging import print_log


class ToMMEngine(logging.Handler):
    """Passes records on to the logger of the current mmengine run: console and log file."""

    def emit(self, record: logging.LogRecord) -> None:
        print_log(record.getMessage(), logger="current", level=record.levelno)


def forward_to_mmengine() -> None:
    """Let mmengine show what this package logs, from INFO on. A second call changes nothing."""
    logger = logging.getLogger("glean_ext")
    if not any(isinstance(handler, ToMMEngine) for handler in logger.handlers):
        logger.addHandler(ToMMEngine())
        logger.setLevel(logging.INFO)
