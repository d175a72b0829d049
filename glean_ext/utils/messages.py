"""Parts of messages that several modules write."""

from __future__ import annotations

from collections.abc import Sequence

MAX_NAMES = 8  # in a message; further names are counted


def summarize_names(names: Sequence[object], shown: int = MAX_NAMES) -> str:
    """The first names, and how many more there are.

    >>> summarize_names(["a.png", "b.png", "c.png"], shown=2)
    'a.png, b.png and 1 more'
    """
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(str, names[:shown])) + more
