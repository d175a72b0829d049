"""Checkpoints to convert."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import nvidia_pickles as nvidia
from support.conversion_sources import nvidia_content, rosinality_content


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    torch.save(rosinality_content(), folder / "rosinality.pt")
    nvidia.write(nvidia_content(), folder / "nvidia.pkl")
    return {"rosinality": folder / "rosinality.pt", "nvidia": folder / "nvidia.pkl"}
