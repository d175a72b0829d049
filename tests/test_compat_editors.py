"""MMagic's editors that do not work with the installed libraries are left out, and nothing else is."""

from __future__ import annotations

import subprocess
import sys

# As where a later version of another library lacks what this module imports.
WITHOUT = "import sys; sys.modules['mmagic.models.editors.vico.vico'] = None\n"
LOG = "import logging; logging.basicConfig(level=logging.INFO, format='%(name)s: %(message)s')\n"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)


def test_a_broken_editor_is_left_out_and_the_registry_says_why():
    code = """
import glean_ext.plugin
import mmagic.models
from glean_ext import compat
from mmagic.registry import MODELS
assert sorted(compat.LEFT_OUT) == ["ViCo"], compat.LEFT_OUT
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
    logged = [line for line in done.stderr.splitlines() if line.startswith("glean_ext.compat: ")]
    assert logged == [f"glean_ext.compat: MMagic's vico is left out: {reason}"]


def test_editors_that_work_are_what_mmagic_itself_imports(mmagic_models):
    import mmagic.models.editors as editors

    from glean_ext import compat

    assert not {name for name in compat.LEFT_OUT if hasattr(editors, name)}
    assert {"GLEANStyleGANv2", "StyleGAN2", "ESRGAN", "BigGAN"} <= set(editors.__all__)


def test_a_fault_that_is_no_import_is_raised():
    """Only imports of single editors are left out; anything else in the module is a real fault."""
    code = """
import ast
from glean_ext import compat
compat.apply()
loader = compat._EditorsLoader
get_data = loader.get_data
loader.get_data = lambda self, path: get_data(self, path) + b"\\nraise RuntimeError('a real fault')\\n"
import mmagic.models
"""
    done = run(code)
    assert done.returncode == 1 and "RuntimeError: a real fault" in done.stderr
