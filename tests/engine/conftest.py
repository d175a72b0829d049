"""Every test of this folder draws the same random numbers in each run, and may train in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.seeding import seed
from support.training import make_home

__all__ = ["seed"]


@pytest.fixture
def home(request, tmp_path, monkeypatch) -> Path:
    """The working directory, with the module's ``CONFIG`` as ``config.py``, its bank, and ``IMAGES``.

    By default there are five images: two processes cannot share them evenly. A module without ``CONFIG`` gets what
    ``support.runners`` has.
    """
    if not hasattr(request.module, "CONFIG"):
        from support.runners import enter_home

        return enter_home(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    make_home(tmp_path, request.module.CONFIG, getattr(request.module, "IMAGES", 5))
    return tmp_path
