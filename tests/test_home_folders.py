"""``~`` in paths that no shell expanded: at every door it is the home folder, and no folder of that name is made."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from support.conversion_sources import rosinality_content
from support.tools import only_error, run_main
from support.videos import write_video

import glean_ext
from glean_ext.batch.options import ModelSource, PhotoOptions, RestoreOptions
from glean_ext.cli import main as glean
from glean_ext.config import load_config, load_run_config
from glean_ext.data_preparation.options import PreparationOptions
from glean_ext.data_preparation.prepare import prepare
from glean_ext.errors import InputError
from glean_ext.evaluation import EvaluationOptions
from glean_ext.inference.export import export
from glean_ext.utils.files import expand_home
from glean_ext.utils.tar_shards import list_shards
from glean_ext.web.model_specs import parse_model

FACE = Path(glean_ext.__file__).parent / "web" / "static" / "examples" / "face-1.png"
LIGHT = "demo_lightglean_x8"
NOBODY = "~nobody-of-that-name"
CONFIG = "model = dict(generator=dict(type='GLEANStyleGANv2', in_size=8, out_size=64))\n"
NO_USER = "there is no user nobody-of-that-name. Correct it, or write ./"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The home folder, with a face; the folder at hand is another one, which has to stay empty."""
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    (home / "faces").mkdir(parents=True)
    shutil.copy(FACE, home / "faces" / "a.png")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    yield home
    assert not list(here.iterdir())


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)  # which glean sets
    return lambda *arguments: run_main(glean.main, capsys, *arguments)


def test_what_begins_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_home("~/a.png") == "/home/me/a.png" and expand_home("~") == "/home/me"
    assert expand_home(Path("~/a.png")) == Path("/home/me/a.png")
    assert expand_home("~root/a").endswith("/a") and not expand_home("~root/a").startswith("~")
    for same in "a~", "./~/a.png", "s3://~/a", "", "/~/a":
        assert expand_home(same) == same
    with pytest.raises(InputError, match=f"^{NOBODY}/a: {NO_USER}{NOBODY}/a where a name begins with ~.$"):
        expand_home(f"{NOBODY}/a")
    Path(f"{NOBODY}.png").touch()  # a shell leaves it as it is, too
    assert expand_home(f"{NOBODY}.png") == f"{NOBODY}.png"
    Path("~").mkdir()
    assert expand_home(Path("./~/a")) == Path("~/a") and expand_home("~/a") == "/home/me/a"


def test_commands(home, run):
    for output in "~/out/a.png", "~/folder":
        assert run("restore", "--model", LIGHT, "~/faces/*.png" if output.endswith("r") else "~/faces/a.png",
                   f"--output={output}", "--device", "cpu")[0] == 0  # fmt: skip
    assert (home / "out" / "a.png").is_file() and (home / "folder" / "a.png").is_file()
    code, _, stderr = run("prepare-data", "~/faces", "~/set", "--size", "8", "--split", "1", "--list=train=~/list.txt")
    assert code == 2 and f"{home}/list.txt" in stderr
    (home / "list.txt").write_text("a.png\n")
    assert run("prepare-data", "~/faces", "~/set", "--size", "8", "--split", "1", "--list=train=~/list.txt")[0] == 0
    assert len(list((home / "set" / "train" / "GT").iterdir())) == 1
    assert run("evaluate", "~/folder", "--reference", "~/folder", "-o", "~/e.html", "--metrics", "psnr")[0] == 0
    assert (home / "e.html").is_file()
    assert only_error(*run("test", "~/no.py", "x.pth")).startswith(f"{home}/no.py: there is no such file")


@pytest.mark.parametrize("command", [
    ["restore", "--model", LIGHT, FACE, f"--output={NOBODY}/a.png"],
    ["prepare-data", FACE.parent, NOBODY, "--size", "8"],
    ["convert-bank", f"{NOBODY}/a.pt", "b.safetensors"],
    ["web", f"--model=a={NOBODY}/a.py,b.pth"],
])  # fmt: skip
def test_unknown_users(home, run, command):
    assert NO_USER in only_error(*run(*command))


def test_a_folder_of_that_name(home, run, monkeypatch, tmp_path):
    """What an earlier version made can be read, and is nothing that stands for the home folder."""
    other = tmp_path / "other"
    shutil.copytree(home / "faces", other / "~")
    with monkeypatch.context() as patch:
        patch.chdir(other)
        assert run("restore", "--model", LIGHT, ".", "-o", "~/all", "--device", "cpu")[0] == 0
        assert run("prepare-data", "./~", "../set", "--size", "8", "--split", "1")[0] == 0
    assert (home / "all" / "~" / "a.png").is_file() and (tmp_path / "set" / "report.json").is_file()


