"""A colorizer through ImageRestorer and tools/infer.py: luminance, seeds, and messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from support.networks import TINY, randomize

from glean_ext import checkpoints
from glean_ext.cli import restore
from glean_ext.errors import InputError
from glean_ext.faces.colour_matching import to_gray
from glean_ext.faces.detection import FaceFinder
from glean_ext.faces.photo_restorer import PhotoRestorer
from glean_ext.inference.export import export_network
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.networks import build_network

COLOUR = {**TINY, "type": "GLEANColorization", "in_size": 16, "encoder_size": 4}
LUMA = np.array([0.299, 0.587, 0.114])


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """colour.safetensors, and glean.safetensors of a network that restores."""
    folder = tmp_path_factory.mktemp("weights")
    for name, generator in ("colour", COLOUR), ("glean", TINY):
        torch.manual_seed(0)
        checkpoints.save(randomize(build_network(generator)).state_dict(), folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "colour.py"
    path.write_text(f"model = dict(type='GLEANColorizer', generator={COLOUR})\n")
    return path


def make(weights: Path, **more) -> ImageRestorer:
    return ImageRestorer({"model": {"generator": COLOUR}}, weights / "colour.safetensors", device="cpu", **more)


def gray(height: int = 16, width: int = 16) -> np.ndarray:
    return np.repeat(np.random.default_rng(0).integers(0, 256, (height, width, 1), dtype=np.uint8), 3, 2)


@pytest.mark.parametrize("size", [(16, 16), (90, 37), (100, 100), (8, 30)])
def test_any_size_keeps_its_luminance(weights, size):
    notices: list = []
    result = make(weights, notify=notices.append).restore(gray(*size))
    assert result.shape == (*size, 3) and np.ptp(result.astype(int), axis=2).max() > 3
    assert np.abs(result @ LUMA - gray(*size)[..., 0]).max() <= 1 and not notices


def test_colour_images_say_that_their_colours_do_not_count(weights):
    notices: list = []
    image = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    result = make(weights, notify=lambda notice: notices.append(str(notice))).restore(image, "a.png")
    assert notices == ["a.png is in colour; the model takes its luminance only."]
    assert np.abs(result @ LUMA - image @ LUMA).max() <= 1


def test_seeds_are_answers(weights):
    plain, first, again, other = (make(weights, seed=seed).restore(gray()) for seed in (None, 0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other) and not np.array_equal(first, plain)
    together = make(weights, seed=0).restore_batch([gray(), gray()])
    assert np.abs(together[1].astype(int) - first).max() <= 1


def test_seeds_that_cannot_be_used(weights):
    with pytest.raises(InputError) as error:
        make(weights, seed=-1)
    assert str(error.value) == "seed is -1, but it must be at least 0."
    with pytest.raises(InputError) as error:
        ImageRestorer({"model": {"generator": TINY}}, weights / "glean.safetensors", device="cpu", seed=0)
    assert str(error.value) == "seed has no effect: this model has one result for an image. Leave seed out."


@pytest.mark.slow
@pytest.mark.parametrize(("format", "suffix"), [("onnx", ".onnx"), ("torch", ".pt2")])
def test_exported(weights, tmp_path, format, suffix):
    net = build_network(COLOUR).requires_grad_(False).eval()
    checkpoints.load_strict(net, checkpoints.read(weights / "colour.safetensors"), "colour")
    path = tmp_path / f"colour{suffix}"
    assert export_network(net, path, format).max_difference < 1e-4  # on images of several sizes
    if format == "onnx":
        notices: list = []
        restorer = ImageRestorer(path, notify=notices.append)
        for size in (16, 16), (30, 9):
            expected = make(weights, dtype="float32").restore(gray(*size)).astype(int)
            assert np.abs(restorer.restore(gray(*size)) - expected).max() <= 1
        assert not notices and restorer.network.colorizes


def test_the_tool_writes_an_image_for_each_seed(weights, config, tmp_path, capsys):
    source, checkpoint = tmp_path / "face.png", weights / "colour.safetensors"
    Image.fromarray(gray()[..., 0]).save(source)  # a gray file
    arguments = [str(config), str(checkpoint), str(source), "-o"]
    assert restore.main([*arguments, f"{tmp_path / 'out'}/", "--num", "2", "--seed", "3", "--device", "cpu"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["face_seed3.png", "face_seed4.png"]
    for seed in 3, 4:
        written = np.asarray(Image.open(tmp_path / f"out/face_seed{seed}.png"))
        assert np.array_equal(written, make(weights, seed=seed).restore(gray()))
    assert restore.main([*arguments, str(tmp_path / "one.png"), "--device", "cpu"]) == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "one.png")), make(weights).restore(gray()))
    aligned = "--photo", "--aligned", "--device", "cpu"
    assert restore.main([*arguments, str(tmp_path / "photo.png"), *aligned]) == 0
    photo, one = (np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("photo", "one"))
    assert np.abs(photo - one).max() <= 1
    with pytest.raises(InputError) as error:
        restore.main([*arguments, str(tmp_path / "two.png"), "--num", "2"])
    assert str(error.value) == f"{tmp_path / 'two.png'} is one file, but num=2 makes several. Give a folder."


def test_photographs_get_colours(weights):
    """Faces as the model was trained, the rest as a whole; luminance stays, and fidelity fades the colours."""
    portrait = np.ascontiguousarray(data.astronaut()[:256, 100:356])
    notices: list = []
    colorizer = make(weights, notify=lambda notice: notices.append(str(notice)))
    results = {f: PhotoRestorer(colorizer, "auto", fidelity=f).restore(to_gray(portrait), "a.png") for f in (0, 0.5, 1)}
    image = results[0].image
    assert image.shape == portrait.shape and len(results[0].faces) == 1 and not results[0].colourless
    for result in results.values():
        assert np.abs(result.image @ LUMA - to_gray(portrait)[..., 0]).max() <= 1
    spread = [np.ptp(results[f].image.astype(int), axis=2).mean() for f in (0, 0.5, 1)]
    assert spread[0] > spread[1] > spread[2] == 0
    assert set(notices) == {FaceFinder().about}
    notices.clear()
    whole = colorizer.restore(to_gray(portrait)).astype(int)
    different = np.abs(image - whole).max(2) > 2
    assert different[60:160, 80:170].mean() > 0.3 and different[:, :40].mean() < 0.05, "the face alone"
    coloured = PhotoRestorer(colorizer).restore(portrait, "a.png")
    np.testing.assert_array_equal(coloured.image, image)
    assert notices[-1] == "a.png is in colour; the model takes its luminance only." and len(notices) == 2


def test_gray_photographs_are_recognised(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wall = gray(40, 50)
    Image.fromarray(wall).save("gray.png")
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save("colour.png")
    for name, said in ("gray", 1), ("colour", 0):
        restore.main(["--model", "demo_glean_x8", f"{name}.png", "-o", f"{name}_out.png", "--photo", "--device", "cpu"])
        hint = (
            f"{name}.png has no colours, and is restored without any. A colorizer adds some: --model demo_glean_color."
        )
        assert capsys.readouterr().out.count(hint) == said
