"""MMagic's editors that do not work with the installed libraries are left out, and nothing else is."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from glean_ext import compat

# As where a later version of another library lacks what this module imports.
WITHOUT = "import sys; sys.modules['mmagic.models.editors.vico.vico'] = None\n"
LOG = "import logging; logging.basicConfig(level=logging.INFO, format='%(name)s: %(message)s')\n"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)


@pytest.mark.slow
def test_a_broken_editor_is_left_out_and_the_registry_says_why():
    code = """
import glean_ext.plugin
import mmagic.models
from glean_ext import compat
from mmagic.registry import MODELS
assert "ViCo" in compat.LEFT_OUT and "SRCNNNet" not in compat.LEFT_OUT, compat.LEFT_OUT
assert "ViCo" not in mmagic.models.editors.__all__ and "SRCNNNet" in mmagic.models.editors.__all__
assert not hasattr(mmagic.models, "ViCo")
MODELS.build(dict(type="SRCNNNet"))
try:
    MODELS.build(dict(type="ViCo"))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""
    done = run(WITHOUT + LOG + code)
    assert done.returncode == 0, done.stderr
    reason = "ModuleNotFoundError: import of mmagic.models.editors.vico.vico halted; None in sys.modules"
    assert done.stdout.startswith("InputError: ViCo is not available: MMagic's editor vico does not work")
    assert reason in done.stdout and done.stdout.count("\n") == 1
    assert done.stderr.splitlines().count(f"glean_ext.compat: MMagic's vico is left out: {reason}") == 1


def test_editors_that_work_are_what_mmagic_itself_imports(mmagic_models):
    import mmagic.models.editors as editors

    assert not {name for name in compat.LEFT_OUT if hasattr(editors, name)}
    assert {editor for editor, reason in compat.LEFT_OUT.values()} <= {"animatediff", "vico"}  # need diffusers < 0.30
    assert {"GLEANStyleGANv2", "StyleGAN2", "ESRGAN", "BigGAN"} <= set(editors.__all__)


@pytest.mark.slow
def test_a_fault_that_is_no_import_is_raised():
    """Only imports of single editors are left out; anything else in the module is a real fault."""
    code = """
from pathlib import Path
from glean_ext import compat
compat.apply()
read_bytes = Path.read_bytes
fault = {"editors": b"\\nraise RuntimeError('a real fault')\\n"}
Path.read_bytes = lambda path: read_bytes(path) + fault.get(path.parent.name, b"")
import mmagic.models
"""
    done = run(code)
    assert done.returncode == 1 and "RuntimeError: a real fault" in done.stderr


NEEDS_SOLUTIONS = """
try:
    import mediapipe
except ImportError:
    mediapipe = None
drawing = mediapipe and mediapipe.solutions.drawing
"""


@pytest.mark.parametrize("solutions", [True, False])
def test_controlnet_aux_does_without_a_mediapipe_that_lacks_solutions(monkeypatch, tmp_path, solutions):
    installed = ModuleType("mediapipe")
    if solutions:
        installed.solutions = SimpleNamespace(drawing="theirs")
    monkeypatch.setitem(sys.modules, "mediapipe", installed)
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "needs_solutions.py").write_text(NEEDS_SOLUTIONS)
    compat.hook_import("needs_solutions", compat.do_without_mediapipe)
    module = importlib.import_module("needs_solutions")
    del sys.modules["needs_solutions"]
    assert module.drawing == ("theirs" if solutions else None)
    assert sys.modules["mediapipe"] is installed
