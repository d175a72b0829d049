"""``glean``: its commands, and that those which need no network answer without loading one."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from argparse import ArgumentTypeError
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

import glean_ext
from glean_ext import cli
from glean_ext.cli import base
from glean_ext.cli.main import COMMANDS, main
from glean_ext.cli.train import print_report
from glean_ext.utils import hardware
from glean_ext.utils.downloads import cache_folder, cached_name
from glean_ext.zoo import CARDS, DEFAULT, find_model

ROOT = Path(__file__).parents[2]
# The modules that take seconds to load.
HEAVY = "{'torch', 'mmengine', 'mmagic', 'cv2', 'av', 'onnxruntime'}"


def glean(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``glean``; the last line of stdout names what heavy modules it loaded."""
    code = (
        "import atexit, sys; atexit.register(lambda: print(sorted("
        f"{HEAVY} & set(sys.modules)))); from glean_ext.cli.main import console_script; console_script()"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_usage_names_every_command():
    done = glean("--help")
    assert done.returncode == 0 and done.stdout.endswith("[]\n")
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert glean().returncode == 2
    assert glean("--version").stdout.splitlines()[0] == f"glean-ext {glean_ext.__version__}"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_nothing_heavy(name):
    done = glean(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: glean {name}" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
    assert callable(import_module(f"glean_ext.cli.{COMMANDS[name][0]}").main)


def test_what_the_system_refuses_about_a_file_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        cli.run(lambda: Path("a" * 300).stat().st_size)
    assert end.value.code == 2 and capsys.readouterr().err == (
        f"error: {'a' * 300} cannot be used (File name too long). Correct its name or its rights, or give another.\n"
    )

    def fail() -> None:
        raise OSError(errno.EIO, "no file")

    with pytest.raises(OSError, match="no file"):
        cli.run(fail)


def test_names_are_printed_as_they_are_but_for_control_characters(capsys):
    print_report([("bank", "frozen, from [/red]/a\x1b[31m.pth")])
    assert "frozen, from [/red]/a\\x1b[31m.pth" in capsys.readouterr().out


@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_threads_that_wait_sleep_unless_the_user_decides(monkeypatch, own):
    monkeypatch.setenv("OMP_WAIT_POLICY", own or "")
    if own is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    policies: list[str] = []
    with pytest.raises(SystemExit):
        cli.run(lambda: policies.append(os.environ["OMP_WAIT_POLICY"]))
    assert policies == [own or "PASSIVE"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["restore", "--help"], ["convert-bank", "-h"]])
def test_help_that_cannot_be_printed(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "glean_ext", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: stdout cannot be written to (No space left on device).")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "error: glean has no command 'trian'. Did you mean train? glean --help lists all.\n"),
        (["zzz"], "error: glean has no command 'zzz'. glean --help lists all.\n"),
        (["models", "glean_x8_dog"], "error: no model is called 'glean_x8_dog'. Did you mean glean_x8_cat or"),
        (["models", "nope"], "error: no model is called 'nope'. glean models shows all of them.\n"),
    ],
)
def test_a_misspelt_word_is_answered_at_once_with_the_nearest(arguments, message):
    done = glean(*arguments)
    assert done.returncode == 2 and done.stderr.startswith(message)
    assert done.stdout == "[]\n"


def test_models_are_listed_with_what_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cat = find_model("glean_x8_cat")
    path = cache_folder() / cached_name(cat.weights)
    path.parent.mkdir(parents=True)
    path.touch()
    lines = glean("models", "--banks").stdout.splitlines()[:-1]
    assert max(map(len, lines)) <= 80 and len(lines) == 2 * len(CARDS)
    for card, line, purpose in zip(CARDS, lines[::2], lines[1::2], strict=True):
        state = "shipped" if card.demo else "downloaded" if card is cat else "not downloaded"
        assert line.startswith(f"{card.name} ") and line.endswith(f" {card.megabytes} MB, {state}")
        assert purpose == f"    {card.purpose}{' (default)' * (card.name == DEFAULT)}"
    one = glean("models", "glean_x8_2xb8_cat").stdout
    assert cat.weights in one and cat.licence in one and "d3ac8683..." in one


