"""Resuming with several processes: the average of the weights and the random numbers of every process. gloo, CPU."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.networks import quick_config_dump
from support.training import NO_STATISTICS, ROOT, free_port, make_home, same, small_config

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.config import load_config
from glean_ext.engine import runner as runners
from glean_ext.engine.hooks.random_state_hook import RandomStateHook, generator_states, set_generator_states

# As docs/training.md recommends the average; no statistics over the batch, so that one process can do what two do.
RESTORER = small_config(
    "custom_imports = dict(imports=['glean_ext.plugin', 'support.double_precision'])",
    "train_cfg = dict(max_iters=4)",
    "param_scheduler = dict(T_max=4)",
    "default_hooks = dict(checkpoint=dict(interval=2, save_best=None), logger=dict(interval=1))",
    "custom_hooks = [dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.25)]",
    "randomness = dict(seed=0)",
    "env_cfg = dict(dist_cfg=dict(backend='gloo'))",
    model=NO_STATISTICS,
    batch_size=1,
    validate=False,
)
BANK = f"""
_base_ = {str(ROOT / "configs/bank_256.py")!r}
_width = dict(channel_multiplier=0.125, max_channels=16)
model = dict(
    generator=dict(out_size=16, style_channels=16, num_mlps=2, **_width),
    discriminator=dict(in_size=16, augment=dict(target=-2.0, ramp_images=100), **_width))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root='data'))
train_cfg = dict(max_iters=4)
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
custom_hooks = []
randomness = dict(seed=0)
env_cfg = dict(dist_cfg=dict(backend='gloo'))
"""
PARTS = "state_dict", "ema_state_dict", "optimizer", "param_schedulers", "random_states", "augmentation"


def train_rank(rank: int, processes: int, port: str, home: str, options: list[str], resume: bool) -> None:
    """One process of a training."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    os.chdir(home)
    sys.stdout = sys.stderr = open(f"log_{rank}.txt", "w")  # noqa: SIM115
    sys.path.insert(0, str(ROOT / "tests"))
    torch.set_num_threads(1)
    gc.freeze()
    quick_config_dump(pytest.MonkeyPatch())
    cfg = load_config("config.py", options)
    cfg.work_dir, cfg.resume, cfg.launcher = "work", resume, "pytorch" if processes > 1 else "none"
    runners.train(cfg)


@pytest.fixture(scope="module")
def children():
    """Processes that need not import MMagic each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["glean_ext.plugin", "test_distributed_resume"])
    return context


def train(children, processes: int, *options: str, resume: bool = False) -> None:
    port, home = free_port(), os.getcwd()
    started = [
        children.Process(target=train_rank, args=(rank, processes, port, home, list(options), resume))
        for rank in range(processes)
    ]
    for child in started:
        child.start()
    for child in started:
        child.join(300)
    assert [child.exitcode for child in started] == [0] * processes, Path("log_0.txt").read_text()[-3000:]


def saved(iteration: int, work_dir: str = "work") -> dict:
    return torch.load(f"{work_dir}/iter_{iteration}.pth", weights_only=True)


@pytest.fixture(params=[pytest.param(RESTORER, marks=pytest.mark.slow), BANK], ids=["restorer", "bank"])
def home(request, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_home(tmp_path, request.param, images=5)
    return tmp_path


def test_two_processes_resume_bit_for_bit(home, children):
    """Each process of a bank's training draws latent codes: those of the second one are not drawn again, either."""
    train(children, 2)
    straight, half = saved(4), saved(2)
    Path("work/iter_4.pth").unlink()
    train(children, 2, resume=True)
    resumed = saved(4)
    assert straight.keys() == resumed.keys()
    for part in PARTS:
        assert same(straight.get(part), resumed.get(part)), part
    first, second = half["random_states"], half["random_states"]["other_processes"][0]
    assert second.keys() == first.keys() - {"other_processes", "sampler", "batch"}
    assert first["batch"] == 2 * load_config("config.py").train_dataloader.batch_size
    if load_config("config.py").randomness.get("diff_rank_seed"):
        assert half["augmentation"]["signs"][1] == 2 * 2 * 2, "2 iterations of 2 images in 2 processes"
        assert straight["augmentation"]["p"] == 4 * 2 * 2 / 100, "4 iterations"
        assert not torch.equal(first["torch"], second["torch"])


@pytest.mark.slow
@pytest.mark.parametrize("home", [RESTORER], indirect=True, ids=["restorer"])
def test_one_process_resumes_what_two_have_saved(home, children):
    """With the doubled batch it also ends like them."""
    train(children, 2)
    straight = saved(4)
    shutil.copytree("work", "two")
    Path("work/iter_4.pth").unlink()
    train(children, 1, "train_dataloader.batch_size=2", resume=True)
    resumed = saved(4)
    assert not [key for key in straight["ema_state_dict"] if ".module." in key]
    for part in "state_dict", "ema_state_dict":
        assert straight[part].keys() == resumed[part].keys()
        moved = 0
        for name, value in straight[part].items():
            torch.testing.assert_close(resumed[part][name], value, rtol=1e-9, atol=1e-12, msg=f"{part} {name}")
            moved += not torch.equal(value, saved(2, "two")[part][name])
        assert moved > 20, "both have trained"
    # An earlier version left the wrappers in the keys of the average.
    old = saved(2, "two")
    wrapped = ("generator", "discriminator")
    old["ema_state_dict"] = {
        key.replace(f"module.{part}.", f"module.{part}.module.", 1): value
        for key, value in old["ema_state_dict"].items()
        for part in [next((name for name in wrapped if key.startswith(f"module.{name}.")), "no")]
    }
    assert any(key.startswith("module.generator.module.") for key in old["ema_state_dict"])
    Path("work/iter_4.pth").unlink()
    torch.save(old, "work/iter_2.pth")
    train(children, 1, "train_dataloader.batch_size=2", resume=True)
    assert same(resumed["ema_state_dict"], saved(4)["ema_state_dict"])


@pytest.mark.slow
@pytest.mark.parametrize("home", [RESTORER], indirect=True, ids=["restorer"])
def test_two_processes_resume_what_one_has_saved(home, children):
    """With half the batch each they also end like it."""
    train(children, 1, "train_dataloader.batch_size=2")
    straight = saved(4)
    Path("work/iter_4.pth").unlink()
    train(children, 2, resume=True)
    resumed = saved(4)
    for part in "state_dict", "ema_state_dict":
        torch.testing.assert_close(resumed[part], straight[part], rtol=1e-9, atol=1e-12)


def test_processes_that_the_interrupted_run_did_not_have_get_seeds_of_their_own(monkeypatch):
    saved = generator_states() | {"sampler": 5}

    def draw(rank: int, sampler: int = 5, iteration: int = 100) -> tuple[float, float, float]:
        hook = RandomStateHook()
        hook._loaded = saved | {"sampler": sampler}
        monkeypatch.setattr("glean_ext.engine.hooks.random_state_hook.get_rank", lambda: rank)
        hook.before_train_iter(SimpleNamespace(model=torch.nn.Module(), iter=iteration), 0)
        return random.random(), np.random.rand(), torch.rand(()).item()

    set_generator_states(saved)
    first = random.random(), np.random.rand(), torch.rand(()).item()
    assert draw(rank=0) == first
    others = [draw(rank=1), draw(rank=2), draw(rank=1, sampler=6), draw(rank=1, iteration=200)]
    assert draw(rank=1) == others[0]
    for values in zip(first, *others, strict=True):
        assert len(set(values)) == 5
    set_generator_states(saved)
