"""Reads, checks, frames and writes many images, in as many processes as there are cores."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import multiprocessing.process
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from glean_ext.data_preparation.crop_resize import FaceCrop, Options, Unusable, frame
from glean_ext.data_preparation.duplicate_search import thumbnail
from glean_ext.data_preparation.manifest import Record
from glean_ext.data_preparation.readers import Entry, Source, open_source
from glean_ext.data_preparation.writers import PNG_LEVEL, write_errors_as_input_errors
from glean_ext.errors import InputError
from glean_ext.utils.image_io import decode_rgb
from glean_ext.utils.imresize import imresize

CHUNK = 8  # images a process is given at a time
WAITING = 3  # chunks for each process: one at work, others that wait
# Each process computes alone: BLAS threads of all of them would be in one another's way.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class ImageProcessor:
    """Makes the images of one data set. Processes get a copy.

    Attributes:
        source: Path of the raw images.
        staging: Folder whose subfolders ``GT`` and ``LQ`` get the PNG files.
        options: How.
        face_crop: Finds the face, for ``crop='face'``.
    """

    source: Path
    staging: Path
    options: Options
    face_crop: FaceCrop | None = None

    def make(self, source: Source, entry: Entry, name: str) -> Record:
        """Make the files of one image.

        Raises:
            InputError: They cannot be written. What is wrong with the image itself is told in the record.
        """
        try:
            image = decode_rgb(source.read(entry), entry.key)
            framed = frame(image, self.options, self.face_crop)
        except InputError as error:
            return Record(entry.key, entry.stamp, name, "unreadable", str(error))
        except Unusable as error:
            return Record(entry.key, entry.stamp, name, error.kind, f"{entry.key}: {error.reason}.")
        sizes = {"GT": _write(framed, self.staging / "GT" / name)}
        if self.options.lr_scale is not None:
            width, height = (side // self.options.lr_scale for side in self.options.shape)
            sizes["LQ"] = _write(imresize(framed, size=(height, width)), self.staging / "LQ" / name)
        return Record(
            entry.key,
            entry.stamp,
            name,
            pixels=image.shape[0] * image.shape[1],
            digest=hashlib.sha256(framed.tobytes()).digest(),
            thumbnail=thumbnail(framed).tobytes(),
            sizes=json.dumps(sizes),
        )


def _write(image: np.ndarray, path: Path) -> int:
    with write_errors_as_input_errors(path):
        Image.fromarray(image).save(path, "PNG", compress_level=PNG_LEVEL)
        return path.stat().st_size


def make_all(
    maker: ImageProcessor,
    source: Source,
    tasks: Sequence[tuple[Entry, str]],
    workers: int,
    done: Callable[[list[Record]], None],
) -> None:
    """Make the images of all entries, each under the name beside it.

    Args:
        maker: How.
        source: The raw images, opened by this process.
        tasks: Entries and file names.
        workers: Processes; with one, or few images, this process does it.
        done: Called with the records of a few images at a time, in any order.

    Raises:
        InputError: Files cannot be written, or a process was killed.
    """
    chunks = [tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK)]
    for folder in ("GT", "LQ") if maker.options.lr_scale is not None else ("GT",):
        with write_errors_as_input_errors(maker.staging / folder):
            (maker.staging / folder).mkdir(parents=True, exist_ok=True)
    workers = min(workers, len(chunks))
    if workers <= 1:
        for chunk in chunks:
            done([maker.make(source, entry, name) for entry, name in chunk])
        return
    with _environment(ONE_THREAD):
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (maker,))
        try:
            for records in _results(pool, chunks, workers):
                done(records)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _results(
    pool: ProcessPoolExecutor, chunks: list[Sequence[tuple[Entry, str]]], workers: int
) -> Iterator[list[Record]]:
    """Give the pool a few chunks at a time: millions of waiting ones would fill the memory."""
    running: dict[Future, Sequence[tuple[Entry, str]]] = {}
    waiting = iter(chunks)
    while True:
        while len(running) < WAITING * workers and (chunk := next(waiting, None)):
            with _uninterrupted():
                running[pool.submit(_make_chunk, chunk)] = chunk
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            chunk = running.pop(future)
            try:
                yield future.result()
            except BrokenProcessPool as error:
                raise InputError(
                    f"A process was killed while it made one of the images from {chunk[0][0].key} on, perhaps for lack "
                    "of memory. Run the same command with fewer --workers: it goes on."
                ) from error


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits. Processes that start meanwhile never see it: it would end them in the middle of their imports."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_here: tuple[ImageProcessor, Source]  # what a process of the pool works with


def _begin(maker: ImageProcessor) -> None:
    """Start of a process: Ctrl-C is for the parent, which ends the others; they end with it in any case."""
    global _here
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _here = maker, open_source(maker.source)


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _make_chunk(chunk: Sequence[tuple[Entry, str]]) -> list[Record]:
    maker, source = _here
    return [maker.make(source, entry, name) for entry, name in chunk]
