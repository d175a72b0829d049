"""A colorizer through ImageRestorer and tools/infer.py: luminance, seeds, and messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.networks import TINY, randomize

from glean_ext import checkpoints
from glean_ext.cli import restore
from glean_ext.errors import InputError
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
    with pytest.raises(InputError, match=r"^A colorizer colours images as a whole"):
        restore.main([*arguments, str(tmp_path / "photo.png"), "--photo", "--aligned", "--device", "cpu"])
    with pytest.raises(InputError) as error:
        restore.main([*arguments, str(tmp_path / "two.png"), "--num", "2"])
    assert str(error.value) == f"{tmp_path / 'two.png'} is one file, but num=2 makes several. Give a folder."
