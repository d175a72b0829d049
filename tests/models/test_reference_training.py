"""Training with references: what reaches the network, and a run by the demo's config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmagic.registry import MODELS
from mmagic.structures import DataSample
from mmengine.registry import DefaultScope
from support.checkpoint_files import fault
from support.networks import TINY
from support.runners import ROOT, clean_mmengine

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from demo.render_people import make_people
from glean_ext.config import load_config
from glean_ext.engine import runner as runners

__all__ = ["clean_mmengine"]


def build(**settings: Any) -> Any:
    generator = {**TINY, "bank_init": "random", "references": True, **settings.pop("generator", {})}
    preprocessor = {"type": "DataPreprocessor", "mean": [127.5] * 3, "std": [127.5] * 3}
    pixel_loss = {"type": "MSELoss", "loss_weight": 1.0}
    model = {"type": "GLEAN", "generator": generator, "pixel_loss": pixel_loss, "data_preprocessor": preprocessor}
    with DefaultScope.overwrite_default_scope("mmagic"):
        return MODELS.build(model | settings)


@pytest.fixture
def given(monkeypatch) -> list:
    """What reaches the networks as references, one entry for each pass."""
    passes: list = []
    from glean_ext.networks import GLEANStyleGANv2

    forward = GLEANStyleGANv2.forward

    def recorded(net, lq, **more):
        passes.append(more.get("references"))
        return forward(net, lq, **more)

    monkeypatch.setattr(GLEANStyleGANv2, "forward", recorded)
    return passes


def test_references_reach_the_network_as_its_images_do(given):
    model = build(reference_dropout=0.0)
    images = torch.randint(0, 256, (2, 3, 3, 16, 16), dtype=torch.uint8)
    samples = [DataSample(ref_img=image) for image in images]
    batch = model.data_preprocessor({"inputs": list(torch.zeros(2, 3, 8, 8)), "data_samples": samples}, training=True)
    for training in True, False:
        model.forward_tensor(batch["inputs"], batch["data_samples"], training=training)
        torch.testing.assert_close(given.pop(), images / 127.5 - 1)
    model.forward_tensor(batch["inputs"], DataSample(), training=True)
    assert given == [None]


@pytest.mark.parametrize(("dropout", "least", "most"), [(0.3, 0.2, 0.4), (1.0, 1.0, 1.0)])
def test_some_batches_of_a_training_go_without(given, dropout, least, most):
    model = build(reference_dropout=dropout).requires_grad_(False)
    samples = DataSample(ref_img=torch.zeros(1, 1, 3, 16, 16))
    for _ in range(200):
        model.forward_tensor(torch.zeros(1, 3, 8, 8), samples, training=True)
    assert least <= sum(references is None for references in given) / 200 <= most
    given.clear()
    for _ in range(20):
        model.forward_tensor(torch.zeros(1, 3, 8, 8), samples)
    assert None not in given, "tests have them always"


def test_what_cannot_be():
    assert (
        fault(lambda: build(reference_dropout=1.5)) == "model.reference_dropout is 1.5, but it is a share from 0 to 1."
    )
    model, samples = build(generator={"references": False}), DataSample(ref_img=torch.zeros(1, 1, 3, 16, 16))
    assert fault(model.forward_tensor, torch.zeros(1, 3, 8, 8), samples).startswith(
        "The images have references, but GLEANStyleGANv2 takes none here. Set references=True of model.generator"
    )


def test_it_trains_by_its_config(tmp_path: Path, clean_mmengine, monkeypatch) -> None:
    """Two iterations on cartoon people, one with references: what they train moves, and they change the result."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    make_people(tmp_path, {"train": 2, "test": 1}, pictures=2)
    options = [f"{name}_dataloader.dataset.data_root={tmp_path}/{part}" for name, part in
               (("train", "train"), ("val", "test"), ("test", "test"))]  # fmt: skip
    options += ["train_dataloader.batch_size=2", "train_cfg.max_iters=2", "train_cfg.val_interval=2"]
    options += ["model.reference_dropout=0", "train_dataloader.dataset.pipeline.1.number=1"]
    cfg = load_config(ROOT / "configs/demo_glean_references_x8.py", options)
    cfg.work_dir, cfg.log_level, cfg.custom_hooks = str(tmp_path / "work"), "ERROR", [{"type": "FrozenBankHook"}]
    runner = runners.train(cfg)
    net = runner.model.generator.eval()
    moved = {name: bool(param.any()) for name, param in net.reference_features.named_parameters()}
    assert moved["code_share"] and moved["to_bank.64.weight"], "which started at zero"
    lq = torch.zeros(1, 3, 8, 8)
    with torch.no_grad():
        assert not torch.equal(net(lq, references=torch.rand(1, 2, 3, 64, 64)), net(lq))
