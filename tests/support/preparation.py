"""What the tests of data preparation share: pictures, ways to run, and to look at what was written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glean_ext.data_preparation.options import PreparationOptions
from glean_ext.data_preparation.prepare import prepare
from glean_ext.errors import InputError

REPO = Path(__file__).parents[2]


TOOL = REPO / "tools/prepare_data.py"


def picture(seed: int, height: int = 32, width: int | None = None, grid: int = 6) -> np.ndarray:
    """Smooth colours, different for every seed: (H, W, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (grid, grid, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width or height, height), Image.Resampling.BICUBIC))


def save(image: np.ndarray | Image.Image, path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def run(source: Path, out: Path, size: int = 32, **options) -> dict:
    lists, workers = options.pop("lists", None), options.pop("workers", 1)
    return prepare(source, out, PreparationOptions((size, size), **options), lists, workers)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/*/*.png"))}


def fault(call, *args, **kwargs) -> str:
    with pytest.raises(InputError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def start(source: Path, out: Path, *options: str, **popen) -> subprocess.Popen:
    command = [sys.executable, str(TOOL), str(source), str(out), *options]
    env = os.environ | {"PYTHONPATH": str(REPO)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **popen)
