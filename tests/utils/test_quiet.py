"""Chatter of libraries is dropped, and nothing else is."""

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
CHATTER = re.compile(b"chatter")


def test_chatter_alone_is_dropped(capfd):
    with filter_stderr(CHATTER):
        os.write(2, b"chatter 1\nfirst\nchatter 2\nsecond\n")
    assert capfd.readouterr().err == "first\nsecond\n"
    with filter_stderr(MEDIAPIPE):
        os.write(2, b"W0000 00:00:17 1 x.cc:1] slow\nINFO: Created a delegate.\nout of memory\n")
    assert capfd.readouterr().err == "out of memory\n"


def test_all_is_shown_when_the_block_fails(capfd):
    with pytest.raises(ZeroDivisionError), filter_stderr(CHATTER):
        os.write(2, b"chatter\n")
        raise ZeroDivisionError
    assert capfd.readouterr().err == "chatter\n"
    with pytest.raises(InputError), filter_stderr(CHATTER):  # says itself what is wrong
        os.write(2, b"chatter\n")
        raise InputError("a.tif is damaged.")
    assert capfd.readouterr().err == ""


def test_threads_wait_for_each_other(capfd):
    def work(name: str) -> None:
        for number in range(50):
            with filter_stderr(CHATTER):
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
def test_damaged_tiffs_are_told_by_us_alone(capfd, tmp_path, compression):
    rng, told = np.random.default_rng(0), 0
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
                told += 1
    assert told and capfd.readouterr().err == ""


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
