"""Command-line tools in the process of the tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from glean_ext import cli

TOOLS = Path(__file__).parents[2] / "tools"


def load_tool(name: str) -> ModuleType:
    """``tools/<name>.py`` as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_tool", TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_main(main: Callable, capture: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a tool."""
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda: main([*map(str, arguments)]))
    return (caught.value.code, *capture.readouterr())


def only_error(code: int, _: str, stderr: str) -> str:
    """The line that a tool wrote to stderr; nothing else may be there, and the exit code has to be 2."""
    assert code == 2 and stderr.startswith("error: ") and stderr.endswith("\n") and stderr.count("\n") == 1, stderr
    return stderr.removeprefix("error: ").removesuffix("\n")
