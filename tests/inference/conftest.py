"""Exported networks, which several files of tests use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from support.exports import export_once, write_sources
from support.tools import load_tool


@pytest.fixture(scope="session")
def tool() -> ModuleType:
    return load_tool("export")


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """Configs and checkpoints: glean.py, glean.pth, light.py, light.pth."""
    folder = tmp_path_factory.mktemp("export")
    write_sources(folder)
    return folder


@pytest.fixture(scope="session")
def exported(home, tool) -> Callable[..., Path]:
    """A function that exports once: (kind, format, dtype) -> file."""
    return lambda kind, form="onnx", dtype="float32": export_once(tool, home, kind, form, dtype)
