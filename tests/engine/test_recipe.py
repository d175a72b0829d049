"""Parts of a recipe that a config chooses: accumulated gradients, an average of the weights, warm-up."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from support.training import NO_STATISTICS, SGD, small_config

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext import checkpoints
from glean_ext.config import load_config
from glean_ext.engine import runner as runners
from glean_ext.engine.config_changes import scale_learning_rates
from glean_ext.errors import InputError

CONFIG = small_config(
    SGD,
    "train_cfg = dict(max_iters=3)",
    "param_scheduler = None",
    "default_hooks = dict(checkpoint=dict(interval=100, save_best=None), logger=dict(interval=1))",
    "randomness = dict(seed=0)",
    model=f"{NO_STATISTICS}, r1_gamma=1.0, r1_interval=1",
    batch_size=4,
    validate=False,
)
IMAGES = 7


pytestmark = pytest.mark.usefixtures("fast")


def train(work_dir: str, *options: str, hooks: tuple[Hook, ...] = (), **settings: object) -> Runner:
    cfg = load_config("config.py", options)
    cfg.work_dir, cfg.log_level, cfg.experiment_name = work_dir, "ERROR", f"{Path.cwd().name}-{work_dir}"
    for name, value in settings.items():
        cfg[name] = value
    return runners.train(cfg, hooks)


def end(work_dir: str, *options: str) -> dict[str, torch.Tensor]:
    return train(work_dir, *options).model.state_dict()


class Notes(Hook):
    """The weights after each iteration, and the learning rate during it."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.rates: list[float] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.rates.append(runner.optim_wrapper["generator"].get_lr()["lr"][0])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.weights.append({key: value.clone() for key, value in runner.model.generator.state_dict().items()})


@pytest.mark.parametrize(
    ("kind", "counts", "batch"), [("OptimWrapper", 2, 2), ("OptimWrapper", 4, 1), ("MixedPrecisionOptimWrapper", 2, 2)]
)
def test_accumulated_gradients_are_those_of_the_larger_batch(home, monkeypatch, kind, counts, batch):
    """R1 included. Of the mixed-precision wrapper its counting is meant, so it runs in fp32."""
    monkeypatch.setattr("glean_ext.networks.precision.cpu_has_bf16", lambda: False)
    parts = "generator", "discriminator"
    wrapper = [f"optim_wrapper.{part}.type={kind}" for part in parts]
    if kind == "MixedPrecisionOptimWrapper":
        wrapper += [f"optim_wrapper.{part}.dtype=auto" for part in parts]
    start = torch.load("bank.pth")["state_dict"]
    large = end("large", *wrapper)
    options = f"train_dataloader.batch_size={batch}", f"train_cfg.max_iters={3 * counts}"
    small = end("small", *wrapper, *options, *(f"optim_wrapper.{part}.accumulative_counts={counts}" for part in parts))
    for name, value in large.items():
        if name != "step_counter":
            torch.testing.assert_close(
                small[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
            )
    assert all(torch.equal(small[f"generator.{key.replace('_ema', '')}"], value) for key, value in start.items())


def test_the_average_of_the_weights_is_what_is_saved(home):
    """``EMAHook`` as docs/training.md has it: the average starts at the first weights, and the checkpoint tests it."""
    notes = Notes()
    ema = {"type": "EMAHook", "ema_type": "ExponentialMovingAverage", "momentum": 0.25}
    runner = train("work", hooks=(notes,), custom_hooks=[ema])
    first, second, third = notes.weights
    saved = checkpoints.with_prefix(checkpoints.read("work/iter_3.pth"), "generator", "work")
    moved = 0
    for name, value in saved.items():
        expected = first[name].lerp(second[name], 0.25).lerp(third[name], 0.25)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")
        moved += not torch.equal(value, third[name])
    assert moved > 10
    bank = {key: value for key, value in saved.items() if key.startswith("generator.")}
    assert all(torch.equal(value, first[key]) for key, value in bank.items()) and len(bank) > 40
    assert all(torch.equal(v, third[k]) for k, v in runner.model.generator.state_dict().items()), "training continues"


def test_learning_rates_in_proportion_to_the_batch_size(home):
    """A batch of 4 images, of 8 for which the rates are."""
    for scale, rate in (False, 0.1), (True, 0.05):
        cfg = load_config("config.py", ["train_cfg.max_iters=2", "auto_scale_lr.base_batch_size=8"])
        cfg.work_dir, cfg.log_level, cfg.experiment_name = "work", "ERROR", f"{home.name}-{scale}"
        if scale:
            scale_learning_rates(cfg)
        notes = Notes()
        runner = runners.train(cfg, [notes])
        assert notes.rates == [rate] * 2
        assert runner.optim_wrapper["discriminator"].get_lr()["lr"] == [rate]
    del cfg.auto_scale_lr["base_batch_size"]
    with pytest.raises(InputError) as error:
        scale_learning_rates(cfg)
    assert str(error.value) == (
        "The config has no auto_scale_lr=dict(base_batch_size=...), the batch size of all GPUs together that its "
        "learning rates are for. Add it, or train without auto_scale_lr."
    )


def test_warm_up_and_cosine(home):
    """The schedule of docs/training.md: linear to the full rate, then half a cosine to the lowest one."""
    warm_up = {"type": "LinearLR", "by_epoch": False, "start_factor": 0.2, "begin": 0, "end": 4}
    cosine = {"type": "CosineAnnealingLR", "by_epoch": False, "begin": 4, "end": 10, "T_max": 6, "eta_min": 0.01}
    notes = Notes()
    train("work", "train_cfg.max_iters=10", hooks=(notes,), param_scheduler=[warm_up, cosine])
    rising = [0.1 * share for share in (0.2, 0.2 + 0.8 / 3, 0.2 + 1.6 / 3, 1.0)]
    falling = [0.01 + 0.09 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert notes.rates == pytest.approx([*rising, *falling])
