"""Runs of ``glean-restore`` on many tiny images, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import fsspec
import numpy as np
import psutil
import pytest

from glean_ext.utils.image_io import Picture, write_picture

ROOT = Path(__file__).parents[2]

# A sitecustomize.py with which the processes of workers are killed when they read killer.png.
KILLER = """
import os, signal, sys
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("killer.png") and "spawn_main" in " ".join(sys.orig_argv):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
"""


def write_images(folder: Path, count: int) -> None:
    """Images of 8x8 pixels, 500 in each folder."""
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
        write_picture(Picture(pixels), folder / f"{number // 500:02d}" / f"{number:05d}.png")


def start_restoring(source: Path, output: Path, *arguments: object, **environment: str) -> subprocess.Popen:
    """The command, as a process."""
    command = [sys.executable, "-m", "glean_ext", "restore", "--model", "demo_lightglean_x8", source, "-o", output]
    return subprocess.Popen(
        [*map(str, command), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def restore(source: Path, output: Path, *arguments: object, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    process = start_restoring(source, output, *arguments, **environment)
    stdout, stderr = process.communicate()
    return process.returncode, stdout, stderr


def results(folder: Path) -> dict[str, bytes]:
    """All files in a folder, hidden ones, too, by their path within it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wait_for_results(folder: Path, count: int, process: subprocess.Popen) -> None:
    """Wait until there are so many; the process must not end before."""
    while sum(1 for _ in folder.rglob("*.png")) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The processes that restore for it, the oldest first."""
    children = psutil.Process(process.pid).children()
    return sorted((c for c in children if "spawn_main" in " ".join(c.cmdline())), key=lambda child: child.create_time())


needs_s3 = pytest.mark.skipif(not (find_spec("moto") and find_spec("s3fs")), reason="needs moto[server] and s3fs")


@contextmanager
def s3_bucket(log: Path) -> Iterator[tuple[fsspec.AbstractFileSystem, dict[str, str]]]:
    """S3 in a process of this machine, with an empty ``bucket``: fsspec's view of it, and what reaches it."""
    from support.training import free_port  # loads torch, which the other tests need not

    url = f"http://127.0.0.1:{(port := free_port())}"
    with serving([sys.executable, "-c", "from moto.server import main; main()", "-p", str(port)], "Running on", log):
        store = fsspec.filesystem("s3", endpoint_url=url, key="a", secret="b")
        store.mkdir("bucket")
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
        yield store, {"AWS_ENDPOINT_URL": url, **keys}


@contextmanager
def serving(command: Sequence[str], ready: str, log: Path, **environment: str) -> Iterator[None]:
    """A server in a process of its own, from when it has written ``ready`` into its log."""
    with log.open("w") as file:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=file, stderr=file)
    try:
        while ready not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()
