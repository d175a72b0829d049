"""Models by name on the command line and in Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import glean_ext
from glean_ext.cli.restore import main
from glean_ext.cli.restore_options import parse
from glean_ext.cli.restore_run import model_line
from glean_ext.errors import InputError
from glean_ext.utils.downloads import cache_folder, cached_name
from glean_ext.zoo import DEFAULT, find_model

DEMO = ["demo_glean_x8", "glean-ext://demo_glean_x8.safetensors"]


@pytest.fixture
def face(tmp_path, monkeypatch) -> Path:
    """An 8x8 image in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "face.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return path


def test_without_a_model_faces_of_photographs_are_restored(face):
    options, card = parse(["face.png", "-o", "out.png"]), find_model(DEFAULT)
    assert (options.model.config, options.model.checkpoint) == (card.config, card.weights)
    assert options.inputs == ("face.png",) and options.photo is not None
    assert parse(["face.png", "-o", "out.png", "--fidelity", "0.5"]).photo.fidelity == 0.5


def test_a_named_model_restores_as_its_config_and_weights(face):
    assert main([*DEMO, "face.png", "-o", "a.png", "--device", "cpu"]) == 0
    assert main(["--model", "demo_glean_x8", "face.png", "-o", "b.png", "--device", "cpu"]) == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert parse(["--model", "demo_glean_x8", "face.png", "-o", "b.png"]).photo is None


def test_config_and_checkpoint_are_no_inputs(face):
    options = parse([*DEMO, "face.png", "-o", "out.png"])
    assert (options.model.config, options.model.checkpoint, options.inputs) == (*DEMO, ("face.png",))
    assert parse(["my.py", "my.pth", "face.png", "-o", "out.png"]).model.config == "my.py"
    with pytest.raises(InputError, match=r"^Too little is given"):
        parse([*DEMO, "-o", "out.png"])


def test_wrong_names_are_answered_before_anything_is_loaded(face, capsys):
    with pytest.raises(InputError, match=r"no model is called 'glean_x16_fhq'\. Did you mean glean_x16_ffhq"):
        parse(["--model", "glean_x16_fhq", "face.png", "-o", "out.png"])
    with pytest.raises(InputError, match="it restores no images"):
        parse(["--model", "demo_bank", "face.png", "-o", "out.png"])
    with pytest.raises(SystemExit) as ended:
        parse(["--model", "list"])
    assert ended.value.code == 0 and "demo_glean_x8" in capsys.readouterr().out


def test_a_missing_photo_costs_no_second():
    code = (
        "import sys; from glean_ext.cli.base import run; from glean_ext.cli.restore import main\n"
        "try: run(lambda: main(['nothing.jpg', '-o', 'out.png']))\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "False\n"
    assert done.stderr == "error: nothing.jpg: there is no such file or folder. Give an image or a folder of images.\n"


def test_what_is_downloaded_is_said_once(face, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(face.parent / "cache"))
    card = find_model(DEFAULT)
    path = cache_folder() / cached_name(card.weights)
    line = model_line(parse(["face.png", "-o", "out.png"]))
    assert line == (
        f"{DEFAULT} finds the faces of photographs and restores them; downloading its weights, 697 MB or more "
        f"({card.licence}), to {path}"
    )
    assert model_line(parse(["face.png", "-o", "out.png", "--cluster", "auto"])) == ""  # its nodes download
    path.parent.mkdir(parents=True)
    path.touch()
    assert model_line(parse(["face.png", "-o", "out.png"])) == ""
    assert model_line(parse(["--model", "demo_glean_x8", "face.png", "-o", "out.png"])) == ""


def test_the_python_door(face):
    """Each name of the public API, used as a new user would."""
    assert set(glean_ext.__all__) <= set(dir(glean_ext))
    assert "demo_glean_x8" in glean_ext.list_models()
    restorer = glean_ext.ImageRestorer("demo_glean_x8", device="cpu")
    picture = glean_ext.read_image(face)
    result = restorer.restore(picture.pixels)
    assert result.shape == (64, 64, 3)
    net = glean_ext.load_network("demo_glean_x8")
    assert net.in_size == 8 and not net.training and not any(p.requires_grad for p in net.parameters())
    with pytest.raises(glean_ext.InputError, match="no model is called 'demo_glean_x9'"):
        glean_ext.ImageRestorer("demo_glean_x9")
    with pytest.raises(AttributeError, match="no attribute 'Restorer'"):
        glean_ext.Restorer  # noqa: B018


def test_importing_the_package_loads_nothing():
    code = "import sys, glean_ext; print(sorted({'torch', 'numpy', 'PIL', 'mmengine'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