def test_the_cache_is_the_one_of_torch(monkeypatch, tmp_path):
    import torch

    for home in None, str(tmp_path):
        monkeypatch.setenv("TORCH_HOME", home) if home else monkeypatch.delenv("TORCH_HOME", raising=False)
        assert str(cache_folder()) == f"{torch.hub.get_dir()}/checkpoints/glean-ext"


def test_python_m_is_the_same():
    done = subprocess.run([sys.executable, "-m", "glean_ext", "--version"], capture_output=True, text=True)
    assert done.stdout == f"glean-ext {glean_ext.__version__}\n"


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("mmagic", ["train", "demo_glean_x8"], "mmagic"),
        ("mmagic", ["test", "demo_glean_x8", "glean-ext://demo_glean_x8.safetensors"], "mmagic"),
        ("av", ["restore", "--model", "demo_glean_x8", "a.mp4", "-o", "b.mp4"], "video"),
        ("ai_edge_litert", ["restore", "a.png", "-o", "b.png"], "faces"),
    ],
)
def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path, missing, arguments, extra):
    """Before anything is downloaded, too: the default model of photographs is not asked for."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.mp4").write_bytes(b"no video")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys(('mediapipe', {missing!r})))\n"
        "from glean_ext.cli.main import console_script; console_script()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and f"pip install 'glean-ext[{extra}]'" in done.stderr
    assert missing.replace("_", "-") in done.stderr


@pytest.mark.parametrize("arguments", [["web", "--port", "0"], ["prepare-data", ".", "out", "--size", "8"]])
def test_what_windows_lacks_is_one_line(tmp_path, monkeypatch, capsys, arguments):
    """Images are restored there without it."""
    for name in "glean_ext.web.server", "glean_ext.data_preparation.record_log", "glean_ext.data_preparation.prepare":
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.run(lambda: main(arguments))
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "error: This needs Linux or macOS. On Windows run it in its subsystem for Linux (WSL).\n"
    )


SHARDS = """_base_ = ['{config}']
train_dataloader = dict(dataset=dict(
    _delete_=True, type='SRShardDataset', shards='no-{{0..3}}.tar', scale=8, pipeline=_base_.train_pipeline))