def test_configs(home):
    (home / "my.py").write_text(CONFIG + "data_root = '~/faces'\nlists = ('~/a', ['~/b', 3])\nword = '~about'\n")
    config = load_config("~/my.py", ["model.generator.init_cfg.checkpoint=~/bank.pth"])
    assert config.data_root == f"{home}/faces" and config.word == "~about"
    assert config.lists == (f"{home}/a", [f"{home}/b", 3])
    assert config.model.generator.init_cfg.checkpoint == f"{home}/bank.pth"
    assert load_run_config("~/my.py", ["work_dir=~/runs"]).work_dir == f"{home}/runs"
    with pytest.raises(InputError, match=f"my.py: {NOBODY}/x: {NO_USER}"):
        load_config("~/my.py", [f"data_root={NOBODY}/x"])


def test_python(home):
    picture = glean_ext.ImageRestorer(LIGHT, device="cpu").restore("~/faces/a.png")
    glean_ext.write_image(picture, "~/new/b.png")
    assert np.array_equal(glean_ext.read_image("~/new/b.png").pixels, picture.pixels)
    write_video(home / "film.mp4", 2)
    glean_ext.restore_video("~/film.mp4", Path("~/new.mp4"), lambda frames: frames)
    assert (home / "new.mp4").is_file()
    with pytest.raises(InputError, match=f"^{home}/no.pth: there is no such file"):
        glean_ext.load_network(LIGHT, "~/no.pth")
    options = PreparationOptions((8, 8), split=1.0)
    assert prepare(Path("~/faces"), Path("~/set"), options, workers=1)["train"] == 1
    with pytest.raises(InputError, match=rf"^{home}/e.txt: format=.onnx. writes .onnx"):
        export(LIGHT, "x.pth", "~/e.txt")


def test_options(home):
    photo = PhotoOptions(save_faces=Path("~/f"), embedder="~/e.pth")
    source = ModelSource("~/a.py", "~/a.pth")
    options = RestoreOptions(source, ("~/a", "b"), "~/c/", photo=photo, references=("~/r",))
    assert (options.inputs, options.output, options.references) == ((f"{home}/a", "b"), f"{home}/c/", (f"{home}/r",))
    assert (photo.save_faces, photo.embedder) == (home / "f", f"{home}/e.pth")
    assert (source.config, source.checkpoint) == (f"{home}/a.py", f"{home}/a.pth")
    evaluation = EvaluationOptions((Path("~/o"),), inputs=Path("~/i"), report=Path("~/e.html"))
    assert (evaluation.outputs, evaluation.inputs, evaluation.report) == ((home / "o",), home / "i", home / "e.html")
    spec = parse_model("Faces=~/a.py,~/a.pth")
    assert (spec.config, spec.checkpoint) == (f"{home}/a.py", f"{home}/a.pth")
    (home / "0.tar").touch()
    assert list_shards("~/{0..0}.tar") == [f"{home}/0.tar"]


def test_banks(home):
    import torch

    torch.save(rosinality_content(), home / "stylegan2.pt")
    glean_ext.convert_bank("~/stylegan2.pt", "~/banks/b.safetensors")
    assert os.listdir(home / "banks") == ["b.safetensors"]


def test_mmagic(home):
    import glean_ext.plugin  # noqa: F401  (has to come first)
    from glean_ext.apis.mmagic_inferencer import GLEANInferencer

    inferencer = GLEANInferencer("lightglean", model_config=LIGHT, model_ckpt=f"glean-ext://{LIGHT}.safetensors")
    inferencer("~/faces/a.png", result_out_dir="~/one.png")
    inferencer(["~/faces/a.png"], result_out_dir="~/list")
    inferencer("~/faces", result_out_dir="~/all")
    assert all((home / name).is_file() for name in ("one.png", "list/a.png", "all/a.png"))


def test_hub(home):
    pytest.importorskip("huggingface_hub")
    from glean_ext.hub import HubLightGLEAN

    small = {"num_rrdbs": 1, "rrdb_channels": 4, "style_channels": 16, "num_mlps": 2, "channel_multiplier": 0.125}
    HubLightGLEAN(8, 64, max_channels=24, **small).save_pretrained("~/hub")
    assert isinstance(HubLightGLEAN.from_pretrained("~/hub"), HubLightGLEAN)
