"""Tools without streams, with streams that cannot be written to, and without a folder for temporary files."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glean_ext.config import load_config
from glean_ext.errors import InputError
from glean_ext.utils.image_io import read_rgb

ROOT = Path(__file__).parents[2]
MODEL = "demo_glean_x8", "glean-ext://demo_glean_x8.safetensors"
TOOL = [sys.executable, "-B", ROOT / "tools" / "infer.py", *MODEL]


@pytest.fixture
def images(tmp_path):
    """A TIFF, whose decoder has a stderr of its own, and a PNG."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for name in "a.tif", "b.png":
        Image.fromarray(noise).save(tmp_path / name)
    return ["a.tif", "b.png", "-o", "out", "--device", "cpu"]


def start(arguments, folder, closed=(), **options):
    """Run the tool without the streams of these numbers."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}

    def close():
        for number in closed:
            os.close(number)

    return subprocess.run([*TOOL, *arguments], cwd=folder, env=env, preexec_fn=close, **options)


@pytest.mark.parametrize("closed", [*(pytest.param(one, marks=pytest.mark.slow) for one in [(1,), (2,)]), (0, 1, 2)])
def test_closed_streams(images, tmp_path, closed):
    done = start(images, tmp_path, closed)
    assert done.returncode == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif.png", "b.png"]
    for path in (tmp_path / "out").iterdir():  # with nothing of what was printed in them
        assert read_rgb(path).shape == (64, 64, 3)
    assert start(["no.png", "-o", "x.png"], tmp_path, closed).returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_streams_on_a_full_disk(images, tmp_path):
    with open("/dev/full", "w") as full:
        done = start(images, tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 2 and done.stderr == (
            "error: stdout cannot be written to (No space left on device). Results that were written before are "
            "complete.\n"
        )
        assert start(["no.png", "-o", "x.png"], tmp_path, stderr=full).returncode == 2


def test_a_reader_that_has_ended(images, tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = start(images, tmp_path, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("inputs", [pytest.param(["a.tif"], marks=pytest.mark.slow), ["a.tif", "b.tif"]])
def test_notices_that_cannot_be_printed(inputs, tmp_path):
    """Notices about files come from other threads than the summary."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    pages = [Image.fromarray(page) for page in noise]
    for name in inputs:
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    arguments = [*inputs, "-o", "out", "--device", "cpu"]
    with open("/dev/full", "w") as full:
        done = start(arguments, tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr == (
        "error: stdout cannot be written to (No space left on device). Results that were written before are complete.\n"
    )
    assert read_rgb(tmp_path / "out" / "a.tif.png").shape == (64, 64, 3)
    read, write = os.pipe()
    os.close(read)
    done = start([*arguments, "--overwrite"], tmp_path, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_missing_folder_for_temporary_files(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no"))
    with pytest.raises(InputError) as caught:
        load_config("demo_glean_x8")
    assert str(caught.value) == (
        f"{tmp_path}/no, the folder for temporary files, cannot be written to (No such file or directory). Free space "
        "in it, or set TMPDIR to another folder."
    )
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "no")])
    with pytest.raises(
        InputError, match=r"^\[Errno 2\] No usable temporary directory found in .* Set TMPDIR to a folder"
    ):
        load_config("demo_glean_x8")


def test_a_full_folder_for_temporary_files(images, tmp_path):
    """A process that may write 100 bytes a file."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*TOOL, *images],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    assert done.returncode == 2 and done.stderr == (
        f"error: {tmp_path}, the folder for temporary files, cannot be written to (File too large). Free space in it, "
        "or set TMPDIR to another folder.\n"
    )


def test_configs_that_fail_are_still_blamed_for_it(tmp_path):
    (tmp_path / "bad.py").write_text("open('nowhere/at/all')\n")
    with pytest.raises(InputError, match=r"bad\.py: a file that it names is missing \(nowhere/at/all\)"):
        load_config(tmp_path / "bad.py")