"""
MISTAKES = {
    "train no": "no: there is no such file. Give the path of a config.",
    "train demo_glean_x8": "data/demo/train/GT: there is no such folder. Set data_root and data_prefix.gt of the",
    "train demo_glean_x8 --cfg-options train_cfg.max_iters=0": "config: train_cfg.max_iters is 0, but",
    "train demo_glean_x8 --cfg-options custom_hooks=[1,2]": "config: custom_hooks has 1, but it must be a dict.",
    "train demo_glean_x8 --cfg-options param_scheduler=[a,b]": "config: param_scheduler has 'a', but it must be",
    "train demo_glean_x8 --amp --cfg-options optim_wrapper.generator.type=ApexOptimWrapper": (
        "optim_wrapper.generator is a ApexOptimWrapper, which has no mixed precision. Remove its type, or train without"
    ),
    "train demo_glean_x8 --auto-scale-lr --cfg-options auto_scale_lr=None": "The config has no auto_scale_lr=dict(",
    "train demo_glean_x8 --cfg-options env_cfg=[1]": "config: env_cfg is [1], but it must be a dict.",
    "train demo_glean_x8 --work-dir file/x": "file/x cannot be made a folder: ",
    "train demo_glean_x8 --cfg-options load_from=no.pth HERE": "no.pth: there is no such file. Give the path or URL",
    "train demo_glean_x8 --cfg-options model.generator.init_cfg.checkpoint=no.pth HERE": "no.pth: there is no such",
    "train demo_glean_x8 --cfg-options load_from=http://127.0.0.1:9/a.pth HERE": (
        "http://127.0.0.1:9/a.pth could not be downloaded ("
    ),
    "train demo_glean_x8 --cfg-options train_dataloader.dataset.data_root=empty": "empty/GT holds no images. Put PNG",
    "train shards.py": "no-0.tar and 3 more: there is no such file. Correct shards=",
    "test demo_glean_x8 no.pth": "no.pth: there is no such file. Give the path or URL of a checkpoint.",
    "test demo_glean_x8 zip --json .": ". is a folder. Give the name of a file.",
    "test demo_glean_x8 zip --json file/x.json": "file/x.json cannot be written: ",
    "export demo_glean_x8 file a.txt": "a.txt: --format onnx writes .onnx. Name it a.onnx.",
    "export demo_glean_x8 no.pth a.onnx": "no.pth: there is no such file.",
    "convert-bank file a.pth": "a.pth must end in .safetensors. Choose another output.",
    "convert-bank no.pth a.safetensors": "no.pth: there is no such file.",
    "convert-bank text.png a.safetensors": "text.png is no checkpoint: neither torch.save nor pickle wrote it.",
    "convert-bank face.png a.safetensors": "face.png is no checkpoint: neither torch.save nor pickle wrote it.",
    "convert-bank file a.safetensors": "file is empty. Get it again.",
    "test demo_glean_x8 text.png": "text.png is no checkpoint: neither torch.save nor pickle wrote it.",
    "export demo_glean_x8 text.png a.onnx": "text.png is no checkpoint: neither torch.save nor pickle wrote it.",
    "prepare-data no out --size 64": "no: there is no such folder or zip file.",
    "model-info bank_demo_64": "model.generator.type is 'TrainableBank', but it must be one of GLEANBigGAN, ",
    "train demo_glean_x8 --cfg-options model.generator.insize=8": (
        "model.generator (GLEANStyleGANv2): there is no argument 'insize'. Did you mean in_size?"
    ),
    "export demo_glean_x8 zip a.onnx --cfg-options model.generator.x=1": "model.generator (GLEANStyleGANv2): there is",
    "model-info demo_glean_x8 --cfg-options a=1": "--cfg-options a=1: the config has no 'a'.",
    "restore no.jpg -o out.png": "no.jpg: there is no such file or folder.",
    "restore face.png -o EMPTY": "there is an empty argument after -o: a variable of the shell may not be set. See",
    "prepare-data EMPTY out --size 64": "there is an empty argument: a variable of the shell may not be set. See",
    "restore face.png -o out.bmp": "out.bmp: images are written as .png, .jpg, .jpeg, .webp.",
    "restore face.png -o out.png --outscal 2": "unrecognized arguments: --outscal 2. Did you mean --outscale?",
    "restore face.png -o out.png --fidelity 3": "--fidelity is 3.0, but it must be between 0",
    "restore --model glean_x16_fhq face.png -o out.png": "no model is called 'glean_x16_fhq'. Did you mean",
    "restore text.png -o out.png": "text.png is no image, or of a format that is not read",
    "restore no.py no.pth face.png -o out.png": "no.py: there is no such file. Give the path of a config.",
    "restore glean_x16_ffhq no.pth face.png -o out.png": "no.pth: there is no such file. Give the path or URL",
    "restore --model demo_glean_x8 face.png -o out.png --cfg-options foo": "--cfg-options foo: it must be key=value",
    "restore face.png -o out.png --background no.py no.pth": "no.py: there is no such file.",
    "restore face.png -o out.png --device cudda": "argument --device: 'cudda' is no device",
    "restore face.png -o out.png --device mps": "argument --device: mps cannot be used here (",
    "restore face.png -o out.png --tile-size 64": "--tile-size has no effect with --size-policy resize.",
    "restore face.png -o out.png --size-policy tile --tile-size 64": (
        "--tile-size has no effect: this model takes 128x128 only, so its tiles are that."
    ),
    "restore face.png -o out.png --outscale 5000": "face.png: with outscale 5000 the result would have 40000x40000",
    "restore cut.png -o out.png": "cut.png is truncated or damaged (",
    "restore --model demo_glean_x8 face.png -o out.png --seed 3": "--seed has no effect: this model has one result",
    "restore --model demo_glean_x8 face.png -o out.png --label cat": "--label has no effect: this network has a",
    "restore --model GLEAN_X16_FFH face.png -o out.png": "no model is called 'GLEAN_X16_FFH'. Did you mean glean_x16_f",
    "restore demo_glean_x8 text.png face.png -o out.png": "text.png is no checkpoint: neither torch.save nor pickle",
    "restore face.png -o out.png --fit crop": "--fit crop has no use for faces",
    "restore face.png -o out.png": f"{find_model(DEFAULT).weights} could not be downloaded (",
    "web --device gpu": "argument --device: 'gpu' is no device; give cpu, cuda,",
    "web --model a=demo_glean_x8,no.pth": "no.pth: there is no such file.",
    "web --model glean_x8_cut": "no model is called 'glean_x8_cut'. Did you mean glean_x8_cat",
    "web --model glean_x8_cat": f"{find_model('glean_x8_cat').weights} could not be downloaded (",
    "web --port 70000": "--port 70000: ports go from 0 to 65535.",
}

# Of configs: the option of `glean train demo_glean_x8 --cfg-options`, and so on
NETWORK_MISTAKES = {
    "model.generator.in_size=10": "model.generator (GLEANStyleGANv2): in_size must be a power of two of at least 4,",
    "model.generator.bank=tunned": "model.generator (GLEANStyleGANv2): bank must be one of ('frozen', ",
    "model.generator.num_rrdbs=-1": "model.generator (GLEANStyleGANv2): num_rrdbs is -1, but it must be at least 0.",
}
TRAIN_MISTAKES = {
    "model.generator.init_cfg=None": "GLEANStyleGANv2 has no pre-trained bank to train with. Set generator.init_cfg=",
    "model.generator.init_cfg.type=A": "init_cfg must be dict(type='Pretrained', ",
    "model.generator.type=GLEAM": "config: model.generator.type: there is no model 'GLEAM'. Did you mean GLEAN?",
    "model.type=GLEEN": "config: model.type: there is no model 'GLEEN'. Did you mean GLEAN?",
    "model.pixel_los=1": "config: model (GLEAN): there is no argument 'pixel_los'. Did you mean pixel_loss?",
    "model.gan_loss.gan_type=vanila": "config: model.gan_loss.gan_type is 'vanila', but it must be one of vanilla, ",
    "model.gan_loss=None": "model.discriminator and model.gan_loss go together.",
    "model.discriminator.in_size=32": "model.discriminator.in_size is 32, but model.generator.out_size is 64.",
    "train_dataloader.batchsize=2": "train_dataloader.batchsize: dataloaders have no such setting.",
    "train_dataloader.dataset.scales=8": "config: train_dataloader.dataset (SRFolderDataset): there is no argument",
    "train_dataloader.dataset.data_prefix.gtt=GT": "SRFolderDataset.data_prefix is {'gt': 'GT', 'gtt': 'GT'}, but",
    "train_cfg.max_iter=9": "config: train_cfg (ResumableTrainLoop): there is no argument 'max_iter'. Did you mean",
    "optim_wrapper.generator.optimizer.lrr=1": "config: optim_wrapper.generator.optimizer (Adam): there is no argument",
    "param_scheduler.T_maxx=1": "config: param_scheduler (CosineAnnealingLR): there is no argument 'T_maxx'. Did you",
    "custom_hooks.0.intervall=1": "config: custom_hooks.0 (FrozenBankHook): there is no argument 'intervall'. Did you",
    "default_hooks.checkpoint.rule=less": "config: default_hooks.checkpoint.rule is 'less', but a greater PSNR",
    "val_evaluator.0.type=PSNRR": "config: val_evaluator.0.type: there is no metric 'PSNRR'. Did you mean PSNR",
    "custom_imports.imports=[no.such]": "config: custom_imports: there is no module 'no'. Correct it, or install what",
}
TEST_MISTAKES = {
    "test_dataloader.batchsize=1": "test_dataloader.batchsize: dataloaders have no such setting.",
    "test_evaluator.0.crop=1": "config: test_evaluator.0 (PSNR): there is no argument 'crop'. There are ",
    "test_cfg.foo=1": "config: test_cfg (MultiTestLoop): there is no argument 'foo'.",
}
FOR_CONFIGS = {
    "train demo_glean_x8": NETWORK_MISTAKES | TRAIN_MISTAKES,
    "test demo_glean_x8 zip": NETWORK_MISTAKES | TEST_MISTAKES,
    "export demo_glean_x8 zip a.onnx": NETWORK_MISTAKES,
    "model-info demo_glean_x8": NETWORK_MISTAKES,
    "restore --model demo_glean_x8 face.png -o out.png": NETWORK_MISTAKES,
}
MISTAKES |= {
    f"{command} --cfg-options {option}": message
    for command, mistakes in FOR_CONFIGS.items()
    for option, message in mistakes.items()
}
WORDS = {  # of the commands above
    "HERE": [f"{split}_dataloader.dataset.data_root=." for split in ("train", "val")],
    "EMPTY": [""],
}


def test_mistakes_are_answered_before_torch_is_loaded(tmp_path):
    """One process answers them all, since starting Python takes most of the time."""
    (tmp_path / "file").touch()
    (tmp_path / "zip").write_bytes(b"PK\3\4")  # as weights begin
    (tmp_path / "empty/GT").mkdir(parents=True)
    (tmp_path / "GT").mkdir()
    (tmp_path / "GT/a.png").touch()
    (tmp_path / "shards.py").write_text(SHARDS.format(config=ROOT / "configs/demo_glean_x8.py"))
    Image.new("RGB", (8, 8)).save(tmp_path / "face.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "face.png").read_bytes()[:45])
    (tmp_path / "text.png").write_text("no image")
    offline = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9") | {"no_proxy": ""}
    environment = os.environ | offline | {"TORCH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    code = (
        "import json, sys\nfrom glean_ext import cli\nfrom glean_ext.cli.main import main\n"
        "for command in json.load(sys.stdin):\n"
        "    try: cli.run(lambda: main(command))\n"
        "    except SystemExit as end: print(end.code, file=sys.stderr)\n"
        "print(sorted({'torch', 'mmagic'} & set(sys.modules)))"
    )
    commands = [[word for part in command.split() for word in WORDS.get(part, [part])] for command in MISTAKES]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        input=json.dumps(commands),
        capture_output=True,
        text=True,
    )
    lines = done.stderr.splitlines()
    assert lines[1::2] == ["2"] * len(MISTAKES), done.stderr
    for line, (command, message) in zip(lines[::2], MISTAKES.items(), strict=True):
        assert line.startswith(f"error: {message}"), command
    assert done.stdout.splitlines()[-1] == "[]"
    file = tmp_path / "home" / "hub" / "checkpoints" / "glean-ext" / cached_name(find_model(DEFAULT).weights)
    assert f"give the path of the file, or save it as {file}." in done.stderr


@pytest.mark.parametrize(
    ("system", "libraries", "files", "refused"),
    [
        ("linux", [], [], True),
        ("linux", ["libcuda.so.1"], [], False),
        ("linux", [], ["/dev/kfd"], False),  # of AMD's GPUs, which torch calls cuda, too
        ("win32", [], [], False),
    ],
)
def test_a_gpu_is_refused_at_once_where_there_is_no_driver(monkeypatch, system, libraries, files, refused):
    monkeypatch.setattr(base.sys, "platform", system)
    monkeypatch.setattr(hardware, "is_library", libraries.__contains__)
    monkeypatch.setattr("os.path.exists", files.__contains__)
    if not refused:
        assert base.device_name("cuda:1") == "cuda:1"
        return
    with pytest.raises(ArgumentTypeError, match=r"^cuda:1 cannot be used here \(neither NVIDIA's .*\); use cpu$"):
        base.device_name("cuda:1")


def test_warnings_of_other_libraries_are_for_those_who_ask():
    code = (
        "import warnings\nfrom glean_ext import cli\n"
        "def main():\n"
        "    warnings.warn('old', FutureWarning)\n"
        "    warnings.warn_explicit('chatter', UserWarning, 'f.py', 1, 'transformers.utils')\n"
        "    warnings.warn_explicit('corrupt', UserWarning, 'f.py', 1, 'PIL.TiffImagePlugin')\n"
        "    warnings.warn_explicit('useful', UserWarning, 'f.py', 1, 'torch.cuda')\n"
        "cli.run(main)"
    )
    for options, expected in ([], ["useful"]), (["-W", "default"], ["old", "chatter", "corrupt", "useful"]):
        done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True)
        assert [word for word in ("old", "chatter", "corrupt", "useful") if word in done.stderr] == expected


def test_an_empty_suffix_is_one():
    parser = base.Parser()
    parser.add_argument("--suffix")
    assert parser.parse_args(["--suffix", ""]).suffix == ""
