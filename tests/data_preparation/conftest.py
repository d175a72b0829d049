"""Raw images that the tests prepare."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.preparation import picture, save


@pytest.fixture
def raw(tmp_path) -> Path:
    """``0.png`` ... ``9.png``: pictures with seeds 0 to 9, 32x32."""
    for seed in range(10):
        save(picture(seed), tmp_path / f"raw/{seed}.png")
    return tmp_path / "raw"
