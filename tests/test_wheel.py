"""What an installed package consists of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def files_below(folder: Path) -> set[str]:
    """All files of a package by their path from the package's parent; links are followed, as a wheel has none."""
    return {
        str(Path(parent, name).relative_to(folder.parent))
        for parent, _, names in os.walk(folder, followlinks=True)
        if "__pycache__" not in parent
        for name in names
    }


def test_the_wheel_has_every_file_of_the_package_and_no_other(tmp_path):
    for name in "glean_ext", "configs", "benchmarks", "demo", "tools":
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=ignored)
    for name in "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "model-index.yml":
        shutil.copy(ROOT / name, tmp_path)
    code = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("glean_ext-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == files_below(ROOT / "glean_ext")
    for name in (
        "py.typed", "web/static/index.html", "web/static/examples/face-1.png", "assets/demo_bank.safetensors",
        "assets/SHA256.json", ".mim/model-index.yml", ".mim/configs/metafile.yml", ".mim/configs/_base_/glean.py",
        ".mim/configs/ablations/bank_tuned.py",
    ):  # fmt: skip
        assert f"glean_ext/{name}" in names
