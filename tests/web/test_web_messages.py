"""What the web page makes of messages that are written for the command line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from glean_ext.web.worker import without_options


def messages(module: str) -> list[str]:
    """What the InputErrors of a module say, with a letter for each value in it."""

    def plain(node: ast.expr) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
        return node.value if isinstance(node, ast.Constant) else "X"

    nodes = ast.walk(ast.parse(Path(f"glean_ext/{module}.py").read_text()))
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "InputError"]
    return [plain(call.args[0]) for call in calls]


RAISING = (
    "utils/image_io",
    "inference/image_restorer",
    "inference/torch_backend",
    "inference/size_policy",
    "faces/photo_restorer",
    "faces/detection",
)


@pytest.mark.parametrize("module", RAISING)
def test_command_line_options_are_not_told(module):
    at_work = [line for line in messages(module) if not line.startswith("--")]  # others come when the tool starts
    assert at_work
    for line in at_work:
        told = without_options(f"--a. --b.png {line}", "--a. --b.png")
        fault = told.removeprefix("--a. --b.png ")
        assert fault.startswith(re.split(r"\. | \(see --|, or let --", line)[0])
        assert not re.search(r"--[a-z]|in Python", fault), line


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "a.png has 9x5 pixels, but the model takes 8x8. Resize it (MATLAB's), or let --size-policy resize do that "
            "(in Python: size_policy='resize').",
            "a.png has 9x5 pixels, but the model takes 8x8. Resize it (MATLAB's).",
        ),
        (
            "a.png: the GPU has too little memory for it. Give a (smaller) --tile-size, or use --device cpu.",
            "a.png: the GPU has too little memory for it.",
        ),
        (
            "a.png has 9 faces, more than 1. Raise --min-face, which leaves small ones alone, or --max-faces (in "
            "Python: min_face, max_faces).",
            "a.png has 9 faces, more than 1.",
        ),
        ("a.png: it is restored in 4 tiles of 35x35.", "a.png: it is restored in 4 tiles of 35x35."),
    ],
)
def test_mends_that_a_page_has_are_told(line, told):
    assert without_options(line, "a.png") == told
