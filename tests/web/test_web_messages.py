"""Messages of the library as the web page shows them: with its own controls, and without command-line options."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from glean_ext.errors import InputError, Notice
from glean_ext.web.job_queue import CONTROLS, Job, Order, as_control

MODULES = [
    path
    for part in ("utils/image_io.py", "inference/*.py", "faces/*.py", "batch/restore_*.py", "web/*.py")
    for path in sorted(Path("glean_ext").glob(part))
]


def constant(node: ast.expr | None) -> object:
    """The value of an argument, with X for each value in an f-string."""
    match node:
        case ast.JoinedStr():
            return "".join(str(constant(part)) for part in node.values)
        case ast.BinOp(op=ast.Add()):
            return f"{constant(node.left)}{constant(node.right)}"
        case ast.IfExp():
            return constant(node.body)
        case ast.Tuple():
            return tuple(constant(part) for part in node.elts)
        case ast.Constant():
            return node.value
        case None:
            return None
    return "X"


def notices(path: Path) -> list[Notice]:
    """All notices and errors that a module makes."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("Error", "Notice")) and node.args:
            if ast.unparse(node.func) not in ("InputError", "UnreadableImageError", "Notice"):
                continue
            given = dict(zip(("message", "parameter", "hint"), node.args, strict=False))
            given |= {keyword.arg or "": keyword.value for keyword in node.keywords}
            values = {name: constant(given.get(name)) for name in ("message", "parameter", "hint")}
            found.append(Notice(values["message"], values["parameter"], values["hint"] or ""))  # type: ignore[arg-type]
    return found


def test_the_modules_have_messages():
    assert sum(len(notices(path)) for path in MODULES) > 40


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_command_line_option_reaches_the_page(path):
    for notice in notices(path):
        line = notice.render(as_control)
        assert not re.search(r"--[a-z]|in Python", line), line
        known = {notice.parameter} if isinstance(notice.parameter, str) else set(notice.parameter or ())
        assert not any("{" + name in line for name in known), line


def test_hints_about_controls_of_the_page_are_shown():
    error = InputError(
        "a.png differs too much.", parameter=("fidelity", "model"), hint="Raise {fidelity}, or change {model}."
    )
    assert error.render(as_control) == "a.png differs too much. Raise the fidelity slider, or change the model."
    assert set(CONTROLS) == {"fidelity", "model", "references", "seed"}


@pytest.mark.parametrize(
    ("parameter", "hint"),
    [
        ("size_policy", "Resize it, or set {size_policy=resize}."),
        (("tile_size", "device"), "Give a smaller {tile_size}, or use {device=cpu}."),
        (("fidelity", "device"), "Raise {fidelity}, or use {device=cpu}."),
    ],
)
def test_hints_about_other_parameters_are_left_out(parameter, hint):
    """Names may look like options and placeholders; they stay as they are."""
    name = "--a {size_policy}. --b {x}.png"
    notice = Notice(f"{name} has 9x5 pixels.", parameter if "size_policy" not in parameter else "size_policy", hint)
    expected = name.replace("{size_policy}", "size_policy") if "size_policy" in parameter else name
    assert notice.render(as_control) == f"{expected} has 9x5 pixels."


def test_notices_of_a_job_are_in_the_page_s_terms(tmp_path):
    job = Job("x", Order("a.png", "Demo GLEAN", "face", 0, (8, 8)), b"", tmp_path)
    job.notify(Notice("a.png was resized to 8x8.", "size_policy", "Set {size_policy=strict} to refuse it."))
    job.notify(Notice("a.png: it is restored in 4 tiles of 35x35."))
    assert job.notices == ["a.png was resized to 8x8.", "a.png: it is restored in 4 tiles of 35x35."]
