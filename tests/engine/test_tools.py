"""tools/train.py and tools/test.py: what they do, each mistake in one line, the metrics by hand."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from support.networks import randomize
from support.runners import NETWORK, NO_VALIDATION, ROOT, Recorder, noise, save_gt, train
from support.training import free_port, process
from torch import Tensor

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.checkpoints import load_network_weights
from glean_ext.config import load_config
from glean_ext.engine import runner as runners
from glean_ext.networks import GLEANStyleGANv2
from glean_ext.utils.imresize import imresize

pytest_plugins = ["support.runners"]
pytestmark = pytest.mark.usefixtures("fast", "hooks", "clean_mmengine")


# ---------------------------------------------------------------- the tools


def test_train_tool_resumes_where_it_stopped(home, run):
    options = "--cfg-options", "default_hooks.checkpoint.interval=2", *NO_VALIDATION
    code, stdout, errors = run("train", "config.py", *options, "--cfg-options", "train_cfg.max_iters=2")
    assert (code, errors) == (0, [])
    assert Recorder.last.iterations == [0, 1]
    assert Path("work_dirs/config/last_checkpoint").read_text() == str(home / "work_dirs/config/iter_2.pth")
    (log,) = Path("work_dirs/config").glob("*/*.log")
    assert f"The config, the environment and the list of hooks are in {log.absolute()}." in stdout
    for long in "System environment:", "max_keep_ckpts", "Hooks will be executed", "Iter(train) [2/2]", "SyncBatchNorm":
        assert long in log.read_text() and long not in stdout
    assert "3 images to train; iterations 1 to 2, 2 images in each" in stdout
    assert "; bank: frozen, from bank.pth; on " in stdout
    assert len(stdout.splitlines()) < 10
    end = torch.load("work_dirs/config/iter_2.pth")
    code, stdout, errors = run("train", "config.py", "--resume", *options, "--cfg-options", "train_cfg.max_iters=3")
    assert (code, errors) == (0, [])
    assert Recorder.last.iterations == [2]
    start = Recorder.last.models[0].state_dict()
    for name, tensor in end["state_dict"].items():
        assert torch.equal(start[name], tensor), name
    assert "iterations 3 to 3" in stdout and "Saving checkpoint at 3 iterations" in stdout
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
    "model.generator.num_rrdb=2": (
        "model.generator (GLEANStyleGANv2): there is no argument 'num_rrdb'. Did you mean num_rrdbs?"
    ),
    "model.discriminator.in_sizes=16": (
        "config: StyleGAN2Discriminator.__init__() got an unexpected keyword argument 'in_sizes' (in "
        "StyleGANv2Discriminator)"
    ),
    "model.gan_loss.gan_type=vanila": (
        "config: model.gan_loss.gan_type is 'vanila', but it must be one of vanilla, lsgan, smgan, wgan, hinge, l1. "
        "Correct it."
    ),
    "model.generator.in_size=10": (
        "model.generator (GLEANStyleGANv2): in_size must be a power of two of at least 4, but it is 10."
    ),
    "model.type=GLEEN": f"config: there is no model 'GLEEN'. {NO_SUCH_TYPE}",
    "model.generator.type=GLEAM": f"config: there is no model 'GLEAM'. {NO_SUCH_TYPE}",
    "train_dataloader.dataset.type=Fol": f"config: there is no dataset 'Fol'. {NO_SUCH_TYPE}",
    "train_dataloader.batchsize=2": (
        "train_dataloader.batchsize: dataloaders have no such setting. Correct it, or leave it out."
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
        "config: custom_imports: there is no module 'no'. Correct it, or install what is missing."
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
    found = fault("train", "config.py", "--cfg-options", *NO_VALIDATION, option)
    found = re.sub(r"\. Did you mean '\w+'\?", "", found)  # Python 3.13 adds it
    assert found == message


def test_train_tool_tells_of_no_config(fault):
    assert fault("train", "no.py") == "no.py: there is no such file. Give the path of a config."
    assert fault("train", "config.py", "--resumee") == (
        "unrecognized arguments: --resumee. Did you mean --resume? See train.py --help."
    )
    assert fault("train") == "the following arguments are required: config. See train.py --help."


def test_an_optimizer_for_each_network(fault, home):
    single = "optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4))\n"
    (home / "config.py").write_text((home / "config.py").read_text() + single)
    assert fault("train", "config.py", "--cfg-options", *NO_VALIDATION) == (
        "optim_wrapper has no 'generator'. Set optim_wrapper=dict(generator=dict(optimizer=...), ..., "
        "constructor='MultiOptimWrapperConstructor')."
    )


@pytest.mark.parametrize("tool", ["train", pytest.param("test", marks=pytest.mark.slow)])
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
    def message_of(checkpoint: str, *options: str) -> str:
        message = fault("test", "config.py", checkpoint, "--json", "m.json", "--cfg-options", "launcher=none", *options)
        assert not Path("m.json").exists()
        return message

    torch.save(GLEANStyleGANv2(**NETWORK | {"rrdb_channels": 12}).state_dict(), "wide.pth")
    torch.save(GLEANStyleGANv2(**NETWORK).state_dict(), "net.pth")
    assert message_of("no.pth") == "no.pth: there is no such file. Give the path or URL of a checkpoint."
    assert message_of("wide.pth").startswith(
        "wide.pth does not fit GLEANStyleGANv2: 23 have another shape (encoder.0.0.conv_f"
    )
    assert message_of("net.pth", "test_dataloader=None") == (
        "config: it has no test_dataloader. Add it; configs/_base_ has examples."
    )
    assert message_of("net.pth", "test_dataloader.dataset.data_prefix.gt=no") == (
        f"data/no: there is no such folder. Set data_root and data_prefix.gt {WHERE}"
    )
    assert message_of("net.pth", "test_evaluator.0.type=PNSR") == f"config: there is no metric 'PNSR'. {NO_SUCH_TYPE}"
    assert message_of("net.pth", "test_evaluator.0.crop=1") == (
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


def without_recorder(home: Path) -> None:
    """Other processes do not have it."""
    config = home / "config.py"
    config.write_text(config.read_text() + "custom_hooks.pop()\n")


@pytest.mark.slow
def test_processes(home):
    without_recorder(home)
    done = process(sys.executable, ROOT / "tools/train.py", "config.py", "--cfg-options", "train_cfg.max_iters=1")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "error" not in done.stderr
    load_network_weights(GLEANStyleGANv2(**NETWORK), "work_dirs/config/iter_1.pth")
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
def test_two_processes_train_resume_and_test(home):
    """DDP with ``find_unused_parameters=False``; its checkpoint is one that a single process reads, and resumes."""
    without_recorder(home)
    port = free_port()

    def train_two(iterations: int, *more: str) -> dict[str, Tensor]:
        options = "--cfg-options", "train_dataloader.batch_size=1", f"train_cfg.max_iters={iterations}", *NO_VALIDATION
        script = ROOT / "tools/dist_train.sh"
        done = process("bash", script, "config.py", 2, *more, *options, MASTER_PORT=port)
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"Saving checkpoint at {iterations} iterations" in done.stdout and "bit-identical" in done.stdout
        assert "do not match exactly" not in done.stdout
        net = GLEANStyleGANv2(**NETWORK)
        load_network_weights(net, f"work_dirs/config/iter_{iterations}.pth")
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
