"""Optional packages of other versions, or whose libraries are missing, end a tool in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def run(folder: Path, package: str, code: str, *command: str) -> tuple[int, str]:
    """Exit code and last line of stderr of a tool that imports this code as the package."""
    (folder / "fake" / package).mkdir(parents=True)
    (folder / "fake" / package / "__init__.py").write_text(code)
    env = os.environ | {"PYTHONPATH": f"{folder / 'fake'}:{ROOT}"}
    tool = [sys.executable, str(ROOT / "tools" / command[0]), *command[1:]]
    done = subprocess.run(tool, cwd=folder, env=env, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("package", "code", "reason"),
    [
        ("fastapi", "", "(cannot import name 'FastAPI' from 'fastapi' ("),
        ("uvicorn", "raise ImportError('libx.so: no such file')", "(libx.so: no such file). "),
    ],
)
def test_the_page(tmp_path, package, code, reason):
    exit_code, line = run(tmp_path, package, code, "web.py", "--port", "0")
    assert exit_code == 2
    assert line.startswith(f"error: {package} {version(package)} does not work {reason}")
    assert line.endswith("Install another version: pip install 'glean-ext[web]'")


def test_videos(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"0" * 64)
    model = "demo_glean_x8", "glean-ext://demo_glean_x8.safetensors"
    exit_code, line = run(tmp_path, "av", "", "infer.py", *model, "v.mp4", "-o", "o.mp4")
    assert exit_code == 2
    assert line.startswith(f"error: av {version('av')} does not work (") and line.endswith(
        "pip install 'glean-ext[video]'"
    )


def test_opencv_on_a_system_without_windows(tmp_path):
    missing = "libxcb.so.1: cannot open shared object file: No such file or directory"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code = f"raise ImportError({missing!r})"
    model = "--model", "demo_glean_x8", "--photo", "--device", "cpu"
    exit_code, line = run(tmp_path, "cv2", code, "infer.py", *model, "a.png", "-o", "o.png")
    assert exit_code == 2
    assert line.startswith(f"error: OpenCV does not work here ({missing}). Install what it needs, ")


def test_databases(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(noise).save(tmp_path / "in/a.png")
    command = "prepare_data.py", "in", "out", "--size", "8", "--lmdb", "--workers", "1"
    assert run(tmp_path, "lmdb", "raise OSError('bad library')", *command) == (
        2,
        f"error: --lmdb does not work with lmdb {version('lmdb')} (OSError: bad library). "
        "Install other versions: pip install lmdb",
    )
