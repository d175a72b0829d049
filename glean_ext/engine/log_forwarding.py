"""Shows in mmengine's log what the networks log through ``logging``, since they do not know mmengine."""

from __future__ import annotations

import copy
import logging

from mmengine.logging import MMLogger


class ToMMEngine(logging.Handler):
    """Passes records on to the logger of the current mmengine run: terminal and log file."""

    def emit(self, record: logging.LogRecord) -> None:
        record = copy.copy(record)  # it keeps the file that it comes from
        record.msg, record.args = record.getMessage(), None  # mmengine drops warnings with a ``msg`` that was there
        MMLogger.get_current_instance().handle(record)


def forward_to_mmengine() -> None:
    """Let mmengine show what this package logs, from INFO on. A second call changes nothing."""
    logger = logging.getLogger("glean_ext")
    if not any(isinstance(handler, ToMMEngine) for handler in logger.handlers):
        logger.addHandler(ToMMEngine())
        logger.setLevel(logging.INFO)
