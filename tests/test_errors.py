"""What a message takes over from the errors of libraries."""

from __future__ import annotations

import pytest

from glean_ext.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("No such thing. "), "No such thing"),
        (ValueError("\n The first line.\nThe second."), "The first line"),
        (ValueError("."), "ValueError"),
        (OSError(), "OSError"),
        (KeyError("weight"), "KeyError"),
        (RuntimeError("x" * 300), "x" * 200),
    ],
)
def test_first_line(error, line):
    assert first_line(error) == line
