"""Training banks with MMagic's trainer: the configs, style mixing, adaptive augmentation, FID on the way."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from PIL import Image
from support.fake_gpu import load_to_fake_gpu
from support.networks import randomize
from support.training import NETWORK, ROOT, small_config

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext import checkpoints
from glean_ext.config import load_config
from glean_ext.engine import runner as runners
from glean_ext.engine.bank_samples import sample_sheet
from glean_ext.engine.hooks.adaptive_augmentation_hook import AdaptiveAugmentationHook
from glean_ext.errors import InputError
from glean_ext.metrics.fid import InceptionFeatures, frechet_distance
from glean_ext.models.losses import r1_penalty
from glean_ext.models.stylegan2_trainer_bank import TrainableBank, mixed_codes
from glean_ext.networks import GLEANStyleGANv2, StyleGAN2Generator
from glean_ext.networks.augment import Augmentation
from glean_ext.utils.image_io import read_rgb

CONFIG = small_config("train_cfg = dict(max_iters=1)", bank="bank_init='random'", validate=False)


pytestmark = pytest.mark.usefixtures("fast")


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


@pytest.mark.parametrize(("name", "parameters"), [("bank_256", 30.0), ("bank_512", 30.3), ("bank_1024", 30.4)])
def test_banks_are_of_configuration_f(mmagic_models, name, parameters):
    """The sizes of the published banks, in millions; no memory is taken."""
    from mmagic.registry import MODELS

    cfg = load_config(ROOT / f"configs/{name}.py")
    with torch.device("meta"):
        generator, discriminator = MODELS.build(cfg.model.generator), MODELS.build(cfg.model.discriminator)
    size = int(name.split("_")[-1])
    assert generator.out_size == discriminator.padding.side == size
    assert cfg.randomness.diff_rank_seed, "each process draws latents of its own"
    assert sum(p.numel() for p in generator.parameters()) / 1e6 == pytest.approx(parameters, abs=0.05)


@pytest.mark.parametrize("name", ["bank_256", "bank_demo_64"])
def test_a_bank_trains_and_glean_uses_it_by_path(home, name):
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
    bank = runner.model.generator_ema.module
    assert bank.training, "as before the picture"
    last = np.asarray(Image.open(max(samples, key=lambda path: int(path.stem.split("_")[1]))))
    np.testing.assert_array_equal(last, np.asarray(sample_sheet(bank.eval(), rows=4, columns=8)))
    assert not np.array_equal(last, np.asarray(sample_sheet(runner.model.generator.eval(), rows=4, columns=8)))


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


def bank_trainer_in_mixed_precision(monkeypatch, net: str):
    """A bank's trainer whose ``net`` has its switch on; the set receives the types that its modules compute in."""
    from mmagic.registry import MODELS

    monkeypatch.setattr("glean_ext.networks.precision.cpu_has_bf16", lambda: True)  # so that the switch does switch
    cfg = tiny_bank_config("bank_256").model
    cfg[net].fp16_enabled = True
    model = MODELS.get(cfg.type)(
        MODELS.build(cfg.generator), MODELS.build(cfg.discriminator), loss_config=cfg.loss_config
    )
    dtypes: set[torch.dtype] = set()
    for module in getattr(model, net).modules():
        if not any(module.children()):
            module.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    MessageHub.get_current_instance().update_info("iter", 0)
    return model, dtypes


@pytest.mark.parametrize("around", [None, torch.float16])
def test_r1_of_banks_is_computed_in_fp32(monkeypatch, around):
    model, dtypes = bank_trainer_in_mixed_precision(monkeypatch, "discriminator")
    randomize(model.discriminator)
    gt = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.autocast("cpu", around or torch.bfloat16, enabled=around is not None):
        _, logged = model.disc_loss(torch.zeros(2, 1), torch.zeros(2, 1), gt)
    assert dtypes == {torch.float32} and model.discriminator.fp16_enabled
    model.discriminator.fp16_enabled = False
    image = gt.clone().requires_grad_()
    assert logged["loss_r1_gp"].item() == pytest.approx(160 * r1_penalty(model.discriminator(image), image).item())


@pytest.mark.parametrize("around", [None, torch.float16])
def test_path_lengths_of_banks_are_computed_in_fp32(monkeypatch, around):
    model, dtypes = bank_trainer_in_mixed_precision(monkeypatch, "generator")
    torch.manual_seed(0)
    with torch.autocast("cpu", around or torch.bfloat16, enabled=around is not None):
        _, logged = model.gen_loss(torch.zeros(2, 1), 2)
    assert dtypes == {torch.float32} and model.generator.fp16_enabled
    model.generator.fp16_enabled, model.mean_path_length = False, torch.tensor(0.0)
    torch.manual_seed(0)
    _, in_fp32 = model.gen_loss(torch.zeros(2, 1), 2)
    assert logged["loss_path_regular"].item() == pytest.approx(in_fp32["loss_path_regular"].item())


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


# ---------------------------------------------------------------- adaptive augmentation


class Probability(Hook):
    """Writes down the augmentation's probability after each iteration, last of all hooks."""

    priority = "LOWEST"
    seen: list[float]

    def before_train(self, runner) -> None:
        Probability.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        Probability.seen.append(runner.model.discriminator.augmentation.p)


