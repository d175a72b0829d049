"""glean-restore, with the shipped demo models: what it writes, what it keeps, how it ends."""

from __future__ import annotations

import os
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from support.tools import only_error, run_main

from glean_ext.cli import restore as command
from glean_ext.faces.detection import FaceFinder
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.utils.image_io import Picture, read_picture, read_rgb, write_picture
from glean_ext.utils.imresize import imresize
from glean_ext.utils.messages import printable

ROOT = Path(__file__).parents[2]
GLEAN = "demo_glean_x8", "glean-ext://demo_glean_x8.safetensors"
LIGHT = "demo_lightglean_x8", "glean-ext://demo_lightglean_x8.safetensors"
CARTOONS = (
    "warning: demo_glean_x8: A small demonstration that was trained on cartoon faces only: photographs become "
    "cartoons. glean models shows others.\n"
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(height: int = 8, width: int = 8, channels: int = 3, dtype=np.uint8, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def folder_of(place: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        write_picture(Picture(noise(seed=seed)), place / name)
    return place


@pytest.fixture
def restore(capsys, tmp_path, monkeypatch):
    """Run the command in this process and in ``tmp_path``, on the CPU: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_main(command.main, capsys, *arguments, "--device", "cpu", "--dtype", "float32")


@pytest.fixture
def fault(restore):
    """Run the command, expect exit code 2 and one line on stderr; the line."""
    return lambda *arguments: only_error(*restore(*arguments))


@pytest.fixture(scope="module")
def glean() -> ImageRestorer:
    return ImageRestorer(*GLEAN, device="cpu", dtype="float32", notify=lambda line: None)


@pytest.fixture(scope="module")
def light() -> ImageRestorer:
    return ImageRestorer(*LIGHT, device="cpu", dtype="float32", notify=lambda line: None)


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------- files


def test_a_tree_of_folders(restore, glean, tmp_path):
    """With a shipped config by its name, from any folder."""
    folder_of(tmp_path / "in", "a.png", "deep/b.png", "deep/er/c.png")
    (tmp_path / "in" / "notes.txt").touch()
    (tmp_path / "in" / "link").symlink_to("deep")
    code, stdout, stderr = restore(*GLEAN, "in", "-o", "out", "--suffix", "_x8")
    assert (code, stderr) == (0, "") and written(tmp_path / "out") == ["a_x8.png", "deep/b_x8.png", "deep/er/c_x8.png"]
    for seed, name in enumerate(written(tmp_path / "out")):
        np.testing.assert_array_equal(read_rgb(tmp_path / "out" / name), glean.restore(noise(seed=seed)))
    assert "left out, no images: notes.txt\nleft out, links to folders: link\n" in stdout
    assert re.search(r"^3 restored; \d+\.\d s, \d+\.\d images/s, \d+% of the time in the network$", stdout, re.M)


def test_several_inputs_patterns_and_batches(restore, glean, tmp_path):
    folder_of(tmp_path, "a.png", "b1.png", "b2.png", "c/d.png", "c/e.png")
    assert restore(*GLEAN, "a.png", "b*.png", "c", "-o", "out", "--batch", "4")[0] == 0
    assert written(tmp_path / "out") == ["a.png", "b1.png", "b2.png", "d.png", "e.png"]
    for seed, name in enumerate(written(tmp_path / "out")):
        difference = np.abs(read_rgb(tmp_path / "out" / name).astype(int) - glean.restore(noise(seed=seed)))
        assert difference.max() <= 1  # a batch sums in another order


def test_failures_are_listed_at_the_end_and_the_rest_is_written(restore, tmp_path):
    folder_of(tmp_path / "in", "a.png", "c.png")
    (tmp_path / "in" / "b.png").write_bytes(b"\x89PNG no more")
    code, stdout, stderr = restore(*GLEAN, "in", "-o", "out")
    assert code == 2 and written(tmp_path / "out") == ["a.png", "c.png"]
    assert stderr == "error: 1 of 3 images in in failed (b.png); why is said above. The others are in out.\n"
    assert "2 restored; 1 failed; " in stdout and "\nfailed: in/b.png is no image" in stdout


def test_names_of_any_kind(tmp_path):
    """Not UTF-8, as long as names can be, rich's markup, a pattern's characters; no files: a pipe and a dead link."""
    folder = os.fsencode(tmp_path / "in")
    names = b"\xff.png", b"a" * 251 + b".png", b"[red]x *.png"
    for name in names:
        folder_of(tmp_path / "in", os.fsdecode(name))
    os.mkfifo(folder + b"/pipe.png")
    os.symlink("nowhere", folder + b"/link.png")
    (tmp_path / "in" / os.fsdecode(b"\xfe.txt")).touch()
    done = subprocess.run(
        [sys.executable, ROOT / "tools/infer.py", *GLEAN, "in", "-o", "out"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == sorted(names)
    assert done.returncode == 2 and done.stderr.startswith("error: 1 of 4 images in in failed (link.png); ")
    assert "left out, no images: pipe.png, \\udcfe.txt\n" in done.stdout


@pytest.mark.parametrize("letter", ["\x1b[2J", "\n", "\r", "\x07", "\x9b31m", "\u202e", "\u2028"])
def test_control_characters_of_names_are_escaped(restore, tmp_path, letter):
    """In lists, notices, failures and the error at the end."""
    folder_of(tmp_path / f"in{letter}", f"a{letter}.png")
    (tmp_path / f"in{letter}" / f"b{letter}.png").write_text("text")
    (tmp_path / f"in{letter}" / f"c{letter}.txt").touch()
    write_picture(Picture(noise(9, 9)), tmp_path / f"in{letter}" / f"d{letter}.png")
    code, stdout, stderr = restore(*GLEAN, f"in{letter}", "-o", f"out{letter}")
    shown = repr(letter)[1:-1]
    assert code == 2 and letter not in stdout.replace("\n", "" if letter == "\n" else "\n") and stderr.count("\n") == 1
    assert letter not in stderr.rstrip("\n")
    for text in f"no images: c{shown}.txt", f"d{shown}.png has 9x9 pixels", f"failed: in{shown}/b{shown}.png is no":
        assert text in stdout
    assert f"images in in{shown} failed (b{shown}.png)" in stderr and f"others are in out{shown}." in stderr
    code, stdout, stderr = restore(*GLEAN, f"no{letter}.png", "-o", "x.png")
    assert stderr.startswith(f"error: no{shown}.png: ") and stderr.count("\n") == 1


def test_joiners_of_emoji_are_kept():
    assert printable("👩\u200d👩.png é") == "👩\u200d👩.png é"


# ---------------------------------------------------------------- outputs that exist


def test_an_interrupted_run_goes_on(restore, fault, tmp_path):
    folder_of(tmp_path / "in", "a.png", "b.png", "c.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.png").write_bytes(b"as it was")
    assert fault("no.py", "no", "in", "-o", "out") == (  # before the model is looked at
        "1 of 3 outputs exist in out (b.png). Give --overwrite to replace them, or --skip-existing to restore the "
        "others only."
    )
    assert written(tmp_path / "out") == ["b.png"]
    code, stdout, _ = restore(*GLEAN, "in", "-o", "out", "--skip-existing")
    assert code == 0 and "2 restored; 1 skipped, which existed; " in stdout
    assert (tmp_path / "out" / "b.png").read_bytes() == b"as it was"
    assert restore("no.py", "no", "in", "-o", "out", "--skip-existing") == (
        0,
        "all 3 outputs exist; there is nothing to do\n",
        "",
    )
    assert "3 restored; " in restore(*GLEAN, "in", "-o", "out", "--overwrite")[1]
    assert read_rgb(tmp_path / "out" / "b.png").shape == (64, 64, 3)
    assert "not allowed with argument" in fault(*GLEAN, "in", "-o", "out", "--overwrite", "--skip-existing")


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGHUP, "terminated"),
        pytest.param(signal.SIGTERM, "terminated", marks=pytest.mark.slow),
    ],
)
def test_signals_leave_whole_files_only(tmp_path, number, word):
    """A real process and a real signal, in the middle of the work."""
    for index in range(400):
        write_picture(Picture(noise(seed=index)), tmp_path / "in" / f"{index:03d}.png")
    out, arguments = tmp_path / "out", [sys.executable, ROOT / "tools/infer.py", *GLEAN, "in", "-o", "out"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        arguments,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # under nohup the tests ignore SIGHUP
        **pipes,
    )
    deadline = time.monotonic() + 60
    while not (out.is_dir() and len(written(out)) > 3) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (128 + number, f"{word}\n")
    names = written(out)
    assert 3 < len(names) < 400 and all(re.fullmatch(r"\d{3}\.png", name) for name in names)
    for name in names:
        assert read_rgb(out / name).shape == (64, 64, 3)


def test_signals_that_are_ignored_stay_so(tmp_path):
    """As under nohup."""
    code = (
        "import os, signal\n"
        "from glean_ext import cli\n"
        "def main():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)  # the second one does not disturb what closes\n"
        "        print('closed')\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "cli.run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, "closed\n", "terminated\n")


# ---------------------------------------------------------------- what belongs to a picture


def test_16_bits_and_profiles_are_kept(restore, light, tmp_path):
    picture = Picture(noise(9, 12, dtype=np.uint16), None, SRGB)
    write_picture(picture, tmp_path / "a.png")
    assert restore(*LIGHT, "a.png", "-o", "out.png") == (0, "Restored: out.png (96 × 72)\n", "")
    result = read_picture(tmp_path / "out.png")
    assert result.icc == SRGB and result.alpha is None
    np.testing.assert_array_equal(result.pixels, light.restore(picture.pixels))
    assert result.pixels.dtype == np.uint16 and (result.pixels % 257 != 0).mean() > 0.9


def test_what_a_result_does_not_hold_is_named(restore, tmp_path):
    """Frames of animations, with --photo too; files that hold no more are not mentioned."""
    frames = [Image.fromarray(noise(8, 8, seed=seed)) for seed in range(5)]
    (tmp_path / "in").mkdir()
    for name in "a.gif", "b.webp":
        frames[0].save(tmp_path / "in" / name, save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(tmp_path / "in" / "c.png")
    for options in (), ("--photo",):
        code, stdout, _ = restore(*GLEAN, "in", "-o", "out", "--overwrite", *options)
        lines = [line for line in stdout.splitlines() if "holds more than its result" in line]
        assert code == 0 and [line[:9] for line in sorted(lines)] == ["in/a.gif ", "in/b.webp"]
        assert all("4 more frames" in line for line in lines)
    code, stdout, _ = restore(*GLEAN, "in/a.gif", "-o", "a.mp4")
    assert code == 0 and "a.mp4: 5 frames of 64x64; " in stdout


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency(restore, light, tmp_path, dtype):
    picture = Picture(noise(9, 12, dtype=dtype), noise(9, 12, 1, dtype=dtype))
    write_picture(picture, tmp_path / "a.png")
    for how in "upsample", "restore":
        assert restore(*LIGHT, "a.png", "-o", f"{how}.png", "--alpha", how)[0] == 0
    up, through = read_picture(tmp_path / "upsample.png"), read_picture(tmp_path / "restore.png")
    np.testing.assert_array_equal(up.pixels, light.restore(picture.filled))
    np.testing.assert_array_equal(up.alpha, imresize(picture.alpha, size=(72, 96)))
    step = 1 if dtype == np.uint8 else 8  # two pictures at once are summed in another order
    assert np.abs(through.pixels.astype(int) - up.pixels).max() <= step
    gray = light.restore(np.repeat(picture.alpha[..., None], 3, 2)).astype(float).mean(2)
    assert np.abs(through.alpha - gray).max() <= step + 0.5


@pytest.mark.parametrize("options", [(), ("--fit", "crop")])
def test_resized_pictures_keep_their_transparency(restore, tmp_path, options):
    """By GLEAN, 30x20 comes out as 64x43, or cropped as 64x64; the alpha shows the same part."""
    alpha = np.zeros((20, 30), np.uint8)
    alpha[:, 15:] = 255
    write_picture(Picture(noise(20, 30), alpha), tmp_path / "a.png")
    assert restore(*GLEAN, "a.png", "-o", "out.png", "--compare", "--suffix", "", *options)[0] == 0
    result = read_picture(tmp_path / "out.png")
    assert result.pixels.shape == ((64, 64, 3) if options else (43, 64, 3))
    assert (result.alpha[:, :30] < 8).all() and (result.alpha[:, 34:] > 247).all()


def test_outscale(restore, light, fault, tmp_path):
    write_picture(Picture(noise(9, 12), noise(9, 12, 1)), tmp_path / "a.png")
    assert restore(*LIGHT, "a.png", "-o", "out.png", "--outscale", "2.5")[0] == 0
    result = read_picture(tmp_path / "out.png")
    assert result.pixels.shape == (22, 30, 3) and result.alpha.shape == (22, 30)
    expected = imresize(light.restore(read_picture(tmp_path / "a.png").filled), size=(22, 30))
    np.testing.assert_array_equal(result.pixels, expected)
    assert (
        fault(*LIGHT, "a.png", "-o", "b.png", "--outscale", "-1")
        == "--outscale is -1, but it must be a positive number."
    )
    assert "a.png: with outscale 5000 the result would have 60000x45000 pixels, but" in fault(
        *LIGHT, "a.png", "-o", "b.png", "--outscale", "5000"
    )


def test_before_and_after(restore, tmp_path):
    for dtype, name in (np.uint8, "a"), (np.uint16, "b"):
        write_picture(Picture(noise(9, 12, dtype=dtype), icc=SRGB), tmp_path / "in" / f"{name}.png")
    assert restore(*LIGHT, "in", "-o", "out", "--compare")[0] == 0
    assert read_picture(tmp_path / "out" / "b_compare.png").icc == SRGB
    assert written(tmp_path / "out") == ["a.png", "a_compare.png", "b.png", "b_compare.png"]
    sheet = read_rgb(tmp_path / "out" / "a_compare.png")
    assert sheet.shape == (72, 96 + 8 + 96, 3) and (sheet[:, 96:104] == 255).all()
    np.testing.assert_array_equal(sheet[:, :96], imresize(noise(9, 12), size=(72, 96)))
    np.testing.assert_array_equal(sheet[:, 104:], read_rgb(tmp_path / "out" / "a.png"))
    fine = read_picture(tmp_path / "out" / "b.png").pixels
    assert np.abs(read_rgb(tmp_path / "out" / "b_compare.png")[:, 104:] - fine / 257).max() <= 0.51


# ---------------------------------------------------------------- whole photographs


@pytest.fixture(scope="module")
def portrait():
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut()[:256, 96:352])


def test_photographs(restore, tmp_path, portrait):
    alpha = np.full(portrait.shape[:2], 200, np.uint16)
    write_picture(Picture(portrait.astype(np.uint16) * 257, alpha, SRGB), tmp_path / "in" / "face.png")
    write_picture(Picture(noise(40, 50)), tmp_path / "in" / "none.png")
    options = "--photo", "--outscale", "1", "--save-faces", "faces", "--compare"
    code, stdout, stderr = restore(*GLEAN, "in", "-o", "out", *options)
    assert (code, stderr) == (0, "")
    assert re.search(r"^2 restored; 1 face\(s\); ", stdout, re.M)
    assert "in/none.png: no face was found; nothing was restored.\n" in stdout
    assert written(tmp_path / "out") == ["face.png", "face_compare.png", "none.png", "none_compare.png"]
    assert written(tmp_path / "faces") == ["face_face00.png", "face_face00_restored.png"]
    result = read_picture(tmp_path / "out" / "face.png")
    assert result.icc == SRGB and (result.alpha == 200).all()
    changed = (result.pixels != portrait.astype(np.uint16) * 257).any(2)
    assert changed[:, :40].sum() == 0 and 0.05 < changed.mean() < 0.4  # the head alone
    assert read_picture(tmp_path / "faces" / "face_face00.png").pixels.shape == (8, 8, 3)
    assert read_picture(tmp_path / "faces" / "face_face00_restored.png").pixels.shape == (64, 64, 3)
    np.testing.assert_array_equal(read_picture(tmp_path / "out" / "none.png").pixels, noise(40, 50))


def test_small_photographs_are_enlarged(restore, tmp_path, portrait, monkeypatch):
    write_picture(Picture(portrait), tmp_path / "a.png")
    write_picture(Picture(noise(40, 50)), tmp_path / "none.png")
    photo = *GLEAN, "a.png", "--photo", "--overwrite", "-o"
    assert restore(*photo, "b.jpg")[1].endswith("Restored: b.jpg (512 × 512), 1 face\n")
    assert restore(*photo, "b.jpg", "--max-pixels", 4 * 256 * 256 - 1)[1].endswith("b.jpg (256 × 256), 1 face\n")
    monkeypatch.setattr("glean_ext.faces.photo_restorer.SMALL_PHOTO", 256 * 256 - 1)
    assert restore(*photo, "b.jpg")[1].endswith("Restored: b.jpg (256 × 256), 1 face\n")
    code, stdout, _ = restore(*GLEAN, "none.png", "--photo", "-o", "c.webp")
    assert code == 0 and stdout.endswith("Written: c.webp (100 × 80), no faces\n")


def test_results_as_jpeg(restore, light, tmp_path):
    picture = Picture(noise(9, 12), noise(9, 12, 1), SRGB, dpi=(300, 300))
    write_picture(picture, tmp_path / "in" / "c.png")
    for name in "a.jpg", "b.png":
        Image.fromarray(picture.pixels).save(tmp_path / "in" / name)
    code, stdout, stderr = restore(*LIGHT, "in", "-o", "out", "--format", "jpg", "--suffix", "_x8", "--compare")
    assert (code, stderr) == (0, "")
    lost = "warning: out/c_x8.png.jpg: JPEG has no place for transparency (it is laid over white); PNG has.\n"
    assert lost in stdout and stdout.count("warning: ") == 1
    assert written(tmp_path / "out") == [
        *("a_x8.jpg", "a_x8_compare.png", "b_x8.png.jpg", "b_x8.png_compare.png"),
        *("c_x8.png.jpg", "c_x8.png_compare.png"),
    ]
    result = read_picture(tmp_path / "out" / "c_x8.png.jpg")
    assert result.icc == SRGB and result.dpi == (300, 300)
    expected = light.restore(noise(9, 12)).astype(int)
    assert np.abs(read_rgb(tmp_path / "out" / "b_x8.png.jpg") - expected).mean() < 4


def test_a_pattern_goes_on_after_an_interruption(restore, tmp_path):
    folder_of(tmp_path / "in", "a.png", "b.png")
    arguments = *GLEAN, "**/*.png", "-o", "restored", "--skip-existing"
    assert restore(*arguments)[0] == 0
    (tmp_path / "restored" / "in" / "b.png").unlink()
    code, stdout, _ = restore(*arguments)
    assert code == 0 and stdout.startswith("1 restored; 1 skipped, which existed; ")
    assert written(tmp_path / "restored") == ["in/a.png", "in/b.png"]


def test_faces_that_exist(restore, fault, tmp_path, portrait):
    write_picture(Picture(portrait, icc=SRGB), tmp_path / "a.png")
    write_picture(Picture(noise()), tmp_path / "faces" / "a_face00.png")
    arguments = *GLEAN, "a.png", "-o", "out", "--photo", "--save-faces"
    assert fault(*arguments, "faces") == ("faces exist in faces (a_face00.png). Give --overwrite, or another folder.")
    assert fault(*arguments, "a.png/faces").startswith("a.png/faces cannot be written to (")
    assert restore(*arguments, "faces", "--skip-existing")[0] == 0
    np.testing.assert_array_equal(read_rgb(tmp_path / "faces" / "a_face00.png"), noise())
    assert read_picture(tmp_path / "faces" / "a_face00_restored.png").icc == SRGB
    assert restore(*arguments, "faces", "--overwrite")[0] == 0
    assert (read_rgb(tmp_path / "faces" / "a_face00.png") != noise()).any()


def test_choices_for_photographs(restore, fault, light, tmp_path, portrait):
    write_picture(Picture(portrait), tmp_path / "a.png")
    write_picture(Picture(noise(40, 50)), tmp_path / "none.png")
    photo = *GLEAN, "a.png", "-o"
    same = "--photo", "--outscale", "1", "--fidelity", "1"
    shown = f"{CARTOONS}{FaceFinder().about}\nRestored: same.png (256 × 256), 1 face\n"
    assert restore(*photo, "same.png", *same) == (0, shown, "")
    np.testing.assert_array_equal(read_rgb(tmp_path / "same.png"), portrait)
    large = "--photo", "--outscale", "2", "--background", *LIGHT
    assert restore(*GLEAN, "none.png", "-o", "large.png", *large)[0] == 0
    expected = imresize(light.restore(noise(40, 50)), size=(80, 100))
    np.testing.assert_array_equal(read_rgb(tmp_path / "large.png"), expected)
    shown = restore(*photo, "aligned.png", "--photo", "--aligned")[1]
    assert shown.endswith("\nRestored: aligned.png (64 × 64)\n") and FaceFinder().about not in shown
    assert read_rgb(tmp_path / "aligned.png").shape == (64, 64, 3)
    assert fault(*GLEAN, "none.png", "-o", "n.png", "--photo", "--when-no-face", "error") == (
        "none.png: no face was found. Lower --min-face if faces are small; an aligned face needs --aligned."
    )
    assert not (tmp_path / "n.png").exists()
    assert fault(*photo, "b.png", "--photo", "--fidelity", "2") == (
        "--fidelity is 2.0, but it must be between 0 (restores) and 1 (keeps the input)."
    )
    assert fault(*photo, "b.png", "--photo", "--background", "x.py") == (
        "--background takes bicubic, realesrgan, CONFIG CHECKPOINT, or MODEL.onnx. Give one of these."
    )


def test_a_crowd_is_refused(fault, tmp_path, portrait):
    write_picture(Picture(np.concatenate([portrait, portrait], 1)), tmp_path / "two.png")
    assert fault(*GLEAN, "two.png", "-o", "b.png", "--photo", "--max-faces", "1") == (
        "two.png has 2 faces, more than 1. Raise --min-face, which leaves small ones alone, or --max-faces."
    )


# ---------------------------------------------------------------- bad usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["a.py", "b.png", "-o", "out"],
            "Too little is given. Give CONFIG CHECKPOINT INPUT ..., or MODEL.onnx INPUT ....",
        ),
        (["m.onnx", "-o", "out"], "Too little is given. Give CONFIG CHECKPOINT INPUT ..., or MODEL.onnx INPUT ...."),
        (["m.onnx", "a.png", "-o", "b.png"], "m.onnx: there is no such file. Give the path of a model that"),
        (
            [*GLEAN, "a.png", "-o", "b.png", "--only-center-face"],
            "--only-center-face has no effect without --photo. See ",
        ),
        ([*GLEAN, "a.png", "-o", "b.png", "--max-faces", "5"], "--max-faces has no effect without --photo. See "),
        (
            [*GLEAN, "a.png", "-o", "b.png", "--photo", "--size-policy", "resize", "--fit", "crop"],
            "--fit crop has no use for faces, which are put back into whole photographs. Leave --fit out.",
        ),
        ([*GLEAN, "a.png", "-o", "b.png", "--crf", "60"], "--crf is 60, but it must be between 0 (lossless) and 51."),
        ([*GLEAN, "a.png", "-o", "b.png", "--crf", "nan"], "--crf is nan, but it must be between 0 (lossless) and 51."),
        ([*GLEAN, "a.png", "-o", "b.png", "--batch", "0"], "--batch is 0, but it must be at least 1."),
        ([*GLEAN, "a.png", "-o", "b.png", "--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        ([*GLEAN, "a.png", "-o", "a.png/b.png"], "a.png cannot be written to ("),
        (
            [*GLEAN, "a.png", "-o", "b.png", "--photo", "--alpha", "restore"],
            "--alpha restore has no effect with --photo: transparency is upsampled. Leave it out.",
        ),
        (["no_such_config", GLEAN[1], "a.png", "-o", "b.png"], "no_such_config: there is no such file."),
    ],
)
def test_bad_usage(fault, tmp_path, arguments, message):
    write_picture(Picture(noise()), tmp_path / "a.png")
    assert fault(*arguments).startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


# ---------------------------------------------------------------- bad input


def header_alone(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels."""
    data = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize("size", [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (15_000, 10_000)])
def test_images_too_large_are_refused(fault, tmp_path, size):
    (tmp_path / "a.png").write_bytes(header_alone(*size))
    assert fault(*GLEAN, "a.png", "-o", "b.png").startswith("a.png is ")
    assert not (tmp_path / "b.png").exists()


@pytest.mark.slow
def test_large_photographs_are_allowed(restore, fault, tmp_path):
    """By default as telephones make them; what is refused says how to allow it."""
    limit = Image.MAX_IMAGE_PIXELS
    write_picture(Picture(np.zeros((10_000, 10_800, 3), np.uint8)), tmp_path / "large.png")  # 108 megapixels
    assert restore(*GLEAN, "large.png", "-o", "out.png")[0] == 0
    write_picture(Picture(noise(40, 50)), tmp_path / "a.png")
    assert fault(*GLEAN, "a.png", "-o", "b.png", "--max-pixels", "1999") == (
        "a.png is too large: Image size (2000 pixels) exceeds limit of 1999 pixels. Crop it or scale it down. Or give "
        "a larger --max-pixels."
    )
    assert restore(*GLEAN, "a.png", "-o", "b.png", "--max-pixels", "2e3")[0] == 0
    photo = *GLEAN, "a.png", "-o", "c.png", "--photo", "--outscale", "2", "--max-pixels"
    assert fault(*photo, "7999") == (
        "a.png: with outscale 2 the result would have 100x80 pixels, but between 1 and 0.007999 million are written. "
        "Give another --outscale, or a larger --max-pixels."
    )
    assert restore(*photo, "8000")[0] == 0
    assert fault(*photo, "0") == "--max-pixels is 0, but it must be at least 1."
    assert fault(*photo, "500M").startswith("argument --max-pixels: 500M is no whole number.")
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_full_disk(tmp_path):
    """A process that may write 8,000 bytes a file (mmengine's copies of configs need some): nothing is left."""
    folder_of(tmp_path / "in", "a.png", "b.png")
    command = [sys.executable, "-B", ROOT / "tools/infer.py", *GLEAN, "in", "-o", "out", "--device", "cpu"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000)),
    )
    assert done.returncode == 2 and done.stderr.startswith("error: 2 of 2 images in in failed (a.png, b.png); ")
    assert "failed: out/a.png cannot be written (File too large). Choose another output.\n" in done.stdout
    assert written(tmp_path / "out") == []


# ---------------------------------------------------------------- docs


def test_the_first_example_in_python(glean, tmp_path):
    """Run as it stands there; MMagic is not imported."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/tutorials/library.md").read_text(), re.M | re.S)
    (example,) = (block for block in blocks if "restore_batch" in block)
    folder_of(tmp_path / "faces", "a.png", "b.png")
    code = example + "\nimport sys\nprint('mmagic' in sys.modules, restorer.network.dtype)\n"
    env = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.startswith("False ")
    most = 1 if done.stdout == "False float32\n" else 8  # bfloat16
    for seed, name in enumerate(("a.png", "b.png")):
        restored = read_rgb(tmp_path / "restored" / name).astype(int)
        assert np.abs(restored - glean.restore(noise(seed=seed))).max() <= most
