"""What the web page makes of messages that are written for every front end."""

from __future__ import annotations

import pytest

from glean_ext.errors import InputError, Notice
from glean_ext.inference.size_policy import Resize
from glean_ext.web.worker import no_control


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            Resize((8, 8), "pad").notice((9, 5), "a.png"),
            "a.png has 5x9 pixels; it was padded and resized to the model's 8x8.",
        ),
        (
            InputError("a.png is too small. Resize it.", "size_policy", "{size_policy=resize} does that."),
            "a.png is too small. Resize it.",
        ),
        (Notice("--a {fit}.png is restored in 4 tiles of 35x35."), "--a {fit}.png is restored in 4 tiles of 35x35."),
    ],
)
def test_hints_about_controls_that_a_page_lacks_are_left_out(message, line):
    assert message.render(no_control) == line
