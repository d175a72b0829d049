"""Names in messages."""

from __future__ import annotations

from pathlib import Path

from glean_ext.utils.messages import summarize_names


def test_names_in_a_summary_do_nothing_to_a_terminal():
    names = ["a\x1b[2J.png", Path("b\u202egnp.exe"), "c\n", "famille 👩\u200d👧.png", "d"]
    assert summarize_names(names, 4) == r"a\x1b[2J.png, b\u202egnp.exe, c\n, famille 👩‍👧.png and 1 more"
