"""What the plug-in puts into MMagic's registries, and MMagic's own GLEAN configs with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mmengine import Config
from mmengine.registry import DefaultScope

CONFIGS = Path(__file__).parents[1] / "configs"
MMAGIC_CONFIGS = [
    "glean_in128out1024-fp16_4xb2-300k_ffhq-celeba-hq",
    "glean_in128out1024_4xb2-300k_ffhq-celeba-hq",
    "glean_x16-fp16_2xb8_ffhq",
    "glean_x16_2xb8_cat",
    "glean_x16_2xb8_ffhq",
    "glean_x8-fp16_2xb8_cat",
    "glean_x8_2xb8_cat",
]


def build(model: dict) -> torch.nn.Module:
    from mmagic.registry import MODELS

    with DefaultScope.overwrite_default_scope("mmagic"), torch.device("meta"):
        return MODELS.build(model)


@pytest.mark.parametrize("name", MMAGIC_CONFIGS)
def test_mmagics_own_configs_build_with_our_networks(mmagic_models, name, tmp_path):
    import mmagic

    folder = Path(mmagic.__file__).parent / ".mim" / "configs" / "glean"
    assert {path.stem for path in folder.glob("*.py")} == set(MMAGIC_CONFIGS)
    user = tmp_path / "user.py"
    user.write_text(f"_base_ = '{folder / name}.py'\ncustom_imports = dict(imports=['glean_ext.plugin'])\n")
    cfg = Config.fromfile(user)
    model = build(cfg.model)
    for part in model.generator, model.discriminator, model.perceptual_loss:
        assert type(part).__module__.startswith("glean_ext."), type(part)
    assert model.generator.init_cfg["prefix"] == "generator_ema"
    assert model.generator.fp16_enabled == model.discriminator.fp16_enabled == ("fp16" in name)


def test_the_papers_schedule():
    cfg = Config.fromfile(CONFIGS / "glean_x16_ffhq.py", import_custom_modules=False)
    assert cfg.param_scheduler.T_max == cfg.train_cfg.max_iters == 300_000
    assert cfg.param_scheduler.eta_min == 1e-7
    for name in "generator", "discriminator":
        assert cfg.optim_wrapper[name].optimizer == {"type": "Adam", "lr": 1e-4, "betas": (0.9, 0.99), "fused": True}
    amp = Config.fromfile(CONFIGS / "glean_x16_ffhq_amp.py", import_custom_modules=False)
    assert amp.optim_wrapper.generator.type == "MixedPrecisionOptimWrapper"
    assert amp.optim_wrapper.generator.optimizer.lr == 1e-4
    assert amp.model == cfg.model


def test_other_names_of_mmagic_are_untouched(mmagic_models):
    from mmagic.registry import MODELS

    for name in "SRGAN", "StyleGAN2Discriminator", "StyleGANv2Generator", "RRDBNet", "MSELoss", "GANLoss":
        assert MODELS.get(name).__module__.startswith("mmagic."), name


def test_plugin_is_the_only_one_that_registers():
    import glean_ext

    for path in Path(glean_ext.__file__).parent.rglob("*.py"):
        assert path.name == "plugin.py" or not re.search(r"^@?[A-Z_]+\.register_module", path.read_text(), re.M), path
