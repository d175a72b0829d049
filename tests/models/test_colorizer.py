"""The colorizer's training: which of several answers is trained. test_demo_configs.py runs it."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import DefaultScope
from support.runners import ROOT
from support.seeding import seed

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.config import load_config
from glean_ext.errors import InputError
from glean_ext.inference.model_cost import config_costs

__all__ = ["seed"]
CONFIG = ROOT / "configs/demo_glean_color.py"


def build(**changes):
    from mmagic.registry import MODELS

    model = load_config(CONFIG).model
    for name, value in changes.items():
        model[name] = value
    with DefaultScope.overwrite_default_scope("mmagic"):
        return MODELS.build(model)


def test_the_nearest_answer_is_trained():
    """Whichever it is, and however near those are that are drawn after it."""
    model = build(candidates=3)
    inputs = torch.rand(6, 1, 64, 64).expand(-1, 3, -1, -1) * 2 - 1
    torch.manual_seed(5)
    candidates = torch.stack([torch.zeros(6, 64), torch.randn(6, 64), torch.randn(6, 64)])  # (3, N, S)
    wanted = candidates[[0, 1, 2, 0, 0, 0], torch.arange(6)]
    with torch.no_grad():
        gt = model.generator(inputs, wanted) + 0.001
    torch.manual_seed(5)
    assert torch.equal(model.nearest_latents(inputs, gt), wanted)
    model.candidates = 1
    assert not model.nearest_latents(inputs, gt).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": 0}, "model.candidates is 0, but it must be a whole number, 1 or more."),
        (
            {"generator": {"type": "GLEANStyleGANv2", "in_size": 8, "out_size": 16, "max_channels": 8, "num_rrdbs": 1}},
            "GLEANColorizer trains a GLEANColorization, but model.generator.type is 'GLEANStyleGANv2'. Set another "
            "type.",
        ),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(InputError) as error:
        build(**changes)
    assert str(error.value) == message


def test_the_config_of_256():
    path = ROOT / "configs/glean_color_256_ffhq.py"
    cfg, costs = load_config(path), config_costs(path)
    assert costs.title == "GLEANColorization 256 -> 256, batch 1"
    assert costs.parts["total"].trainable < costs.parts["total"].parameters < 175.5e6  # GLEAN's of 64 -> 1024
    for loader in cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader:
        assert loader.dataset.scale == 1 and loader.dataset.pipeline[1].preset == "gray"
