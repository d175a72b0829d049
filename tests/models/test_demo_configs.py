"""Two iterations of configs that no command runs: tasks of GLEAN with the demo's bank, and MMagic's own models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.runners import ROOT, clean_mmengine

from glean_ext.config import load_config
from glean_ext.engine import runner as runners

__all__ = ["clean_mmengine"]
ADVERSARIAL = {"loss_pix", "loss_gan", "loss_d_real", "loss_d_fake"}


@pytest.mark.parametrize(
    ("config", "losses"),
    [
        ("demo_glean_color", {"loss_pix"}),
        ("demo_glean_blind_x8", ADVERSARIAL),
        pytest.param("baselines/demo_srcnn_x4", {"loss"}, marks=pytest.mark.slow),
        ("baselines/demo_srgan_x4", ADVERSARIAL),
        pytest.param("baselines/demo_esrgan_x4", ADVERSARIAL, marks=pytest.mark.slow),
        pytest.param("baselines/demo_ttsr_x4", {"loss_pix"}, marks=pytest.mark.slow),
    ],
)
def test_two_iterations(config: str, losses: set[str], tmp_path: Path, clean_mmengine, monkeypatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    for part, count in ("train", 3), ("test", 1):
        for folder in "GT", "REF":
            (tmp_path / part / folder).mkdir(parents=True)
            for i in range(count):
                image = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(image).save(tmp_path / part / folder / f"{i}.png")
    loaders = [f"{name}_dataloader.dataset.data_root={tmp_path}" for name in ("val", "test")]
    options = [*(f"{loader}/test" for loader in loaders), f"train_dataloader.dataset.data_root={tmp_path}/train"]
    options += ["train_dataloader.batch_size=2", "train_cfg.max_iters=2", "train_cfg.val_interval=2"]
    cfg = load_config(ROOT / f"configs/{config}.py", options)
    cfg.work_dir, cfg.experiment_name = str(tmp_path / "work"), f"{Path(config).name}-two-iterations"
    runner = runners.train(cfg)
    scalars = runner.message_hub.log_scalars
    assert runner.iter == 2 and losses <= {name.removeprefix("train/") for name in scalars}
    assert np.isfinite(scalars["val/PSNR"].current())
    images = runner.val_dataloader.dataset
    first, again = images[0]["inputs"], images[0]["inputs"]
    assert torch.equal(first, again), "validation is not on fixed inputs"
    if config == "demo_glean_color":
        assert torch.equal(first[0], first[1]) and torch.equal(first[0], first[2]) and first.shape == (3, 64, 64)
