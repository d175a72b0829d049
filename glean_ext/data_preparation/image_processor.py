"""Reads, checks, crops, resizes and writes many images, in several processes of this machine or a cluster."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from glean_ext.data_preparation.crop_resize import FaceCrop, RejectedImageError, crop_and_resize
from glean_ext.data_preparation.duplicate_search import thumbnail
from glean_ext.data_preparation.options import PreparationOptions
from glean_ext.data_preparation.readers import Entry, Source
from glean_ext.data_preparation.record_log import ImageRecord, write_errors_as_input_errors
from glean_ext.data_preparation.writers import PNG_LEVEL
from glean_ext.errors import InputError, Notice, UnreadableImageError
from glean_ext.utils.files import temporary_name
from glean_ext.utils.image_io import ImageTooLargeError, decode_picture, pixel_limit
from glean_ext.utils.imresize import imresize
from glean_ext.utils.picture import Picture
from glean_ext.utils.processes import count_cores
from glean_ext.workers import make_pool
from glean_ext.workers.dispatch import Dispatcher
from glean_ext.workers.pool import worker_count
from glean_ext.workers.worker import GroupReport, Worker, WorkerSpec

CHUNK = 8  # images that a process gets at a time


class Task(NamedTuple):
    """An image of the source, and its file name in the output."""

    entry: Entry
    name: str

    def __str__(self) -> str:
        return self.entry.key


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
            return unreadable(task, stamp, error)
        except RejectedImageError as error:
            return ImageRecord(entry.key, entry.stamp, name, error.kind, f"{entry.key}: {error.reason}.")
        sizes = {}
        for kind, (width, height) in self.options.shapes.items():
            resized = cropped if kind == "GT" else imresize(cropped, size=(height, width))
            path = self.staging / kind / name
            # A process of a killed run on another machine may still be writing the same file.
            partial = temporary_name(path)
            with write_errors_as_input_errors(path):
                Image.fromarray(resized).save(partial, "PNG", compress_level=PNG_LEVEL)
                sizes[kind] = partial.stat().st_size
                partial.replace(path)
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


@dataclass(frozen=True)
class Workforce:
    """Who makes the images.

    Attributes:
        workers: Number of processes; None: one for each core, of this machine or of the cluster.
        cluster: Address of a Ray cluster, which has them then; None: they run on this machine.
        notify: Called with what the user should know of them.
    """

    workers: int | None
    cluster: str | None
    notify: Callable[[Notice], None]


@dataclass(frozen=True)
class ProcessorSpec(WorkerSpec):
    """What a worker that makes images is made from."""

    processor: ImageProcessor

    def make(self) -> PreparationWorker:
        return PreparationWorker(self.processor)

    def for_elsewhere(self) -> ProcessorSpec:
        processor = self.processor
        staging = Path(os.path.abspath(processor.staging))
        return ProcessorSpec(replace(processor, source=processor.source.absolute(), staging=staging))


class PreparationWorker(Worker):
    """Makes images, one at a time. What it reports of a group are the records."""

    def __init__(self, processor: ImageProcessor):
        self._processor, self._turn, self._stopped = processor, threading.Lock(), False

    def work(self, group: tuple[Task, ...]) -> GroupReport:
        with self._turn:
            records = [self._processor.process(task) for task in group if not self._stopped]
        # What another machine, or a later run, may be able to read
        errors = {position: InputError(record.reason) for position, record in enumerate(records) if not record.stamp}
        return GroupReport(errors, content=[record for record in records if record.stamp])

    def stop(self) -> None:
        self._stopped = True


def process_all(
    processor: ImageProcessor, tasks: Sequence[Task], workforce: Workforce, on_record: Callable[[ImageRecord], None]
) -> None:
    """Write the files of all images.

    Args:
        processor: Makes them.
        tasks: What to make.
        workforce: Who does; with one worker, or few images, this process does the work.
        on_record: Called with the record of each image.

    Raises:
        InputError: Files cannot be written, the cluster cannot be used, or no process can be started.
    """
    for kind in processor.options.shapes:
        with write_errors_as_input_errors(processor.staging / kind):
            (processor.staging / kind).mkdir(parents=True, exist_ok=True)
    if workforce.cluster is None and min(worker_count(workforce.workers, count_cores()), -(-len(tasks) // CHUNK)) < 2:
        for task in tasks:
            on_record(processor.process(task))
        return

    def keep(group: object, report: GroupReport) -> None:
        for record in report.content:
            on_record(record)

    groups = [tuple(tasks[start : start + CHUNK]) for start in range(0, len(tasks), CHUNK)]
    with closing(make_pool(ProcessorSpec(processor), workforce.workers, workforce.cluster, workforce.notify)) as pool:
        report = Dispatcher(pool, groups, workforce.notify, keep).run()
    for task, error in report.failures.items():
        on_record(unreadable(task, "", error))


def unreadable(task: Task, stamp: str, error: InputError) -> ImageRecord:
    """The record of an image that could not be read; an empty stamp has the next run read it again."""
    return ImageRecord(task.entry.key, stamp, task.name, "unreadable", str(error))
