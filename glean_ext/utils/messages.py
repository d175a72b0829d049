"""Parts of messages that several modules write."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from glean_ext.errors import Notice

MAX_NAMES = 8  # in a message; further names are counted


def summarize_names(names: Sequence[object], shown: int = MAX_NAMES) -> str:
    """The first names, and how many more there are.

    >>> summarize_names(["a.png", "b.png", "c.png"], shown=2)
    'a.png, b.png and 1 more'
    """
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(str, names[:shown])) + more


def log_notice(notice: Notice) -> None:
    """What is done with notices where nothing else is chosen: they are logged."""
    logging.getLogger(__name__).info("%s", notice)
