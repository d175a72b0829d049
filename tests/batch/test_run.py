"""A run from Python: options that check themselves, callbacks in place of a console, and a report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from glean_ext.batch.options import MAX_PIXELS, ModelSource, PhotoOptions, RestoreOptions
from glean_ext.batch.restore_pictures import restore_pictures
from glean_ext.batch.run import RunCallbacks, RunReport, plan_run, restore_files
from glean_ext.cli.restore_options import parse
from glean_ext.errors import InputError
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.size_policy import SizePolicy
from glean_ext.utils.image_io import Picture, read_picture, write_picture
from glean_ext.utils.outcome import Outcome

MODEL = ModelSource("demo_glean_x8", "glean-ext://demo_glean_x8.safetensors")


def noise(height: int = 8, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def fault(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


# ---------------------------------------------------------------- outcomes


def test_outcomes():
    def fail():
        raise InputError("bad.")

    good, bad = Outcome.of(lambda: 2), Outcome.of(fail)
    assert (good.unwrap(), good.error) == (2, None) and bad.value is None and str(bad.error) == "bad."
    assert fault(bad.unwrap) == "bad."
    assert good.then(lambda value: value + 1).unwrap() == 3
    assert bad.then(lambda value: value + 1).error is bad.error and good.then(lambda value: fail()).error is not None
    with pytest.raises(ZeroDivisionError):
        Outcome.of(lambda: 1 / 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        good.value = 3
    assert Outcome.of(lambda: None).unwrap() is None


# ---------------------------------------------------------------- options


def test_a_command_line_becomes_options():
    assert parse([MODEL.config, MODEL.checkpoint, "a.png", "b", "-o", "out/"]) == RestoreOptions(
        MODEL, ("a.png", "b"), "out/"
    )
    arguments = (
        "net.onnx in -o out --batch 4 --device cpu --compile --suffix _x --overwrite --outscale 2 --alpha restore"
    )
    arguments += (
        " --crf 4 --compare --size-policy tile --tile-size 64 --tile-overlap 8 --max-pixels 3e6 --cfg-options a=1"
    )
    assert parse(arguments.split()) == RestoreOptions(
        ModelSource("net.onnx"),
        ("in",),
        "out",
        device="cpu",
        compile="default",
        cfg_options=("a=1",),
        batch=4,
        size_policy=SizePolicy("tile", tile_size=64, tile_overlap=8),
        suffix="_x",
        overwrite=True,
        outscale=2,
        alpha="restore",
        compare=True,
        crf=4,
        max_pixels=3_000_000,
    )
    photo = (
        "net.onnx in -o out --photo --fidelity .5 --only-center-face --min-face 20 --max-faces 3 --when-no-face whole"
    )
    photo += " --save-faces faces --background bg.py bg.pth"
    assert parse(photo.split()).photo == PhotoOptions(
        0.5, True, False, 20, 3, "whole", Path("faces"), ModelSource("bg.py", "bg.pth")
    )
    assert parse(
        ["net.onnx", "in", "-o", "out", "--photo", "--aligned", "--background", "bicubic"]
    ).photo == PhotoOptions(aligned=True)
    assert parse(["net.onnx", "in", "-o", "out", "--photo", "--background", "bicubic"]).photo == PhotoOptions()
    assert MAX_PIXELS == 200_000_000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelSource("a.py"), "a.py is no ONNX model: it needs a checkpoint, too."),
        (lambda: ModelSource("a.ONNX", "b"), "a.ONNX is an ONNX model, which needs no checkpoint. Leave it out."),
        (lambda: options(inputs=()), "Nothing is given to restore. Give images, folders or videos."),
        (lambda: options(batch=0), "batch is 0, but it must be at least 1."),
        (lambda: options(crf=51.5), "crf is 51.5, but it must be between 0 (lossless) and 51."),
        (lambda: options(outscale=float("nan")), "outscale is nan, but it must be a positive number."),
        (lambda: options(outscale=float("inf")), "outscale is inf, but it must be a positive number."),
        (lambda: options(alpha="no"), "alpha is 'no', but it must be one of upsample, restore."),
        (lambda: options(overwrite=True, skip_existing=True), "overwrite and skip_existing exclude each other."),
        (lambda: options(max_pixels=0), "max_pixels is 0, but it must be at least 1."),
        (lambda: PhotoOptions(fidelity=-0.1), "fidelity is -0.1, but it must be between 0 (restores) and 1"),
        (
            lambda: PhotoOptions(aligned=True, save_faces=Path("a")),
            "save_faces has no effect on aligned faces. ",
        ),
        (lambda: PhotoOptions(aligned=True, max_faces=3), "max_faces has no effect on aligned faces. Leave it out."),
        (lambda: PhotoOptions(min_face=0), "min_face is 0, but it must be a positive number of pixels."),
        (lambda: PhotoOptions(max_faces=0), "max_faces is 0, but it must be at least 1."),
        (lambda: PhotoOptions(when_no_face="x"), "when_no_face is 'x', but it must be one of keep, whole, error."),
        (
            lambda: options(photo=PhotoOptions(), alpha="restore"),
            "alpha='restore' has no effect with photo: transparency is upsampled. Leave it out.",
        ),
    ],
)
def test_options_check_themselves(make, message):
    assert fault(make).startswith(message)


def options(**changes) -> RestoreOptions:
    return RestoreOptions(**{"model": MODEL, "inputs": ("in",), "output": "out", **changes})


def test_frames_depend_on_some_options_only():
    same = [options(), options(batch=3), options(crf=4), options(suffix="_x"), options(compare=True)]
    assert len({str(item.of_frames()) for item in same}) == 1
    photos = [PhotoOptions(), PhotoOptions(fidelity=0.5), PhotoOptions(min_face=9)]
    other = [options(outscale=2), options(size_policy=SizePolicy("tile")), *(options(photo=photo) for photo in photos)]
    assert len({str(item.of_frames()) for item in [*other, options()]}) == 6
    assert options(photo=PhotoOptions(save_faces=Path("x"))).of_frames() == options(photo=PhotoOptions()).of_frames()


# ---------------------------------------------------------------- runs


def test_a_run_from_python_prints_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a.png", "b.png")):
        write_picture(Picture(noise(seed=seed)), Path("in", name))
    write_picture(Picture(noise(9, 7)), Path("in", "c.png"))
    Path("in", "d.png").write_text("text")
    given = options(device="cpu", dtype="float32")
    notices, done, tiles = [], [], []
    callbacks = RunCallbacks(notices.append, done.append, lambda *counts: tiles.append(counts))
    report = restore_files(given, callbacks)
    assert (report.done, report.skipped, report.faces) == (3, 0, None)
    assert [str(job) for job in report.failures] == ["in/d.png"] and len(done) == 4 and tiles == [(1, 1)] * 3
    assert 0 < report.network_seconds < report.seconds and report.images_per_second > 0
    assert list(map(str, notices)) == [
        "in/c.png has 7x9 pixels; it was padded and resized to the model's 8x8. See size_policy and fit."
    ]
    restorer = ImageRestorer(MODEL.config, MODEL.checkpoint, "cpu", dtype="float32")
    for seed, name in enumerate(("a.png", "b.png")):
        np.testing.assert_array_equal(read_picture(Path("out", name)).pixels, restorer.restore(noise(seed=seed)))
    again = options(skip_existing=True)
    Path("in", "d.png").unlink()
    assert plan_run(again).jobs == [] and restore_files(again) == RunReport(skipped=3)
    assert capfd.readouterr() == ("", "")


def test_pictures_that_fail_leave_the_others():
    restorer = ImageRestorer(MODEL.config, MODEL.checkpoint, "cpu", "error", dtype="float32")
    pictures = [Picture(noise(seed=1)), Picture(noise(9, 9)), Picture(noise(seed=2), noise(seed=3)[..., 0])]
    before = restorer.network_seconds
    first, second, third = restore_pictures(restorer, pictures, ["a", "b", "c"], alpha="restore", outscale=2)
    assert first.unwrap().pixels.shape == (16, 16, 3) and third.unwrap().alpha.shape == (16, 16)
    assert str(second.error).startswith("b has 9x9 pixels, but the model takes 8x8 only.")
    assert restorer.network_seconds > before == 0
    assert restore_pictures(restorer, [], []) == []


def test_transparency_is_cropped_as_the_picture_is():
    """30x20 is cropped to the 20 columns in the middle, of which the last 5 are opaque: a quarter of the result."""
    restorer = ImageRestorer(MODEL.config, MODEL.checkpoint, "cpu", SizePolicy("resize", "crop"), dtype="float32")
    alpha = np.zeros((20, 30), np.uint8)
    alpha[:, 20:] = 255
    (outcome,) = restore_pictures(restorer, [Picture(noise(20, 30), alpha)], ["a"])
    result = outcome.unwrap().alpha
    assert result.shape == (64, 64) and (result[:, :46] < 8).all() and (result[:, 50:] > 247).all()


def test_a_network_is_shared():
    first = ImageRestorer(MODEL.config, MODEL.checkpoint, "cpu", dtype="float32")
    second = ImageRestorer(first.network, size_policy="tile")
    assert second.network is first.network and second.size_policy.name == "tile"
    second.restore(noise())
    assert first.network_seconds == 0 < second.network_seconds
    assert fault(lambda: ImageRestorer(first.network, device="cpu")) == (
        "The network is loaded already, so device cannot be chosen. Leave it out."
    )
