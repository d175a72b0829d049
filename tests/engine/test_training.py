"""Training through the real runner: what a step does, the frozen bank, mixed precision, checkpoints."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from support.runners import (
    NO_VALIDATION,
    Recorder,
    in_signed_range,
    noise,
    train,
)

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.checkpoints import read, save, with_prefix
from glean_ext.config import load_config
from glean_ext.engine import runner as runners
from glean_ext.engine.config_changes import use_mixed_precision
from glean_ext.errors import InputError
from glean_ext.models.perceptual_loss import PerceptualLoss

pytest_plugins = ["support.runners"]
pytestmark = pytest.mark.usefixtures("fast", "hooks", "clean_mmengine")


# ---------------------------------------------------------------- what a step does


def test_losses_of_the_first_step_by_hand(home):
    train(home, "train_cfg.max_iters=1")
    (model,), (batch,), (losses,) = Recorder.last.models, Recorder.last.batches, Recorder.last.losses
    lq = in_signed_range(batch["inputs"])
    gt = in_signed_range([sample.gt_img for sample in batch["data_samples"]])
    assert lq.shape == (2, 3, 8, 8) and gt.shape == (2, 3, 16, 16)
    with torch.no_grad():
        restored = model.generator(lq)
        on_restored, on_gt = model.discriminator(restored), model.discriminator(gt)
        expected = {
            "loss_pix": (restored - gt).square().mean(),
            "loss_gan": 1e-2 * -torch.log(torch.sigmoid(on_restored)).mean(),
            "loss_d_real": -torch.log(torch.sigmoid(on_gt)).mean(),
            "loss_d_fake": -torch.log(1 - torch.sigmoid(on_restored)).mean(),
        }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-5, atol=0, msg=lambda m, name=name: f"{name}: {m}")
    seeds = {Path(sample.gt_path).stem: sample for sample in batch["data_samples"]}
    for seed, sample in seeds.items():
        image = sample.gt_img.permute(1, 2, 0).numpy()
        assert any(np.array_equal(image, side) for side in (noise(int(seed)), noise(int(seed))[:, ::-1]))


def test_perceptual_loss_takes_part(home):
    text = "dict(type='PerceptualLoss', layer_weights={'3': 1.0}, vgg_type='vgg16', perceptual_weight=1e-2,"
    text += " style_weight=0, input_range=(-1, 1), criterion='mse', pretrained=None)"
    config = home / "config.py"
    config.write_text(config.read_text() + f"model['perceptual_loss'] = dict(_delete_=True, **{text})\n")
    runner = train(home, "train_cfg.max_iters=1")
    model, batch, losses = Recorder.last.models[0], Recorder.last.batches[0], Recorder.last.losses[0]
    reference = PerceptualLoss({"3": 1.0}, vgg_type="vgg16", pretrained=None, criterion="mse", input_range=(-1, 1))
    with torch.no_grad():
        restored = model.generator(in_signed_range(batch["inputs"]))
        gt = in_signed_range([sample.gt_img for sample in batch["data_samples"]])
        torch.testing.assert_close(losses["loss_perceptual"], 1e-2 * reference(restored, gt)[0], rtol=1e-4, atol=0)
    assert "loss_style" not in losses
    after = runner.model.perceptual_loss.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in model.perceptual_loss.state_dict().items())


def test_training_moves_all_that_is_trained_and_nothing_of_the_bank(home):
    runner = train(home, "optim_wrapper.generator.optimizer.lr=0.01", "optim_wrapper.discriminator.optimizer.lr=0.01")
    assert Recorder.last.iterations == [0, 1, 2]
    start, end = Recorder.last.models[0], runner.model
    for part in "generator", "discriminator":
        before, after = (dict(getattr(model, part).named_parameters()) for model in (start, end))
        for name, parameter in after.items():
            frozen = part == "generator" and name.startswith(("generator.", "fusion_skip."))
            assert torch.equal(parameter, before[name]) == frozen, f"{part}.{name}"
    bank = with_prefix(read(home / "bank.pth"), "generator_ema", "bank")
    state = end.generator.generator.state_dict()
    assert state.keys() == bank.keys() and len(bank) > 40
    for name, tensor in bank.items():
        assert torch.equal(state[name], tensor), name


def test_without_discriminator(home):
    options = "model.discriminator=None", "model.gan_loss=None", "optim_wrapper.generator.optimizer.lr=0.001"
    runner = train(home, *options)
    assert [list(losses) for losses in Recorder.last.losses] == [["loss_pix"]] * 3
    assert list(runner.optim_wrapper.keys()) == ["generator"]
    pix = [losses["loss_pix"].item() for losses in Recorder.last.losses]
    assert pix[2] < pix[0]


def test_the_callers_config_stays_as_it_is(home):
    cfg = load_config(home / "config.py", [*NO_VALIDATION, "model.discriminator=None", "model.gan_loss=None"])
    cfg.work_dir, cfg.train_cfg.max_iters = "work", 1
    before = copy.deepcopy(cfg._cfg_dict)
    runner = runners.train(cfg)
    assert cfg._cfg_dict == before
    torch.save(runner.model.generator.state_dict(), "net.pth")
    runners.test(cfg, "net.pth")
    assert cfg._cfg_dict == before


# ---------------------------------------------------------------- the frozen bank


@pytest.mark.parametrize(("interval", "noticed"), [(1, 2), (2, 2), (100, 4)])
def test_a_changed_bank_stops_the_training(home, interval, noticed):
    names = "style_mapping.1.bias", "conv1.conv.weight_orig", "to_rgb1.bias", "injected_noise_2"
    options = f"custom_hooks.0.interval={interval}", "train_cfg.max_iters=4"
    tamper = f"[dict(type='Tamper', iteration=1, names={names[:1]})]"
    config = home / "config.py"
    config.write_text(config.read_text() + f"custom_hooks += {tamper}\n")
    with pytest.raises(RuntimeError) as error:
        train(home, *options)
    assert str(error.value) == (
        f"The latent bank changed during training (iteration {noticed}): style_mapping.1.bias. Something unfroze it; "
        "the bank must stay fixed."
    )
    if interval == 1:
        config.write_text(config.read_text() + f"custom_hooks[-1]['names'] = {names}\n")
        with pytest.raises(RuntimeError, match=r": .*, .*, .* and 1 more\. Something"):
            train(home, *options, work_dir="again")


# ---------------------------------------------------------------- mixed precision


AMP = [f"optim_wrapper.{part}.type=MixedPrecisionOptimWrapper" for part in ("generator", "discriminator")]


STEADY = ["train_dataloader.dataset.pipeline.2.flip_ratio=0"]  # the flip's random state is not resumed


def test_mixed_precision_trains_and_resumes(home):
    schedule = "param_scheduler.T_max=4", "param_scheduler.end=4", "optim_wrapper.generator.clip_grad.max_norm=1.0"
    common = [*AMP, *STEADY, *schedule]
    straight = train(home, *common, "train_cfg.max_iters=4", work_dir="straight")
    assert Recorder.last.dtypes == {torch.bfloat16}
    for losses in Recorder.last.losses:
        assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert {p.dtype for p in straight.model.parameters()} == {torch.float32}

    train(home, *common, "train_cfg.max_iters=2")
    saved = torch.load("work/iter_2.pth")["optimizer"]
    assert {name: state["loss_scaler"] for name, state in saved.items()} == {"generator": {}, "discriminator": {}}
    resumed = train(home, *common, "train_cfg.max_iters=4", resume=True)
    assert Recorder.last.iterations == [2, 3]
    assert resumed.optim_wrapper.get_lr() == straight.optim_wrapper.get_lr()
    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


@pytest.mark.parametrize("fast", [True, False])
def test_automatic_precision_is_bf16_where_the_cpu_computes_in_it(home, monkeypatch, caplog, fast):
    monkeypatch.setattr("glean_ext.networks.precision.cpu_has_bf16", lambda: fast)
    train(home, AMP[0], "optim_wrapper.generator.dtype=auto", "train_cfg.max_iters=1")
    assert Recorder.last.dtypes == {torch.bfloat16 if fast else torch.float32}
    train(home, AMP[0], "train_cfg.max_iters=1", work_dir="asked for")
    assert Recorder.last.dtypes == {torch.bfloat16}
    warned = "bf16 makes training many times slower on this CPU; optim_wrapper.dtype='auto' would take fp32 here."
    assert [r.message for r in caplog.records if r.message.startswith("bf16")] == ([] if fast else [warned])


def test_full_precision_is_the_default(home):
    train(home, "train_cfg.max_iters=1")
    assert Recorder.last.dtypes == {torch.float32}


def test_half_precision_needs_a_gpu(home, monkeypatch):
    monkeypatch.setattr("glean_ext.engine.amp_optim_wrapper.get_device", lambda: "cpu")
    with pytest.raises(InputError) as error:
        train(home, AMP[0], "optim_wrapper.generator.dtype=float16")
    assert str(error.value) == "optim_wrapper.dtype='float16' needs a GPU; on a CPU take dtype='bfloat16'."
    with pytest.raises(InputError) as error:
        train(home, AMP[0], "optim_wrapper.generator.dtype=float8")
    assert str(error.value) == "optim_wrapper.dtype must be one of ['auto', 'bfloat16', 'float16'], but it is 'float8'."


def test_amp_switch():
    adam = {"type": "Adam", "lr": 1e-4}
    cfg = Config({"optim_wrapper": {"generator": {"optimizer": adam}, "constructor": "MultiOptimWrapperConstructor"}})
    for _ in range(2):
        use_mixed_precision(cfg)
        assert cfg.optim_wrapper.generator == {
            "type": "MixedPrecisionOptimWrapper",
            "dtype": "bfloat16",
            "optimizer": adam,
        }
    other = Config({"optim_wrapper": {"generator": {"type": "ApexOptimWrapper", "optimizer": adam}}})
    with pytest.raises(InputError) as error:
        use_mixed_precision(other)
    assert str(error.value) == (
        "optim_wrapper.generator is a ApexOptimWrapper, which has no mixed precision. Remove its type, or train "
        "without amp."
    )
    for empty in {}, {"optim_wrapper": {"type": "OptimWrapper", "optimizer": adam}}:
        with pytest.raises(InputError) as error:
            use_mixed_precision(Config(empty))
        assert str(error.value) == (
            "The config has no optim_wrapper=dict(generator=dict(optimizer=...), ...) for mixed precision. Add it, or "
            "train without amp."
        )


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_that_does_not_fit_is_not_resumed(home):
    train(home, "train_cfg.max_iters=1")
    checkpoint = home / "work/iter_1.pth"

    def fault(*options: str, **kwargs) -> str:
        with pytest.raises(InputError) as error:
            train(home, "train_cfg.max_iters=2", *options, **kwargs)
        return str(error.value)

    message = fault("model.generator.rrdb_channels=12", resume=True)
    assert message.startswith(
        "work/iter_1.pth does not fit GLEANStyleGANv2: 23 have another shape (encoder.0.0.conv_fi"
    )
    message = fault("model.discriminator.max_channels=8", f"load_from={checkpoint}")
    assert message.startswith(f"{checkpoint} does not fit StyleGAN2Discriminator: ")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert fault(resume=True).startswith("work: no checkpoint can be resumed: work/iter_1.pth (truncated or damaged: ")
    assert fault("load_from=no.pth") == "no.pth: there is no such file. Give the path or URL of a checkpoint."


def test_a_start_from_another_trainings_weights(home, caplog, capsys):
    """A checkpoint of a training without discriminator: the generator is taken whole, the rest starts from scratch."""
    first = train(home, "train_cfg.max_iters=1", "model.discriminator=None", "model.gan_loss=None", work_dir="first")
    train(home, "train_cfg.max_iters=1", "load_from=first/iter_1.pth", "randomness.seed=1")
    assert Recorder.last.iterations == [0]
    start = Recorder.last.models[0].generator.state_dict()
    for name, tensor in first.model.generator.state_dict().items():
        assert torch.equal(start[name], tensor), name
    assert "first/iter_1.pth has no discriminator, which keeps its initial weights" in caplog.messages
    assert "do not match exactly" not in capsys.readouterr().out


def test_a_start_from_weights_that_mmengine_cannot_read(home):
    save({"generator.x": torch.zeros(1)}, "a.safetensors")
    with pytest.raises(InputError, match=r"^a\.safetensors is a safetensors file, but training starts from what torch"):
        train(home, "load_from=a.safetensors")


class Wrapped(torch.nn.Module):
    """Keys as of MMSeparateDistributedDataParallel, in one process."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module


def test_checkpoints_have_no_wrappers_in_their_keys(home):
    runner = train(home, "train_cfg.max_iters=1")
    plain = torch.load("work/iter_1.pth")
    torch.save(
        {
            **plain,
            "state_dict": torch.nn.ModuleDict(
                {name: Wrapped(part) for name, part in runner.model.named_children()}
            ).state_dict(),
        },
        "work/iter_1.pth",
    )
    assert "generator.module.encoder.0.0.conv_first.weight" in torch.load("work/iter_1.pth")["state_dict"]
    train(home, "train_cfg.max_iters=2", resume=True)
    start = Recorder.last.models[0].state_dict()
    for name, tensor in plain["state_dict"].items():
        assert torch.equal(start[name], tensor), name
