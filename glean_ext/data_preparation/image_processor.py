"""Reads, checks, crops, resizes and writes many images, in several processes."""

from __future__ import annotations

import base64
import ctypes
import hashlib
import os
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path

from PIL import Image

from glean_ext.data_preparation.crop_resize import FaceCrop, RejectedImageError, crop_and_resize
from glean_ext.data_preparation.duplicate_search import thumbnail
from glean_ext.data_preparation.options import PreparationOptions
from glean_ext.data_preparation.readers import Entry, Source
from glean_ext.data_preparation.record_log import ImageRecord, write_errors_as_input_errors
from glean_ext.data_preparation.writers import PNG_LEVEL
from glean_ext.errors import InputError, UnreadableImageError
from glean_ext.utils.image_io import ImageTooLargeError, decode_picture, pixel_limit
from glean_ext.utils.imresize import imresize
from glean_ext.utils.picture import Picture

Task = tuple[Entry, str]  # an image of the source, and its file name in the output

PR_SET_PDEATHSIG = 1  # prctl's: the signal that this process gets when its parent ends
CHUNK = 8  # images that a process gets at a time
# BLAS threads of several processes would slow each other down.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class ImageProcessor:
    """Makes the images of one data set; a dataset in the sense of torch's DataLoader, whose index is a list of tasks.

    Attributes:
        source: The raw images.
        staging: Folder whose subfolders ``GT`` and ``LQ`` get the PNG files.
        options: How.
        face_crop: Finds the face, for ``crop='face'``.
    """

    source: Source
    staging: Path
    options: PreparationOptions
    face_crop: FaceCrop | None = None

    def __getitem__(self, tasks: Sequence[Task]) -> list[ImageRecord] | InputError:
        """Write the files of some images. The record of an image that cannot be used says why.

        Returns:
            The records; or the error when files cannot be written, since DataLoader would put a traceback into it.
        """
        try:
            return [self._process(entry, name) for entry, name in tasks]
        except InputError as error:
            return error

    def read(self, entry: Entry) -> Picture:
        """An image of the source.

        Raises:
            UnreadableImageError: It is damaged.
            InputError: It cannot be read, or has more than ``max_pixels``.
        """
        try:
            with pixel_limit(self.options.max_pixels):
                return decode_picture(self.source.read(entry), entry.key)
        except ImageTooLargeError as error:
            raise InputError(error.message, "max_pixels", "Or give a larger {max_pixels}.") from error

    def _process(self, entry: Entry, name: str) -> ImageRecord:
        try:
            picture = self.read(entry)
            image = picture.flattened
            cropped = crop_and_resize(image, self.options, self.face_crop)
        except InputError as error:
            # What is not the file's own damage, such as its permissions, may be better in the next run.
            stamp = entry.stamp if isinstance(error, UnreadableImageError) else ""
            return ImageRecord(entry.key, stamp, name, "unreadable", str(error))
        except RejectedImageError as error:
            return ImageRecord(entry.key, entry.stamp, name, error.kind, f"{entry.key}: {error.reason}.")
        sizes = {}
        for kind, (width, height) in self.options.shapes.items():
            resized = cropped if kind == "GT" else imresize(cropped, size=(height, width))
            path = self.staging / kind / name
            with write_errors_as_input_errors(path):
                Image.fromarray(resized).save(path, "PNG", compress_level=PNG_LEVEL)
                sizes[kind] = path.stat().st_size
        return ImageRecord(
            entry.key,
            entry.stamp,
            name,
            pixels=image.shape[0] * image.shape[1],
            digest=hashlib.sha256(cropped.tobytes()).hexdigest(),
            thumbnail=base64.b64encode(thumbnail(cropped).tobytes()).decode(),
            sizes=sizes,
            further=", ".join(picture.further),
        )


def process_all(processor: ImageProcessor, tasks: Sequence[Task], workers: int) -> Generator[list[ImageRecord]]:
    """Write the files of all images; yields the records of a few images at a time, in any order.

    Args:
        processor: Makes them.
        tasks: What to make.
        workers: Number of processes; with one worker, or few images, this process does the work.

    Raises:
        InputError: Files cannot be written.
    """
    from torch.utils.data import DataLoader  # takes seconds to import

    chunks = [tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK)]
    for kind in processor.options.shapes:
        with write_errors_as_input_errors(processor.staging / kind):
            (processor.staging / kind).mkdir(parents=True, exist_ok=True)
    several = min(workers, len(chunks)) > 1
    loader: DataLoader = DataLoader(
        processor,  # type: ignore[arg-type]
        sampler=chunks,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=min(workers, len(chunks)) if several else 0,
        collate_fn=_keep,
        multiprocessing_context="spawn" if several else None,
        in_order=False,
        worker_init_fn=partial(_end_with_parent, os.getpid()),
    )
    with _set_up_processes():
        results = iter(loader)
    for result in results:
        if isinstance(result, InputError):
            raise result
        yield result


@contextmanager
def killed_processes_as_input_errors() -> Iterator[None]:
    """Report a process of :func:`process_all` that was killed in one line.

    Around all code that runs meanwhile: torch raises the error wherever the main thread is.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) or "Traceback" in str(error):
            raise
        raise InputError(
            "A process was killed while it made images, perhaps for lack of memory.",
            parameter="workers",
            hint="Set {workers} to fewer processes; the next run continues from here.",
        ) from error


def _end_with_parent(parent: int, worker: int) -> None:
    """End this process with its parent, also where that was killed before the imports of this one were done.

    torch's worker takes whatever process is its parent at its start for the one to watch: without this it would stay.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _keep(result: object) -> object:
    return result


@contextmanager
def _set_up_processes() -> Iterator[None]:
    """Processes that start meanwhile compute with one thread, and signals to all processes do not reach them.

    The parent ends them. A process that Ctrl-C ends during its imports writes a traceback, and one that is ended by
    SIGTERM looks as if it were out of memory.
    """
    before = {name: os.environ[name] for name in ONE_THREAD if name in os.environ}
    os.environ.update(ONE_THREAD)
    resource_tracker.ensure_running()  # its start would unblock signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name in ONE_THREAD:
            del os.environ[name]
        os.environ.update(before)
