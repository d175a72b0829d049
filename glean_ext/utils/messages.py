"""Parts of messages that several modules write."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Sequence

from glean_ext.errors import Notice

MAX_NAMES = 8  # in a message; further names are counted
CONTROLS = ("Cc", "Cf", "Zl", "Zp")  # Unicode's control and format characters, and separators of lines
_warned: set[str] = set()
JOINERS = ("\u200c", "\u200d", "\u00ad")  # in words and emoji, and soft hyphens: format characters without harm


def summarize_names(names: Sequence[object], shown: int = MAX_NAMES) -> str:
    """The first names, as :func:`printable` text, and how many more there are.

    >>> summarize_names(["a.png", "b.png", "c.png"], shown=2)
    'a.png, b.png and 1 more'
    """
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(printable(str(name)) for name in names[:shown]) + more


def printable(text: str) -> str:
    r"""The text in one line that does nothing to a terminal: control characters, which names may have, are escaped.

    >>> print(printable("a\x1b[2J\n.png"), printable("\u202egnp.a"))
    a\x1b[2J\n.png \u202egnp.a
    """
    return "".join(
        repr(letter)[1:-1] if unicodedata.category(letter) in CONTROLS and letter not in JOINERS else letter
        for letter in text
    )


def log_notice(notice: Notice) -> None:
    """What is done with notices where nothing else is chosen: they are logged, warnings once."""
    if notice.level >= logging.WARNING:
        if str(notice) in _warned:
            return
        _warned.add(str(notice))
    logging.getLogger(__name__).log(notice.level, "%s", notice)


def once(notify: Callable[[Notice], None]) -> Callable[[Notice], None]:
    """``notify``, with each notice once: all frames of a video have the same ones."""
    known: set[str] = set()

    def notify_once(notice: Notice) -> None:
        if (line := str(notice)) not in known:
            known.add(line)
            notify(notice)

    return notify_once
