"""Folders, as restorers leave them: three photographs, reduced, and restored by blurring, well and badly."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.metric_references import astronaut, blurred, cup, officer

from glean_ext.utils.imresize import imresize

PHOTOGRAPHS = {"astronaut": cache(astronaut), "cup": cup, "sub/officer": officer}


def save(rgb: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, lossless=True)  # which PNG ignores


@pytest.fixture
def folders(made, tmp_path) -> Path:
    """``gt``, ``lq``, ``good`` and ``bad``: the cup is the worst of ``good``, and the officer of ``bad``."""
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    for name, photograph in PHOTOGRAPHS.items():
        rgb = photograph()
        save(rgb, root / f"gt/{name}.png")
        save(imresize(rgb, size=(48, 64)), root / f"lq/{name}.png")
        save(blurred(rgb, 3 if name == "cup" else 0.5), root / f"good/{name}.png")
        save(blurred(rgb, 8 if name == "sub/officer" else 2), root / f"bad/{name}_restored.webp")
    return root
