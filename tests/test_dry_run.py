"""``tools/train.py --dry-run``, and the training of banks: what a long job needs, on the smallest scale."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_home import BASES, NETWORK, ROOT, make_home

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext import checkpoints
from glean_ext.apis import runners
from glean_ext.apis.dry_run import dry_run
from glean_ext.bank_training import TrainableBank, mixed_codes
from glean_ext.configs_io import load_config
from glean_ext.errors import InputError
from glean_ext.networks import GLEANStyleGANv2, StyleGAN2Generator

CONFIG = f"""
_base_ = {BASES!r}
model = dict(
    generator=dict(**{NETWORK!r}, init_cfg=dict(type='Pretrained', checkpoint='bank.pth', prefix='generator_ema')),
    discriminator=dict(in_size=16, max_channels=16), perceptual_loss=None)
data = dict(data_root='data', data_prefix=dict(gt='GT'), scale=2)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=data)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=data)
test_dataloader = val_dataloader
"""


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    """Spare what takes most of the time: yapf on the logged config, ``gc.collect`` over all of MMagic."""
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmengine.config.config.FormatCode", lambda text, **_: (text, True))
        yield
    gc.unfreeze()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_home(tmp_path, CONFIG, images=5)
    return tmp_path


def config(*options: str):
    cfg = load_config("config.py", options)
    cfg.work_dir = "work"
    return cfg


def test_dry_run_says_what_the_job_takes_and_leaves_nothing(home, capsys):
    dry_run(config())
    said = " ".join(capsys.readouterr().out.split())
    for fact in "5, 5 of them read", "bank.pth", "(2, 3, 8, 8) -> (2, 3, 16, 16)", "for 300,000 of them", "MB, ":
        assert fact in said, fact
    assert not Path("work").exists() and not list(home.glob("*dirs*"))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda: Path("bank.pth").unlink(), "bank.pth: there is no such file"),
        (lambda: Path("data/GT/3.png").write_bytes(b""), r"data/GT/3.png is empty"),
        (lambda: Image.new("RGB", (32, 32)).save("data/GT/4.png"), "The network makes images|gives a low-resolution"),
    ],
)
def test_dry_run_finds_what_would_stop_the_job(home, break_it, message):
    break_it()
    with pytest.raises(InputError, match=message):
        dry_run(config("train_dataloader.batch_size=5"))


# ---------------------------------------------------------------- banks


def tiny_bank_config(name: str):
    cfg = load_config(ROOT / f"configs/{name}.py")
    cfg.model.generator.update(out_size=16, style_channels=16, num_mlps=2, channel_multiplier=0.125, max_channels=16)
    cfg.model.discriminator.update(in_size=16, channel_multiplier=0.125, max_channels=16)
    cfg.train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.update(data_root="data")
    cfg.train_cfg.max_iters = 5
    cfg.custom_hooks[0].interval = 4
    cfg.work_dir, cfg.log_level, cfg.experiment_name = "bank", "ERROR", f"{Path.cwd().name}-{name}"
    return cfg


@pytest.mark.parametrize("name", ["bank_256", "bank_512", "bank_1024", "bank_demo_64"])
def test_a_bank_trains_and_glean_uses_it_by_path(home, name):
    assert load_config(ROOT / f"configs/{name}.py").model.generator.out_size == int(name.split("_")[-1])
    runner = runners.train(tiny_bank_config(name))
    average = runner.model.generator_ema.module.state_dict()
    start, end = runner.model.generator.state_dict(), average
    assert any(not torch.equal(start[key], end[key]) for key in end), "the average lags behind"
    net = GLEANStyleGANv2(
        **NETWORK, init_cfg={"type": "Pretrained", "checkpoint": "bank/iter_5.pth", "prefix": "generator_ema"}
    )
    net.init_weights()
    for key, value in net.generator.state_dict().items():
        assert torch.equal(value, average[key]), key
    samples = sorted(Path("bank").rglob("samples_*.png"))
    assert [np.asarray(Image.open(path)).shape for path in samples] == [(4 * 16, 8 * 16, 3)] * 2


def test_a_trainable_bank_is_the_bank():
    bank = TrainableBank(16, 16, 2, 0.125, 16, mix_prob=1.0)
    plain = StyleGAN2Generator(16, 16, 2, 0.125, 16)
    checkpoints.load_strict(plain, bank.state_dict(), "bank")
    z = torch.randn(3, 16)
    torch.testing.assert_close(bank.eval()(z), plain(z))
    bank.train()
    out = bank(None, num_batches=2, return_latents=True)
    assert out["fake_img"].shape == (2, 3, 16, 16) and out["latent"].shape == (2, bank.num_latents, 16)
    assert out["noise_batch"].shape == (2, 16)
    (gradient,) = torch.autograd.grad(out["fake_img"].sum(), out["latent"])
    assert gradient[:, :-1].abs().amin() >= 0 and gradient.abs().sum() > 0


def test_style_mixing():
    bank = StyleGAN2Generator(16, 16, 2, 0.125, 16)
    first, second = torch.randn(2, 64, 16)
    w_first, w_second = bank.style_mapping(first)[:, None], bank.style_mapping(second)[:, None]
    torch.testing.assert_close(mixed_codes(bank, first, second, 0.0), w_first.expand(-1, bank.num_latents, -1))
    codes = mixed_codes(bank, first, second, 1.0)
    is_first = (codes - w_first).abs().amax(2) < (codes - w_second).abs().amax(2)  # (N, K)
    assert is_first[:, 0].all() and not is_first[:, -1].any()
    assert (is_first[:, 1:] <= is_first[:, :-1]).all(), "one cut an image"
    assert len(set(is_first.sum(1).tolist())) == bank.num_latents - 1, "anywhere"