def augmented_config(iterations: int, work_dir: str = "bank", resume: bool = False, **augment: float):
    cfg = tiny_bank_config("bank_256")
    cfg.model.discriminator.augment = augment
    cfg.train_cfg.max_iters = iterations
    cfg.default_hooks.checkpoint.interval, cfg.default_hooks.logger.interval = 2, 1
    cfg.log_processor.window_size = 1
    cfg.randomness = {"seed": 0}
    cfg.custom_hooks = []
    cfg.work_dir, cfg.resume, cfg.experiment_name = work_dir, resume, f"{Path.cwd().name}-{work_dir}-{iterations}"
    return cfg


@pytest.mark.parametrize(("target", "steps"), [(-2.0, 1), (2.0, 0)])  # no sign is below -1 or above 1
def test_the_probability_moves_in_training(home, target, steps):
    runner = runners.train(augmented_config(9, target=target, ramp_images=100), hooks=[Probability()])
    assert Probability.seen == pytest.approx([0, 0, 0, *[0.16 * steps] * 4, *[0.32 * steps] * 2])  # 4 iterations of 4
    logged = runner.message_hub.log_scalars["train/augment_p"].data[0]
    assert logged.tolist() == pytest.approx(Probability.seen)
    assert -1 <= runner.message_hub.get_scalar("train/real_sign").current() <= 1
    (scalars,) = Path("bank").glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert [line["augment_p"] for line in lines] == pytest.approx(Probability.seen)


def test_augmented_training_is_resumed_bit_for_bit(home, monkeypatch):
    augment = {"target": -2.0, "ramp_images": 100}
    straight = runners.train(augmented_config(8, "straight", **augment))
    runners.train(augmented_config(6, "halves", **augment))
    load_to_fake_gpu(monkeypatch)
    resumed = runners.train(augmented_config(8, "halves", resume=True, **augment))
    assert resumed.model.discriminator.augmentation.p == straight.model.discriminator.augmentation.p == 0.32
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    saved = torch.load("straight/iter_8.pth", weights_only=True)["state_dict"]
    assert saved.keys() == straight.model.state_dict().keys(), "the average's 'module' is no wrapper"
    plain = checkpoints.read("straight/iter_8.pth")
    assert not [key for key in plain if "augment" in key], "GLEAN's discriminator takes its weights as they are"


def test_augmentation_is_for_banks(home):
    cfg = load_config("config.py")
    cfg.model.discriminator.augment = {}
    cfg.work_dir = "work"
    with pytest.raises(InputError, match=r"model.discriminator.augment is for the training of banks. Remove it."):
        runners.train(cfg)


# ---------------------------------------------------------------- FID


def watched_config(inception_file: Path, **fid: object):
    cfg = augmented_config(2)
    cfg.train_dataloader.dataset.pipeline[1].flip_ratio = 0.0
    cfg.custom_hooks = [{"type": "BankFIDHook", "pretrained": str(inception_file), **fid}]
    return cfg


def test_fid_on_the_way(home, inception_file):
    """Of the averaged bank, against the training images, by torch-fidelity's features; training does not notice it."""
    for i in 2, 3, 4:
        Path(f"data/GT/{i}.png").unlink()
    runner = runners.train(watched_config(inception_file, images=3, batch_size=2))
    features, bank = InceptionFeatures(str(inception_file)), runner.model.generator_ema.module
    assert bank.training
    with torch.no_grad():
        drawn = [bank.eval()(torch.randn(1, 16, generator=torch.Generator().manual_seed(i))) for i in range(3)]
        drawn = features(((torch.cat(drawn).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
        real = [torch.from_numpy(read_rgb(path)).permute(2, 0, 1) for path in Path("data/GT").iterdir()]
        expected = frechet_distance(drawn, features(torch.stack(real)))
    (scalars,) = Path("bank").glob("*/vis_data/scalars.json")
    (value,) = [line["FID"] for line in map(json.loads, scalars.read_text().splitlines()) if "FID" in line]
    assert value == pytest.approx(expected, rel=1e-4) and value > 1e-3

    cfg = watched_config(inception_file)
    cfg.custom_hooks, cfg.work_dir, cfg.experiment_name = [], "plain", f"{home.name}-plain"
    runners.train(cfg)
    ends = [torch.load(f"{work}/iter_2.pth", weights_only=True) for work in ("bank", "plain")]
    for name, value in ends[0]["state_dict"].items():
        assert torch.equal(value, ends[1]["state_dict"][name]), name
    assert torch.equal(ends[0]["random_states"]["torch"], ends[1]["random_states"]["torch"])


def test_fid_tells_what_it_needs_before_training(home, inception_file):
    for fid, message in (
        ({"pretrained": None}, "FID needs Inception's weights. Set pretrained='torch-fidelity://inception'"),
        ({"pretrained": "no.pth"}, "no.pth: there is no such file"),
        ({"images": 1}, "BankFIDHook.images is 1, but FID needs at least 2"),
    ):
        with pytest.raises(InputError, match=message):
            runners.train(watched_config(inception_file, **fid))


def test_overfitting_is_measured_without_waiting_for_a_gpu():
    """The signs of the logits are added up where the logits are; on the meta device nothing can be read back."""
    hook = AdaptiveAugmentationHook(interval=1000)
    hook._augmentation = Augmentation()
    scalars: list[str] = []
    hub = SimpleNamespace(
        get_info=lambda name: torch.ones(4, 1, device="meta"), update_scalar=lambda name, _: scalars.append(name)
    )
    for iteration in range(2):
        hook.after_train_iter(SimpleNamespace(message_hub=hub, iter=iteration), iteration)
    assert hook._signs.device.type == "meta" and scalars == ["train/augment_p"] * 2
