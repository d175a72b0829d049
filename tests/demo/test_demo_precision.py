"""The demo's training has nearly the same losses in bf16 and in fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from demo.render_faces import make_demo_data
from glean_ext.config import load_config
from glean_ext.engine import runner as runners

CONFIG = Path(__file__).parents[2] / "configs" / "demo_glean_x8.py"
ITERATIONS, WINDOW = 60, 10


@HOOKS.register_module(force=True)
class Losses(Hook):
    """Keeps the losses of each iteration."""

    curve: list[dict[str, float]]

    def before_train(self, runner) -> None:
        Losses.curve = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        Losses.curve.append({name: value.item() for name, value in outputs.items()})


def train(home: Path, dtype: str) -> dict[str, np.ndarray]:
    """The losses of the demo's first iterations by name, as means over :data:`WINDOW` of them."""
    nothing = "val_cfg=None", "val_dataloader=None", "val_evaluator=None", "default_hooks.checkpoint.save_best=None"
    cfg = load_config(CONFIG, [*nothing, f"train_cfg.max_iters={ITERATIONS}"])
    cfg.work_dir, cfg.experiment_name = str(home / dtype), dtype
    cfg.train_dataloader.dataset.data_root = str(home / "faces/train")
    cfg.custom_hooks = [{"type": Losses.__name__}]
    for name in "generator", "discriminator":
        wrapper = cfg.optim_wrapper[name]
        if dtype == "float32":
            wrapper.type = "OptimWrapper"
            wrapper.pop("dtype")
        else:
            wrapper.dtype = dtype
    runners.train(cfg)
    return {
        name: np.reshape([losses[name] for losses in Losses.curve], (-1, WINDOW)).mean(1) for name in Losses.curve[0]
    }


@pytest.mark.slow
def test_losses_of_bf16_are_those_of_fp32(tmp_path):
    """Means over 10 iterations: the pixel loss within 1% of fp32's, the small adversarial ones within 20%."""
    make_demo_data(tmp_path / "faces", train=64, test=0)
    full, half = train(tmp_path, "float32"), train(tmp_path, "bfloat16")
    assert full["loss_pix"][-1] < 0.7 * full["loss_pix"][0]
    assert full.keys() == half.keys() == {"loss_pix", "loss_gan", "loss_d_real", "loss_d_fake"}
    for name, expected in full.items():
        np.testing.assert_allclose(half[name], expected, rtol=0.01 if name == "loss_pix" else 0.2, err_msg=name)
