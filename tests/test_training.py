"""Training and testing through the real runner and tools, with the smallest networks and images there are."""

from __future__ import annotations

import copy
import gc
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, randomize
from mmengine import Config
from mmengine.hooks import Hook
from PIL import Image
from torch import Tensor

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext import cli
from glean_ext.apis import runners
from glean_ext.checkpoints import load_restorer, read, with_prefix
from glean_ext.configs_io import load_config
from glean_ext.errors import InputError
from glean_ext.imresize import imresize
from glean_ext.losses import PerceptualLoss
from glean_ext.networks import GLEANStyleGANv2, StyleGAN2Generator

ROOT = Path(__file__).parents[1]
NETWORK = {k: v for k, v in TINY.items() if k != "type"}
BANK = {k: NETWORK[k] for k in ("out_size", "style_channels", "num_mlps", "channel_multiplier", "max_channels")}
NO_VALIDATION = ["val_cfg=None", "val_dataloader=None", "val_evaluator=None", "default_hooks.checkpoint.save_best=None"]
CONFIG = """
_base_ = [BASES]
model = dict(
    generator=dict(**NETWORK, init_cfg=dict(type='Pretrained', checkpoint='bank.pth', prefix='generator_ema')),
    discriminator=dict(in_size=16, max_channels=16),
    perceptual_loss=None,
)
data = dict(data_root='data', data_prefix=dict(gt='GT'), scale=2)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=data)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=data)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=3, val_interval=100)
default_hooks = dict(checkpoint=dict(interval=100), logger=dict(interval=1))
custom_hooks = [dict(type='FrozenBankHook', interval=1), dict(type='Recorder')]
randomness = dict(seed=0)
"""


