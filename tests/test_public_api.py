"""The public names of the package: each is documented by an example, and the examples run."""

from __future__ import annotations

import doctest
import logging
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.conversion_sources import rosinality_content
from support.videos import write_video

import glean_ext
from glean_ext.utils import messages
from glean_ext.utils.image_io import Picture

EXAMPLES = Path(glean_ext.__file__).parent / "web" / "static" / "examples"
KINDS = "restore takes a path, an image of Pillow, a Picture, or (h, w, 3) uint8 or uint16 RGB, but got a "
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The working directory, with the files that the examples name."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / "face-1.png", "face.png")
    Image.open(EXAMPLES / "astronaut.jpg").save("photo.jpg", dpi=(300, 300))
    return tmp_path


@pytest.fixture(scope="module")
def restorer():
    return glean_ext.ImageRestorer("demo_glean_x8", device="cpu", dtype="float32", notify=lambda notice: None)


def run_examples(name: str) -> int:
    """Run the example of a public name; how many lines it has."""
    thing = getattr(glean_ext, name)
    module = import_module(thing.__module__)
    found = doctest.DocTestFinder(recurse=False).find(thing, name, module, {**vars(module), "glean_ext": glean_ext})
    report: list[str] = []
    results = [doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append) for test in found]
    assert not any(result.failed for result in results), "".join(report)
    return sum(result.attempted for result in results)


@pytest.mark.parametrize("name", glean_ext.__all__)
def test_the_example_of_each_name(place, name, capsys, caplog):
    if name == "convert_bank":
        torch.save(rosinality_content(), "stylegan2.pt")
    if name == "restore_video":
        write_video(place / "film.mp4", 3)
    caplog.set_level(logging.INFO)
    assert run_examples(name) > 0
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""  # besides what the examples themselves print


# ---------------------------------------------------------------- what restore takes and gives


def test_results_are_what_was_given(place, restorer):
    rgb = np.array(Image.open("face.png").convert("RGB"))
    expected = restorer.restore(rgb)
    assert type(expected) is np.ndarray and expected.shape == (64, 64, 3)
    picture = restorer.restore(Path("face.png"))
    assert type(picture) is Picture and np.array_equal(picture.pixels, expected)
    pillow = restorer.restore(Image.open("face.png"))
    assert isinstance(pillow, Image.Image) and np.array_equal(np.array(pillow), expected)
    several = restorer.restore_batch(["face.png", glean_ext.read_image("face.png"), rgb, Image.fromarray(rgb)])
    assert [type(result) for result in several] == [Picture, Picture, np.ndarray, Image.Image]
    assert np.array_equal(several[1].pixels, several[2])
    deep = restorer.restore(rgb.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16 and np.abs(deep / 257 - expected).max() <= 0.51


def test_transparency_profile_and_metadata_come_through(place, restorer):
    rgba = np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)
    exif = Image.Exif()
    exif[271] = "Ernst"
    Image.fromarray(rgba).save("a.png", exif=exif, dpi=(300, 300))
    for given in "a.png", Image.open("a.png"):
        glean_ext.write_image(restorer.restore(given), "out.webp")
        result = glean_ext.read_image("out.webp")
        assert result.alpha is not None and result.alpha.shape == (64, 64)
        assert b"Ernst" in result.exif and result.dpi == pytest.approx((300, 300), abs=0.01)


def test_photographs_come_through(place, restorer):
    photos = glean_ext.PhotoRestorer(restorer, aligned=True)
    rgb = np.array(Image.open("face.png").convert("RGB"))
    expected = photos.restore(rgb)
    assert np.array_equal(expected.picture.pixels, expected.image)
    for given in "face.png", Image.open("face.png"), glean_ext.read_image("face.png"):
        assert np.array_equal(photos.restore(given).image, expected.image)
    with pytest.raises(glean_ext.InputError, match=r"^no\.jpg: there is no such file"):
        photos.restore("no.jpg")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ([1, 2], KINDS + "list."),
        (None, KINDS + "NoneType."),
        (torch.zeros(3, 8, 8), KINDS + "Tensor."),
        (np.zeros((8, 8)), "restore takes (h, w, 3) uint8 or uint16 RGB, but got (8, 8) float64."),
        (np.zeros((0, 8, 3), np.uint8), "restore takes (h, w, 3) uint8 or uint16 RGB, but got (0, 8, 3) uint8."),
    ],
)
def test_other_things_are_refused_by_name(restorer, image, message):
    for restore in restorer.restore, glean_ext.PhotoRestorer(restorer, aligned=True).restore:
        with pytest.raises(TypeError) as caught:
            restore(image)
        assert str(caught.value) == message
    with pytest.raises(TypeError, match=r"^write_image takes "):
        glean_ext.write_image(image, "out.png")


def test_the_image_comes_first(place):
    with pytest.raises(TypeError, match=r"^write_image takes the image first, but got the path out\.png\.$"):
        glean_ext.write_image("out.png", np.zeros((8, 8, 3), np.uint8))


# ---------------------------------------------------------------- demonstrations


def test_a_photograph_in_a_demo_model_is_warned_of_once(place, restorer, caplog, monkeypatch):
    monkeypatch.setattr(messages, "_warned", set())
    line = (
        "demo_glean_x8: A small demonstration that was trained on cartoon faces only: photographs become cartoons. "
        "glean_ext.list_models() shows others."
    )
    demo = glean_ext.ImageRestorer(restorer.network)
    demo.restore("face.png")
    demo.restore(np.zeros((64, 64, 3), np.uint8))  # as large as the results of its training
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    demo.restore("photo.jpg")
    demo.restore("photo.jpg")
    glean_ext.PhotoRestorer(demo, aligned=True)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [line]


def test_a_demo_model_is_known_by_its_file(place, restorer):
    from glean_ext import checkpoints

    shutil.copy(checkpoints.local_path("glean-ext://demo_glean_x8.safetensors"), place)
    local = glean_ext.ImageRestorer("demo_glean_x8", "demo_glean_x8.safetensors", "cpu")
    assert local.card is restorer.card is not None and local.card.demo
    shutil.copy("demo_glean_x8.safetensors", "mine.safetensors")
    assert glean_ext.ImageRestorer("demo_glean_x8", "mine.safetensors", "cpu").card is None
