"""A BigGAN by MMagic's trainer, and GLEAN with it as its bank: the shipped configs, narrow, for two iterations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoint_files import fault

from glean_ext.config import load_config
from glean_ext.engine import runner as runners

ROOT = Path(__file__).parents[2]
CLASSES = ("faces", "people", "animals", "food", "transport", "flags", "objects", "symbols", "activities")


@pytest.fixture
def emoji(tmp_path) -> Path:
    """Nine images of noise, one of each class, as ``experiments/emoji_data.py`` lays them out."""
    for i, kind in enumerate(CLASSES):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        (tmp_path / "train/GT").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"train/GT/{kind}.png")
    (tmp_path / "classes.json").write_text(json.dumps({kind: kind for kind in CLASSES}))
    return tmp_path


def config(name: str, home: Path):
    cfg = load_config(ROOT / "configs" / f"{name}.py")
    cfg.work_dir = str(home / name)
    cfg.model.generator.base_channels = 4
    cfg.train_dataloader.batch_size = 3
    cfg.train_cfg.max_iters = 2
    for loader in cfg.train_dataloader, cfg.get("val_dataloader"), cfg.get("test_dataloader"):
        if loader:
            loader.dataset.data_root = str(home / "train")
    return cfg


@pytest.mark.usefixtures("mmagic_models", "fast")
def test_a_trained_biggan_becomes_the_bank(emoji):
    cfg = config("bank_biggan_emoji_64", emoji)
    cfg.model.generator.arch_cfg.update(in_channels=[64, 64, 32, 16], out_channels=[64, 32, 16, 8])
    cfg.model.discriminator.base_channels = 4
    trained = runners.train(cfg).model.generator_ema.module
    cfg = config("demo_glean_biggan_x8", emoji)
    cfg.model.generator.update(rrdb_channels=8, max_channels=16)
    cfg.model.generator.init_cfg.checkpoint = str(emoji / "bank_biggan_emoji_64/iter_2.pth")
    cfg.train_cfg.val_interval = cfg.param_scheduler.T_max = 2
    cfg.default_hooks.logger.interval = 1
    net = runners.train(cfg).model.generator
    z, label = torch.randn(2, 60), torch.tensor([0, 5])
    with torch.no_grad():
        expected = trained.eval()(z, label)
        torch.testing.assert_close(net.generator.eval()(z, label), expected, rtol=0, atol=1e-4)
    (log,) = (emoji / "demo_glean_biggan_x8").glob("*/*.log")
    text = log.read_text()
    assert "The latent bank is bit-identical to what training started with." in text
    assert "loss_label: " in text and "label_top1: " in text and "PSNR: " in text


@pytest.mark.usefixtures("mmagic_models", "fast")
def test_training_needs_labels(emoji):
    cfg = config("demo_glean_biggan_x8", emoji)
    cfg.model.generator.update(rrdb_channels=8, max_channels=16, bank_init="random", init_cfg=None)
    cfg.train_dataloader.dataset.update(labels="", classes=None)
    assert fault(runners.train, cfg) == (
        "GLEANBigGAN trains with labels, which these images do not have. Set labels of the dataset to 'folders' or to "
        "a JSON file."
    )