class Recorder(Hook):
    """What the runner saw: the model before each step, the batch, and the losses after it."""

    last: Recorder

    def __init__(self) -> None:
        Recorder.last = self
        self.models: list[torch.nn.Module] = []
        self.batches: list[dict] = []
        self.losses: list[dict[str, Tensor]] = []
        self.iterations: list[int] = []
        self.dtypes: set[torch.dtype] = set()

    def before_train(self, runner) -> None:
        body = runner.model.generator.encoder[0][0].body
        body.register_forward_hook(lambda module, inputs, output: self.dtypes.add(output.dtype))

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.models.append(copy.deepcopy(runner.model))
        self.batches.append(copy.deepcopy(data_batch))
        self.iterations.append(runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append(outputs)


class Tamper(Hook):
    """Changes one number of each tensor by its last bit, before an iteration."""

    def __init__(self, iteration: int, names: list[str]) -> None:
        self.iteration, self.names = iteration, names

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.iteration:
            for name in self.names:
                value = runner.model.generator.generator.get_parameter(name).data.view(-1)[:1]
                value.copy_(torch.nextafter(value, torch.tensor(torch.inf)))


@pytest.fixture(scope="module", autouse=True)
def hooks() -> None:
    from mmagic.registry import HOOKS

    for hook in Recorder, Tamper:
        HOOKS.register_module(module=hook, force=True)


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    """Spare what takes most of the time: yapf on the logged config, and mmengine's ``gc.collect`` over all modules."""
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmengine.config.config.FormatCode", lambda text, **_: (text, True))
        yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def clean_mmengine() -> Iterator[None]:
    """Runners leave loggers on this test's stdout and a default scope behind."""
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    managers = MMLogger, MessageHub, Visualizer, DefaultScope
    before = [list(manager._instance_dict) for manager in managers]
    yield
    for manager, names in zip(managers, before, strict=True):
        for name in [name for name in manager._instance_dict if name not in names]:
            for handler in getattr(manager._instance_dict.pop(name), "handlers", []):
                handler.close()


def noise(seed: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def save_gt(folder: Path, sizes: tuple[int, ...] = (16, 16, 16)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, size in enumerate(sizes):
        Image.fromarray(noise(i, size)).save(folder / f"{i}.png")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A working directory with ``config.py``, its bank and three images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "0")
    bases = ", ".join(repr(str(ROOT / f"configs/_base_/{n}.py")) for n in ("runtime", "schedule_300k", "glean", "data"))
    (tmp_path / "config.py").write_text(CONFIG.replace("BASES", bases).replace("NETWORK", repr(NETWORK)))
    bank = randomize(StyleGAN2Generator(**BANK), seed=1).state_dict()
    torch.save({"state_dict": {f"generator_ema.{k}": v for k, v in bank.items()}}, tmp_path / "bank.pth")
    save_gt(tmp_path / "data/GT")
    return tmp_path


def train(home: Path, *options: str, validate: bool = False, work_dir: str = "work", resume: bool = False):
    cfg = load_config(home / "config.py", [*([] if validate else NO_VALIDATION), *options])
    cfg.work_dir, cfg.resume = work_dir, resume
    cfg.experiment_name = f"{home.name}-{work_dir}-{resume}-{len(options)}"
    return runners.train(cfg)


def in_signed_range(images: list[Tensor]) -> Tensor:
    return torch.stack([image.float() / 127.5 - 1 for image in images])


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
    names = "style_mapping.1.bias", "conv1.conv.weight_orig", "to_rgb1.bias", "convs.0.activate.bias"
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
    monkeypatch.setattr("glean_ext.optim.cpu_has_bf16", lambda: fast)
    train(home, AMP[0], "optim_wrapper.generator.dtype=auto", "train_cfg.max_iters=1")
    assert Recorder.last.dtypes == {torch.bfloat16 if fast else torch.float32}
    train(home, AMP[0], "train_cfg.max_iters=1", work_dir="asked for")
    assert Recorder.last.dtypes == {torch.bfloat16}
    warned = "bf16 makes training many times slower on this CPU; optim_wrapper.dtype='auto' would take fp32 here."
    assert [r.message for r in caplog.records if r.message.startswith("bf16")] == ([] if fast else [warned])


def test_full_precision_is_the_default(home):
    train(home, "train_cfg.max_iters=1")
    assert Recorder.last.dtypes == {torch.float32}


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without GPU")
def test_half_precision_needs_a_gpu(home):
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
        runners.use_mixed_precision(cfg)
        assert cfg.optim_wrapper.generator == {
            "type": "MixedPrecisionOptimWrapper",
            "dtype": "bfloat16",
            "optimizer": adam,
        }
    other = Config({"optim_wrapper": {"generator": {"type": "ApexOptimWrapper", "optimizer": adam}}})
    with pytest.raises(InputError) as error:
        runners.use_mixed_precision(other)
    assert str(error.value) == (
        "--amp: optim_wrapper.generator is a ApexOptimWrapper, which has no mixed precision. Remove its type."
    )
    for empty in {}, {"optim_wrapper": {"type": "OptimWrapper", "optimizer": adam}}:
        with pytest.raises(InputError) as error:
            runners.use_mixed_precision(Config(empty))
        assert str(error.value) == (
            "--amp: the config has no optim_wrapper=dict(generator=dict(optimizer=...), ...). Add it."
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


def test_a_start_from_another_trainings_weights(home):
    """A checkpoint from a training without discriminator: the generator is taken whole, the rest starts anew."""
    first = train(home, "train_cfg.max_iters=1", "model.discriminator=None", "model.gan_loss=None", work_dir="first")
    train(home, "train_cfg.max_iters=1", "load_from=first/iter_1.pth", "randomness.seed=1")
    assert Recorder.last.iterations == [0]
    start = Recorder.last.models[0].generator.state_dict()
    for name, tensor in first.model.generator.state_dict().items():
        assert torch.equal(start[name], tensor), name


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


# ---------------------------------------------------------------- the tools


@pytest.fixture
def run(home, monkeypatch, capfd):
    """Run a tool in this process: (exit code, stdout, the lines of stderr that tell an error)."""

    def call(name: str, *arguments: object) -> tuple[int, str, list[str]]:
        spec = importlib.util.spec_from_file_location(f"{name}_tool", ROOT / f"tools/{name}.py")
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.run(tool.main)
        stdout, stderr = capfd.readouterr()
        assert "Traceback" not in stderr
        return caught.value.code, stdout, [line for line in stderr.splitlines() if line.startswith("error: ")]

    return call


@pytest.fixture
def fault(run):
    """Run a tool, expect exit code 2 and exactly one line of error; the line."""

    def call(name: str, *arguments: object) -> str:
        code, _, errors = run(name, *arguments)
        assert (code, len(errors)) == (2, 1)
        return errors[0].removeprefix("error: ")

    return call


def test_train_tool_resumes_where_it_stopped(home, run):
    options = "--cfg-options", "default_hooks.checkpoint.interval=2", *NO_VALIDATION
    code, stdout, errors = run("train", "config.py", *options, "--cfg-options", "train_cfg.max_iters=2")
    assert (code, errors) == (0, [])
    assert Recorder.last.iterations == [0, 1]
    assert Path("work_dirs/config/last_checkpoint").read_text() == str(home / "work_dirs/config/iter_2.pth")
    end = torch.load("work_dirs/config/iter_2.pth")
    code, stdout, errors = run("train", "config.py", "--resume", *options, "--cfg-options", "train_cfg.max_iters=3")
    assert (code, errors) == (0, [])
    assert Recorder.last.iterations == [2]
    start = Recorder.last.models[0].state_dict()
    for name, tensor in end["state_dict"].items():
        assert torch.equal(start[name], tensor), name
    assert "Iter(train) [3/3]" in stdout and "Iter(train) [2/3]" not in stdout
    assert "The latent bank is bit-identical to what training started with." in stdout
    assert Path("work_dirs/config/iter_3.pth").is_file()


def test_train_tool_amp_and_validation(run):
    code, stdout, _ = run("train", "config.py", "--amp", "--work-dir", "w", "--cfg-options", "train_cfg.val_interval=3")
    assert code == 0
    assert Recorder.last.dtypes >= {torch.bfloat16}
    assert "Iter(val) [3/3]    PSNR: " in stdout
    assert len(list(Path("w").glob("best_PSNR_iter_3.pth"))) == 1


NO_SUCH_TYPE = "Correct the type, or name the module that has it in custom_imports."
WHERE = "of the dataset to where the images are."
TRAIN_FAULTS = {
    "model.generator.num_rrdb=2": "config: GLEANStyleGANv2.__init__() got an unexpected keyword argument 'num_rrdb'",
    "model.discriminator.in_sizes=16": (
        "config: StyleGAN2Discriminator.__init__() got an unexpected keyword argument 'in_sizes' (in "
        "StyleGANv2Discriminator)"
    ),
    "model.gan_loss.gan_type=vanila": "config: GAN type vanila is not implemented. (in GANLoss)",
    "model.generator.in_size=10": (
        "config: in_size must be a power of two of at least 8, but it is 10. (in GLEANStyleGANv2)"
    ),
    "model.type=GLEEN": f"config: there is no model 'GLEEN'. {NO_SUCH_TYPE}",
    "model.generator.type=GLEAM": f"config: there is no model 'GLEAM'. {NO_SUCH_TYPE}",
    "train_dataloader.dataset.type=Fol": f"config: there is no dataset 'Fol'. {NO_SUCH_TYPE}",
    "train_dataloader.batchsize=2": (
        "config: DataLoader.__init__() got an unexpected keyword argument 'batchsize' (in dataloader)"
    ),
    "train_dataloader.dataset.data_root=no": (
        f"no/GT: there is no such folder. Set data_root and data_prefix.gt {WHERE}"
    ),
    "train_cfg.max_iter=9": (
        "config: IterBasedTrainLoop.__init__() got an unexpected keyword argument 'max_iter' (in ResumableTrainLoop)"
    ),
    "optim_wrapper.generator.optimizer.lrr=1": "config: Adam.__init__() got an unexpected keyword argument 'lrr'",
    "optim_wrapper.generator.optimizer.type=Adamm": (
        "config: optim_wrapper.generator: there is no optimizer 'Adamm'. Correct the type."
    ),
    "param_scheduler.T_maxx=1": (
        "config: CosineAnnealingParamScheduler.__init__() got an unexpected keyword argument 'T_maxx' (in "
        "CosineAnnealingLR)"
    ),
    "custom_hooks.0.intervall=1": "config: FrozenBankHook.__init__() got an unexpected keyword argument 'intervall'",
    "custom_imports.imports=[no.such]": (
        "config: custom_imports: Failed to import no.such. Correct it, or install what is missing."
    ),
    "modell.type=x": "--cfg-options modell.type=x: the config has no 'modell'. Correct the key.",
    "train_cfg=None": "config: it has no train_cfg. Add it; configs/_base_ has examples.",
    "model.generator.init_cfg.checkpoint=no.pth": (
        "no.pth: there is no such file. Give the path or URL of a checkpoint."
    ),
    "model.generator.init_cfg.prefix=ema": (
        "bank.pth has no keys with prefix 'ema'; its prefixes are generator_ema. Set one of them."
    ),
    "model.generator.init_cfg=None": (
        "GLEANStyleGANv2 has no pre-trained bank to train with. Set generator.init_cfg=dict(type='Pretrained', "
        "checkpoint='<StyleGAN2 file>', prefix='generator_ema'), or generator.bank_init='random' if a random bank is "
        "what you want."
    ),
    "model.gan_loss=None": (
        "model.discriminator and model.gan_loss go together. Set both, or both to None to train without adversarial "
        "loss."
    ),
    "model.discriminator.in_size=32": (
        "model.discriminator.in_size is 32, but model.generator.out_size is 16. Make them equal."
    ),
    "load_from=no.pth": "no.pth: there is no such file. Give the path or URL of a checkpoint.",
}


@pytest.mark.parametrize(("option", "message"), TRAIN_FAULTS.items(), ids=TRAIN_FAULTS)
def test_train_tool_tells_mistakes_in_one_line(fault, option, message):
    told = fault("train", "config.py", "--cfg-options", *NO_VALIDATION, option)
    assert told == message


def test_train_tool_tells_of_no_config(fault):
    assert fault("train", "no.py") == "no.py: there is no such file. Give the path of a config."
    assert fault("train", "config.py", "--resumee") == "unrecognized arguments: --resumee. See train.py --help."
    assert fault("train") == "the following arguments are required: config. See train.py --help."


def test_an_optimizer_for_each_network(fault, home):
    single = "optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4))\n"
    (home / "config.py").write_text((home / "config.py").read_text() + single)
    assert fault("train", "config.py", "--cfg-options", *NO_VALIDATION) == (
        "optim_wrapper has no 'generator'. Set optim_wrapper=dict(generator=dict(optimizer=...), ..., "
        "constructor='MultiOptimWrapperConstructor')."
    )


@pytest.mark.parametrize("tool", ["train", "test"])
def test_images_that_do_not_fit(fault, home, tool):
    torch.save(GLEANStyleGANv2(**NETWORK).state_dict(), "net.pth")
    start = [tool, "config.py", *(["net.pth"] if tool == "test" else [])]
    start += ["--cfg-options", f"{tool}_dataloader.batch_size=2", *(NO_VALIDATION if tool == "train" else [])]

    save_gt(home / "data/GT", (32, 32, 32))
    assert fault(*start) == (
        "This GLEAN takes images of 8x8 pixels, but got a tensor of shape (2, 3, 16, 16). Resize the image to 8x8, or "
        "take a model of that size."
    )
    save_gt(home / "data/GT", (16, 16, 15) if tool == "test" else (15, 15, 15))
    message = fault(*start)
    assert message.startswith(str(Path("data/GT"))) and message.endswith(
        ".png has 15x15 pixels, which 2 does not divide. Crop or resize the ground truth, or change the dataset's "
        "scale."
    )
    save_gt(home / "data/GT")
    for path in (home / "data/GT").iterdir():
        path.write_text("text named png")
    # From a data worker errors come with its traceback in the text.
    for workers in 0, 1:
        message = fault(*start, f"{tool}_dataloader.num_workers={workers}")
        assert message.startswith("data/GT/") and ".png is no image, or of a format that is not read (" in message


@pytest.mark.parametrize("tool", ["train", "test"])
def test_batches_of_several_sizes(fault, home, tool):
    torch.save(GLEANStyleGANv2(**NETWORK).state_dict(), "net.pth")
    save_gt(home / "data/GT", (16, 8))
    start = ["train", "config.py"] if tool == "train" else ["test", "config.py", "net.pth"]
    options = f"{tool}_dataloader.batch_size=2", *(NO_VALIDATION if tool == "train" else [])
    (home / "data/GT/2.png").unlink()
    message = fault(*start, "--cfg-options", *options)
    assert message.endswith("Crop or resize all images to one size.") and "gives a low-resolution image of " in message
    if tool == "test":
        assert message.startswith(
            "data/GT/1.png gives a low-resolution image of 4x4 pixels, another of the batch has 8x8. "
        )


# ---------------------------------------------------------------- metrics


def ssim_by_hand(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al., IEEE TIP 2004: Gaussian window of 11 and sigma 1.5, of one channel in [0, 255], valid part."""
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = torch.from_numpy(np.outer(taps, taps) / taps.sum() ** 2)[None, None]

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(x[None, None], window)[0, 0]

    x, y = (torch.from_numpy(v.astype(np.float64)) for v in (a, b))
    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return ((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean().item()


def metrics_by_hand(net: torch.nn.Module, count: int = 3) -> dict[str, float]:
    values = []
    for seed in range(count):
        gt = noise(seed)
        gt[..., 0] //= 4  # little red: swapping red and blue would show
        lq = imresize(gt, scale=0.5).astype(np.float32) / 127.5 - 1
        with torch.no_grad():
            restored = net(torch.from_numpy(lq).permute(2, 0, 1)[None])[0]
        restored = ((restored + 1) * 127.5).clamp(0, 255).permute(1, 2, 0).numpy()  # not rounded, as MMagic does
        difference = restored - gt.astype(np.float32)
        values.append(
            (
                20 * np.log10(255 / np.sqrt((difference**2).mean())),
                np.mean([ssim_by_hand(restored[..., c], gt[..., c]) for c in range(3)]),
                np.abs(difference).mean() / 255,
            )
        )
    return dict(zip(("PSNR", "SSIM", "MAE"), np.mean(values, 0).tolist(), strict=True))


@pytest.fixture
def net(home) -> GLEANStyleGANv2:
    """A network that likes blue, and a little red in the ground truth."""
    for path in (home / "data/GT").iterdir():
        image = np.array(Image.open(path))
        image[..., 0] //= 4
        Image.fromarray(image).save(path)
    net = randomize(GLEANStyleGANv2(**NETWORK))
    with torch.no_grad():
        list(net.decoder.parameters())[-1].copy_(torch.tensor([-1.0, 0.0, 0.8]))
    return net


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("paired", [False, True])
def test_metrics_are_those_computed_by_hand(home, run, net, batch_size, paired):
    torch.save({"state_dict": {f"generator.{k}": v for k, v in net.state_dict().items()}}, "iter_7.pth")
    options = [f"test_dataloader.batch_size={batch_size}"]
    if paired:
        options.append("test_dataloader.dataset.data_prefix.img=LR")
        (home / "data/LR").mkdir()
        for path in (home / "data/GT").iterdir():
            Image.fromarray(imresize(np.array(Image.open(path)), scale=0.5)).save(home / "data/LR" / path.name)
    code, stdout, errors = run("test", "config.py", "iter_7.pth", "--json", "new/m.json", "--cfg-options", *options)
    assert (code, errors) == (0, [])
    report = json.loads(Path("new/m.json").read_text())
    expected = metrics_by_hand(net)
    assert report == {"config": "config.py", "checkpoint": "iter_7.pth"} | {
        name: pytest.approx(value, rel=1e-4) for name, value in expected.items()
    }
    assert stdout.splitlines()[-3:] == [f"{name:8} {report[name]:.4f}" for name in ("PSNR", "SSIM", "MAE")]
    swapped = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in list(swapped.decoder.parameters())[-2:]:
            parameter.copy_(parameter.flip(0))
    assert abs(metrics_by_hand(swapped)["PSNR"] - expected["PSNR"]) > 0.1, "red and blue are too alike for this test"


def test_the_checkpoint_that_is_given_is_the_one_tested(home, net):
    """Whatever ``load_from`` and ``resume`` of the config say."""
    train(home, "train_cfg.max_iters=1", "optim_wrapper.generator.optimizer.lr=0.1")
    torch.save(net.state_dict(), "net.pth")
    cfg = load_config(home / "config.py", ["load_from=work/iter_1.pth", "resume=True"])
    cfg.work_dir = "work"
    assert runners.test(cfg, "net.pth")["PSNR"] == pytest.approx(metrics_by_hand(net)["PSNR"], rel=1e-4)


def test_test_tool_tells_mistakes_in_one_line(home, fault):
    def told(checkpoint: str, *options: str) -> str:
        message = fault("test", "config.py", checkpoint, "--json", "m.json", "--cfg-options", "launcher=none", *options)
        assert not Path("m.json").exists()
        return message

    torch.save(GLEANStyleGANv2(**NETWORK | {"rrdb_channels": 12}).state_dict(), "wide.pth")
    torch.save(GLEANStyleGANv2(**NETWORK).state_dict(), "net.pth")
    assert told("no.pth") == "no.pth: there is no such file. Give the path or URL of a checkpoint."
    assert told("wide.pth").startswith(
        "wide.pth does not fit GLEANStyleGANv2: 23 have another shape (encoder.0.0.conv_f"
    )
    assert told("net.pth", "test_dataloader=None") == (
        "config: it has no test_dataloader. Add it; configs/_base_ has examples."
    )
    assert told("net.pth", "test_dataloader.dataset.data_prefix.gt=no") == (
        f"data/no: there is no such folder. Set data_root and data_prefix.gt {WHERE}"
    )
    assert told("net.pth", "test_evaluator.0.type=PNSR") == f"config: there is no metric 'PNSR'. {NO_SUCH_TYPE}"
    assert told("net.pth", "test_evaluator.0.crop=1") == (
        "config: PSNR.__init__() got an unexpected keyword argument 'crop'"
    )


def test_modules_of_the_user_are_imported(home, monkeypatch):
    (home / "my_net.py").write_text(
        "from mmagic.registry import MODELS\n"
        "from glean_ext.networks import GLEANStyleGANv2\n"
        "@MODELS.register_module(force=True)\n"
        "class MyNet(GLEANStyleGANv2): pass\n"
    )
    monkeypatch.syspath_prepend(str(home))
    options = "custom_imports.imports=[glean_ext.plugin,my_net]", "model.generator.type=MyNet", "train_cfg.max_iters=1"
    assert type(train(home, *options).model.generator).__name__ == "MyNet"


# ---------------------------------------------------------------- the real thing


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([*map(str, arguments)], env=env, capture_output=True, text=True, timeout=600)


def without_recorder(home: Path) -> None:
    """Other processes do not have it."""
    config = home / "config.py"
    config.write_text(config.read_text() + "custom_hooks.pop()\n")


def test_processes(home):
    without_recorder(home)
    done = process(sys.executable, ROOT / "tools/train.py", "config.py", "--cfg-options", "train_cfg.max_iters=1")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "error" not in done.stderr
    load_restorer(GLEANStyleGANv2(**NETWORK), "work_dirs/config/iter_1.pth")
    bad = process(sys.executable, ROOT / "tools/test.py", "config.py", "no.pth", "--json", "m.json")
    assert bad.returncode == 2 and "Traceback" not in bad.stderr and not Path("m.json").exists()
    assert [line for line in bad.stderr.splitlines() if line.startswith("error: ")] == [
        "error: no.pth: there is no such file. Give the path or URL of a checkpoint."
    ]


@pytest.mark.parametrize(
    ("script", "usage"),
    [
        ("dist_train.sh", "usage: bash tools/dist_train.sh CONFIG GPUS [options of train.py]\n"),
        ("dist_test.sh", "usage: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]\n"),
    ],
)
def test_usage_of_the_shell_scripts(script, usage):
    done = process("bash", ROOT / "tools" / script, "config.py")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", usage)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without GPU")
def test_two_processes_train_resume_and_test(home):
    """DDP with ``find_unused_parameters=False``; its checkpoint is one that a single process reads, and resumes."""
    without_recorder(home)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def train_two(iterations: int, *more: str) -> dict[str, Tensor]:
        options = "--cfg-options", "train_dataloader.batch_size=1", f"train_cfg.max_iters={iterations}", *NO_VALIDATION
        script = ROOT / "tools/dist_train.sh"
        done = process("bash", script, "config.py", 2, *more, *options, MASTER_PORT=port)
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"Iter(train) [{iterations}/{iterations}]" in done.stdout and "bit-identical" in done.stdout
        assert "do not match exactly" not in done.stdout
        net = GLEANStyleGANv2(**NETWORK)
        load_restorer(net, f"work_dirs/config/iter_{iterations}.pth")
        state = torch.load(f"work_dirs/config/iter_{iterations}.pth")["state_dict"]
        assert not any("module" in key for key in state)
        return state

    first, second = train_two(3), train_two(4, "--resume")
    steps = {name: (second[name] - first[name]).abs().max().item() for name in first}
    assert 0 < max(steps.values()) < 2e-4  # one step of Adam with lr=1e-4
    checkpoint = "work_dirs/config/iter_4.pth"
    done = process(
        "bash", ROOT / "tools/dist_test.sh", "config.py", checkpoint, 2, "--json", "two.json", MASTER_PORT=port
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(Path("two.json").read_text())["PSNR"] > 5
