"""For the tests of training and of the tools: the smallest config, and hooks that record what the runner sees."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from PIL import Image
from support.tools import load_tool
from support.training import BANK, NETWORK, ROOT, save_bank
from torch import Tensor

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext import cli
from glean_ext.config import load_config
from glean_ext.engine import runner as runners

__all__ = ["BANK", "NETWORK", "NO_VALIDATION", "ROOT"]
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
    """Changes one number of each parameter or buffer of the bank by its last bit, before an iteration."""

    def __init__(self, iteration: int, names: list[str]) -> None:
        self.iteration, self.names = iteration, names

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.iteration:
            for name in self.names:
                value = runner.model.generator.generator.state_dict()[name].view(-1)[:1]
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


# ---------------------------------------------------------------- fixtures


@pytest.fixture(scope="module")
def hooks() -> Iterator[None]:
    """A config may name the hooks of this module."""
    from mmagic.registry import HOOKS

    own = Recorder, Tamper
    for hook in own:
        HOOKS.register_module(module=hook, force=True)
    yield
    for hook in own:
        del HOOKS.module_dict[hook.__name__]


@pytest.fixture
def clean_mmengine() -> Iterator[None]:
    """Runners leave loggers on this test's stdout and a default scope behind."""
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    managers = MMLogger, MessageHub, Visualizer, DefaultScope
    before = [list(manager._instance_dict) for manager in managers]
    yield
    for manager, names in zip(managers, before, strict=True):
        for name in [name for name in manager._instance_dict if name not in names]:
            for handler in getattr(manager._instance_dict.pop(name), "handlers", []):
                handler.close()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A working directory with ``config.py``, its bank and three images."""
    return enter_home(tmp_path, monkeypatch)


def enter_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make that working directory in ``folder``, and change to it."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LOCAL_RANK", "0")
    bases = ", ".join(repr(str(ROOT / f"configs/_base_/{n}.py")) for n in ("runtime", "schedule_300k", "glean", "data"))
    (folder / "config.py").write_text(CONFIG.replace("BASES", bases).replace("NETWORK", repr(NETWORK)))
    save_bank(folder / "bank.pth")
    save_gt(folder / "data/GT")
    return folder


@pytest.fixture
def run(home, monkeypatch, capfd):
    """Run a tool in this process: (exit code, stdout, the lines of stderr that tell an error)."""

    def call(name: str, *arguments: object) -> tuple[int, str, list[str]]:
        tool = load_tool(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.run(tool.main)
        stdout, stderr = capfd.readouterr()
        assert "Traceback" not in stderr
        return caught.value.code, stdout, [line for line in stderr.splitlines() if line.startswith("error: ")]

    return call


@pytest.fixture
def fault(run):
    """Run a tool, expect exit code 2 and exactly one line of error; the line."""

    def call(name: str, *arguments: object) -> str:
        code, _, errors = run(name, *arguments)
        assert (code, len(errors)) == (2, 1)
        return errors[0].removeprefix("error: ")

    return call
