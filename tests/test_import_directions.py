"""The contracts of pyproject.toml about imports: the package keeps them, and a forbidden import breaks them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from glean_ext.utils.image_io import Picture, read_rgb, write_picture

ROOT = Path(__file__).parents[1]
ONE_WAY = "Imports run one way"
NO_CONFIGS = "Data sets, degradations, data preparation and videos need neither weights nor configs"
TRAINING = "Training knows nothing of restoring images, converting banks, or one kind of model"
TORCH_ALONE = "Networks and checkpoints need torch alone"
WORKERS = "A run of files starts workers, which restore them"
STAND_ALONE = "The package needs neither its benchmarks, nor its demonstration, nor its experiments"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the Python files that the contracts are about, with ``pyproject.toml``."""
    folder = tmp_path_factory.mktemp("source")
    for package in "glean_ext", "benchmarks", "demo", "experiments":
        for path in (ROOT / package).rglob("*.py"):
            copy = folder / path.relative_to(ROOT)
            if ".mim" not in copy.parts:
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint_imports(folder: Path) -> tuple[int, list[str], str]:
    """The exit code of import-linter in ``folder``, the contracts that it reports as broken, and all of its output."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-logo"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert not done.stderr
    return done.returncode, re.findall(r"^(.+) BROKEN$", done.stdout, re.M), done.stdout


def test_the_contracts_hold(source):
    code, broken, output = lint_imports(source)
    assert (code, broken) == (0, [])
    for contract in ONE_WAY, NO_CONFIGS, TRAINING, TORCH_ALONE, WORKERS, STAND_ALONE:
        assert f"{contract} KEPT" in output


@pytest.mark.parametrize(
    ("file", "line", "contract", "chain"),
    [
        ("utils/messages.py", "from glean_ext.batch import pipeline", ONE_WAY, "utils.messages -> glean_ext.batch"),
        ("networks/ops.py", "import mmengine", TORCH_ALONE, "networks.ops -> mmengine"),
        ("checkpoints.py", "from PIL import Image", TORCH_ALONE, "checkpoints -> PIL"),
        (
            "video/formats.py",
            "from glean_ext.config import load_config",
            NO_CONFIGS,
            "video.formats -> glean_ext.config",
        ),
        ("engine/unwrap.py", "import glean_ext.models.losses", TRAINING, "engine.unwrap -> glean_ext.models.losses"),
        ("plugin.py", "from demo import run", STAND_ALONE, "plugin -> demo.run"),
        (
            "utils/messages.py",
            "def late():\n    import glean_ext.plugin",
            ONE_WAY,
            "utils.messages -> glean_ext.plugin",
        ),
    ],
)
def test_a_forbidden_import_is_found(source, file, line, contract, chain):
    """One more import in one file breaks the contract; the output names the contract and the two modules."""
    path = source / "glean_ext" / file
    original = path.read_text()
    path.write_text(f"{original}\n{line}\n")
    try:
        code, broken, output = lint_imports(source)
    finally:
        path.write_text(original)
    assert code == 1
    assert contract in broken
    assert f"glean_ext.{chain}" in output


def test_restoring_an_image_imports_neither_mmagic_nor_mmcv(tmp_path):
    """The shipped demo model, from a new process to the written file."""
    write_picture(Picture(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)), tmp_path / "lq.png")
    modules = {"torch", "mmagic", "mmcv", "mmengine.runner"}
    code = "import atexit, runpy, sys\nsys.argv = sys.argv[1:]\n"
    code += f"atexit.register(lambda: print(*sorted({modules} & set(sys.modules))))\n"
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    model = ROOT / "configs" / "demo_glean_x8.py", "glean-ext://demo_glean_x8.safetensors"
    command = [sys.executable, "-c", code, ROOT / "tools" / "infer.py", *model, "lq.png", "-o", "restored.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "torch"
    assert read_rgb(tmp_path / "restored.png").shape == (64, 64, 3)
