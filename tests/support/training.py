"""What the tests that train share: a working directory with a config, a bank and images, and ways to run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from support.networks import TINY, randomize

from glean_ext.networks import StyleGAN2Generator

ROOT = Path(__file__).parents[2]
NETWORK = {k: v for k, v in TINY.items() if k != "type"}
BANK = {k: NETWORK[k] for k in ("out_size", "style_channels", "num_mlps", "channel_multiplier", "max_channels")}
BASES = [str(ROOT / f"configs/_base_/{name}.py") for name in ("runtime", "schedule_300k", "glean", "data")]


PRETRAINED = "init_cfg=dict(type='Pretrained', checkpoint='bank.pth', prefix='generator_ema')"
DISCRIMINATOR = "discriminator=dict(in_size=16, max_channels=16)"
# Statistics over the batch, the discriminator's minibatch standard deviation, are off: they stay within a process.
NO_STATISTICS = "discriminator=dict(in_size=16, max_channels=16, mbstd_cfg=dict(group_size=1))"
# In place of Adam, which makes steps of the same size from gradients that differ by rounding around zero.
SGD = """
sgd = dict(_delete_=True, type='SGD', lr=0.1)
optim_wrapper = dict(generator=dict(optimizer=sgd), discriminator=dict(optimizer=sgd))
"""


def small_config(
    *lines: str, bank: str = PRETRAINED, model: str = DISCRIMINATOR, batch_size: int = 2, validate: bool = True
) -> str:
    """The text of a config for a small network and the images of :func:`make_home`.

    Args:
        lines: What it has besides.
        bank: Arguments of the generator about its bank.
        model: Further arguments of the model.
    """
    loader = "num_workers=0, persistent_workers=False, dataset=data"
    return "\n".join(
        [
            f"_base_ = {BASES!r}",
            f"model = dict(generator=dict(**{NETWORK!r}, {bank}), {model}, perceptual_loss=None)",
            "data = dict(data_root='data', data_prefix=dict(gt='GT'), scale=2)",
            f"train_dataloader = dict(batch_size={batch_size}, {loader})",
            f"val_dataloader = test_dataloader = dict({loader})"
            if validate
            else "val_dataloader = val_cfg = val_evaluator = test_dataloader = test_cfg = test_evaluator = None",
            *lines,
            "",
        ]
    )


def make_home(folder: Path, config: str, images: int) -> None:
    """``config.py``, its bank ``bank.pth`` and ``data/GT/0.png``, ... of 16x16 pixels of noise."""
    (folder / "config.py").write_text(config)
    save_bank(folder / "bank.pth")
    (folder / "data/GT").mkdir(parents=True)
    for i in range(images):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"data/GT/{i}.png")


def same(a: object, b: object) -> bool:
    """Whether two contents of checkpoints are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def save_bank(path: Path) -> None:
    """A bank with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        bank = randomize(StyleGAN2Generator(**BANK), seed=1).state_dict()
    torch.save({"state_dict": {f"generator_ema.{k}": v for k, v in bank.items()}}, path)


def environment(**changes: str) -> dict[str, str]:
    """The environment of a process: this interpreter first, one thread, no GPU."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    fixed = {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return os.environ | fixed | changes


def process(*arguments: object, **changes: str) -> subprocess.CompletedProcess:
    """Run a command in :func:`environment`."""
    return subprocess.run(
        [*map(str, arguments)], env=environment(**changes), capture_output=True, text=True, timeout=600
    )


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])
