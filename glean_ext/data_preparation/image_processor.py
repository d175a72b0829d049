"""Reads, checks, crops, resizes and writes many images, in several processes."""

from __future__ import annotations

import base64
import hashlib
import multiprocessing
import os
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
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
from glean_ext.utils.processes import quiet_processes

Task = tuple[Entry, str]  # an image of the source, and its file name in the output

CHUNK = 8  # images that a process gets at a time


@dataclass(frozen=True)
class ImageProcessor:
    """Makes the images of one data set.

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

    def process(self, task: Task) -> ImageRecord:
        """Write the files of an image. The record of one that cannot be used says why.

        Raises:
            InputError: Files cannot be written.
        """
        entry, name = task
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


def process_all(processor: ImageProcessor, tasks: Sequence[Task], workers: int) -> Generator[ImageRecord]:
    """Write the files of all images; yields their records.

    Args:
        processor: Makes them.
        tasks: What to make.
        workers: Number of processes; with one worker, or few images, this process does the work.

    Raises:
        InputError: Files cannot be written, or a process was killed.
    """
    for kind in processor.options.shapes:
        with write_errors_as_input_errors(processor.staging / kind):
            (processor.staging / kind).mkdir(parents=True, exist_ok=True)
    workers = min(workers, -(-len(tasks) // CHUNK))
    if workers < 2:
        yield from map(processor.process, tasks)
        return
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _begin_process, (processor, reader))
    try:
        with quiet_processes(threads=1):
            results = pool.map(_process, tasks, chunksize=CHUNK)
        yield from results
    except BrokenProcessPool as error:
        raise InputError(
            "A process was killed while it made images, perhaps for lack of memory.",
            parameter="workers",
            hint="Set {workers} to fewer processes; the next run continues from here.",
        ) from error
    finally:
        writer.close()  # the pool itself would wait until all images are made that its processes have got
        pool.shutdown(cancel_futures=True)


_processor: ImageProcessor  # of a process of the pool


def _begin_process(processor: ImageProcessor, reader: Connection) -> None:
    global _processor
    _processor = processor
    threading.Thread(target=_end_with_pipe, args=(reader,), daemon=True).start()


def _process(task: Task) -> ImageRecord:
    return _processor.process(task)


def _end_with_pipe(reader: Connection) -> None:
    """End this process when its parent closes the pipe or is killed, be it before the imports of this one were done."""
    reader.poll(None)
    os._exit(1)
