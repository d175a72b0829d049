"""A small network that takes references, as a config and weights, and images for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from support.diffusion import IMAGES, NETWORK, SIZES, network

from glean_ext import checkpoints

GENERATOR: dict[str, Any] = {"type": "GLEANDiffusion", **SIZES, **NETWORK, "pipeline": IMAGES, "bank_init": "random"}
CONFIG = {"model": {"generator": GENERATOR}}  # 8x8 -> 32x32


def save_network(folder: Path) -> None:
    """net.py and net.safetensors, of a network in which references count much: its attention is sharp."""
    net = network()
    with torch.no_grad():
        for name, param in net.generator.unet.up_blocks.named_parameters():
            if name.endswith(("to_q.weight", "to_k.weight", "to_out.0.weight")):
                param *= 20
    checkpoints.save(net.state_dict(), folder / "net.safetensors")
    (folder / "net.py").write_text(f"model = dict(type='GLEAN', generator={GENERATOR})\n")


def noise(side: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def save(path: Path, side: int = 32, seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(noise(side, seed)).save(path)
    return path
