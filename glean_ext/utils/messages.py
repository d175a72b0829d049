"""Parts of messages that several modules write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

SHOWN = 8  # files that a message names before it counts the rest


def named(paths: Sequence[object]) -> str:
    """The first names, and how many more there are."""
    names = [Path(str(path)).name for path in paths[:SHOWN]]
    return ", ".join(names) + (f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "")
