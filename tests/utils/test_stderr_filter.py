"""Messages of libraries on stderr are dropped, and no other lines; it works without a stderr, too."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glean_ext.errors import InputError
from glean_ext.utils.image_io import read_picture
from glean_ext.utils.stderr_filter import MEDIAPIPE, filter_stderr

ROOT = Path(__file__).parents[2]
UNWANTED = re.compile(b"chatter")


def test_chatter_alone_is_dropped(capfd):
    with filter_stderr(UNWANTED):
        os.write(2, b"chatter 1\nfirst\nchatter 2\nsecond\n")
    assert capfd.readouterr().err == "first\nsecond\n"
    with filter_stderr(MEDIAPIPE):
        os.write(2, b"W0000 00:00:17 1 x.cc:1] slow\nINFO: Created a delegate.\nout of memory\n")
    assert capfd.readouterr().err == "out of memory\n"


def test_all_is_shown_when_the_block_fails(capfd):
    with pytest.raises(ZeroDivisionError), filter_stderr(UNWANTED):
        os.write(2, b"chatter\n")
        raise ZeroDivisionError
    assert capfd.readouterr().err == "chatter\n"
    with pytest.raises(InputError), filter_stderr(UNWANTED):  # says itself what is wrong
        os.write(2, b"chatter\n")
        raise InputError("a.tif is damaged.")
    assert capfd.readouterr().err == ""


def test_threads_wait_for_each_other(capfd):
    def work(name: str) -> None:
        for number in range(50):
            with filter_stderr(UNWANTED):
                os.write(2, f"chatter\n{name}{number}\n".encode())

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"end\n")
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1] == "end" and sorted(lines[:-1]) == sorted(f"{name}{n}" for name in "abc" for n in range(50))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_damaged_tiffs_are_reported_by_us_alone(capfd, tmp_path, compression):
    rng, reported = np.random.default_rng(0), 0
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(stream, "TIFF", compression=compression)
    for _ in range(40):
        content = np.frombuffer(stream.getvalue(), np.uint8).copy()
        content[rng.integers(8, len(content), 10)] = 255
        (tmp_path / "a.tif").write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's
            try:
                read_picture(tmp_path / "a.tif")
            except InputError:
                reported += 1
    assert reported and capfd.readouterr().err == ""


def test_a_crash_of_the_network_is_not_silent(tmp_path):
    """In the middle of a run with real files: what C++ says at its end is seen."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code = """
import os
from glean_ext.cli.restore import main
from glean_ext.inference.torch_backend import TorchBackend

def restore(self, images):
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\\n")
    os.abort()

TorchBackend.restore = restore
main(["demo_glean_x8", "glean-ext://demo_glean_x8.safetensors", "a.png", "-o", "b.png", "--device", "cpu"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGABRT and "std::bad_alloc" in done.stderr


# ---------------------------------------------------------------- no stderr, no temporary folder

READ_A_TIFF = "from glean_ext.utils.image_io import read_picture; print(read_picture('a.tif').pixels.shape)"
FIND_A_FACE = (
    "from glean_ext.faces.detection import FaceFinder; from skimage import data;"
    "print(len(FaceFinder().find(data.astronaut()[:256, 100:356])))"
)


def run(folder: Path, code: str, redirection: str = "", **environment: str) -> tuple[int, str]:
    """Exit status and stdout of Python code; ``redirection`` is the shell's."""
    Image.new("RGB", (8, 9)).save(folder / "a.tif")
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLCONFIGDIR": str(folder)} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(("code", "expected"), [(READ_A_TIFF, "(9, 8, 3)\n"), (FIND_A_FACE, "1\n")])
@pytest.mark.parametrize(
    ("before", "redirection"),
    [("", "2>&-"), ("", "0<&- 2>&-"), ("import sys; sys.stderr = None;", ""), ("import os; os.close(2);", "")],
)
def test_without_a_stderr(tmp_path, code, expected, before, redirection):
    assert run(tmp_path, before + code, redirection) == (0, expected)


def test_stderr_that_nobody_reads(tmp_path):
    code = (
        "import os, re; from glean_ext.utils.stderr_filter import filter_stderr; r, w = os.pipe(); os.dup2(w, 2);"
        "os.close(w); os.close(r)\nwith filter_stderr(re.compile(b'x')): os.write(2, b'y')\nprint('done')"
    )
    assert run(tmp_path, code) == (0, "done\n")


def test_a_file_with_the_descriptor_of_a_closed_stderr_is_left_alone(tmp_path):
    code = (
        "import os, re; from glean_ext.utils.stderr_filter import filter_stderr; file = open('b', 'wb', 0);"
        "print(file.fileno())\nwith filter_stderr(re.compile(b'x')): file.write(b'x1')"
    )
    assert run(tmp_path, code, "2>&-") == (0, "2\n")
    assert (tmp_path / "b").read_bytes() == b"x1"


@pytest.mark.parametrize("code", [READ_A_TIFF, f"import os; del os.memfd_create; {READ_A_TIFF}"])
def test_without_a_temporary_folder(tmp_path, code):
    missing = "import tempfile; tempfile.tempdir = '/missing';"
    assert run(tmp_path, missing + code) == (0, "(9, 8, 3)\n")


def test_lines_pass_through_a_temporary_file_where_memory_files_are_missing(capfd, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    with filter_stderr(UNWANTED):
        os.write(2, b"chatter 1\nfirst\n")
    assert capfd.readouterr().err == "first\n"
