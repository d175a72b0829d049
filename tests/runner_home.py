"""What the tests of training and of the tools share: the smallest config, and hooks that see what the runner saw."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from conftest import TINY
from mmengine.hooks import Hook
from PIL import Image
from torch import Tensor

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.apis import runners
from glean_ext.configs_io import load_config

ROOT = Path(__file__).parents[1]


NETWORK = {k: v for k, v in TINY.items() if k != "type"}


BANK = {k: NETWORK[k] for k in ("out_size", "style_channels", "num_mlps", "channel_multiplier", "max_channels")}


NO_VALIDATION = ["val_cfg=None", "val_dataloader=None", "val_evaluator=None", "default_hooks.checkpoint.save_best=None"]


CONFIG = """
_base_ = [BASES]
model = dict(
    generator=dict(**NETWORK, init_cfg=dict(type='Pretrained', checkpoint='bank.pth', prefix='generator_ema')),
    discriminator=dict(in_size=16, max_channels=16),
    perceptual_loss=None,
)
data = dict(data_root='data', data_prefix=dict(gt='GT'), scale=2)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=data)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=data)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=3, val_interval=100)
default_hooks = dict(checkpoint=dict(interval=100), logger=dict(interval=1))
custom_hooks = [dict(type='FrozenBankHook', interval=1), dict(type='Recorder')]
randomness = dict(seed=0)
"""


class Recorder(Hook):
    """What the runner saw: the model before each step, the batch, and the losses after it."""

    last: Recorder

    def __init__(self) -> None:
        Recorder.last = self
        self.models: list[torch.nn.Module] = []
        self.batches: list[dict] = []
        self.losses: list[dict[str, Tensor]] = []
        self.iterations: list[int] = []
        self.dtypes: set[torch.dtype] = set()

    def before_train(self, runner) -> None:
        body = runner.model.generator.encoder[0][0].body
        body.register_forward_hook(lambda module, inputs, output: self.dtypes.add(output.dtype))

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.models.append(copy.deepcopy(runner.model))
        self.batches.append(copy.deepcopy(data_batch))
        self.iterations.append(runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append(outputs)


class Tamper(Hook):
    """Changes one number of each tensor by its last bit, before an iteration."""

    def __init__(self, iteration: int, names: list[str]) -> None:
        self.iteration, self.names = iteration, names

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.iteration:
            for name in self.names:
                value = runner.model.generator.generator.get_parameter(name).data.view(-1)[:1]
                value.copy_(torch.nextafter(value, torch.tensor(torch.inf)))


def noise(seed: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def save_gt(folder: Path, sizes: tuple[int, ...] = (16, 16, 16)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, size in enumerate(sizes):
        Image.fromarray(noise(i, size)).save(folder / f"{i}.png")


def train(home: Path, *options: str, validate: bool = False, work_dir: str = "work", resume: bool = False):
    cfg = load_config(home / "config.py", [*([] if validate else NO_VALIDATION), *options])
    cfg.work_dir, cfg.resume = work_dir, resume
    cfg.experiment_name = f"{home.name}-{work_dir}-{resume}-{len(options)}"
    return runners.train(cfg)


def in_signed_range(images: list[Tensor]) -> Tensor:
    return torch.stack([image.float() / 127.5 - 1 for image in images])
