"""Small batches whose gradients are added up make the weights that one large batch makes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from training_home import BASES, NETWORK, make_home

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.apis import runners
from glean_ext.configs_io import load_config

# SGD, for Adam makes steps of the same size from gradients that differ by rounding around zero; no statistics over the
# batch.
CONFIG = f"""
_base_ = {BASES!r}
model = dict(
    generator=dict(**{NETWORK!r}, init_cfg=dict(type='Pretrained', checkpoint='bank.pth', prefix='generator_ema')),
    discriminator=dict(in_size=16, max_channels=16, mbstd_cfg=dict(group_size=1)), perceptual_loss=None,
    r1_gamma=1.0, r1_interval=1)
data = dict(data_root='data', data_prefix=dict(gt='GT'), scale=2)
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=data)
val_dataloader = val_cfg = val_evaluator = test_dataloader = test_cfg = test_evaluator = None
train_cfg = dict(max_iters=3)
sgd = dict(_delete_=True, type='SGD', lr=0.1)
optim_wrapper = dict(generator=dict(optimizer=sgd), discriminator=dict(optimizer=sgd))
param_scheduler = None
default_hooks = dict(checkpoint=dict(interval=100, save_best=None), logger=dict(interval=1))
randomness = dict(seed=0)
"""


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmengine.config.config.FormatCode", lambda text, **_: (text, True))
        yield
    gc.unfreeze()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_home(tmp_path, CONFIG, images=7)
    return tmp_path


def end(work_dir: str, *options: str) -> dict[str, torch.Tensor]:
    cfg = load_config("config.py", options)
    cfg.work_dir, cfg.log_level, cfg.experiment_name = work_dir, "ERROR", f"{Path.cwd().name}-{work_dir}"
    return runners.train(cfg).model.state_dict()


@pytest.mark.parametrize(
    ("kind", "counts", "batch"), [("OptimWrapper", 2, 2), ("OptimWrapper", 4, 1), ("MixedPrecisionOptimWrapper", 2, 2)]
)
def test_accumulated_gradients_are_those_of_the_larger_batch(home, monkeypatch, kind, counts, batch):
    """R1 included. Of the mixed-precision wrapper its counting is meant, so it runs in fp32."""
    monkeypatch.setattr("glean_ext.optim.cpu_has_bf16", lambda: False)
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
