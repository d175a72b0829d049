"""From files to files: what is done with each picture on its way through the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glean_ext.batch.output_plan import Job
from glean_ext.batch.restore_pictures import PictureRestorer, PreparedPicture
from glean_ext.errors import InputError, Notice
from glean_ext.inference.size_policy import scaled, size_of
from glean_ext.utils.array_conversion import to_8_bits
from glean_ext.utils.image_io import ImageTooLargeError, Picture, opened, read_picture, require_image, write_picture
from glean_ext.utils.imresize import imresize
from glean_ext.utils.messages import log_notice
from glean_ext.utils.outcome import Outcome

Array = np.ndarray

GAP = 8  # white pixels between before and after


@dataclass(frozen=True, eq=False)
class PreparedJob:
    """A job and its picture, which is ready for the network."""

    job: Job
    content: PreparedPicture


class PictureStages:
    """Pictures restored as a whole, or in tiles; see :class:`glean_ext.batch.pipeline.Stages`.

    Args:
        pictures: What restores them.
        notify: Gets a notice for each file that holds more than its result.
    """

    def __init__(self, pictures: PictureRestorer, notify: Callable[[Notice], None] = log_notice):
        self.pictures, self.notify = pictures, notify

    def prepare(self, job: Job) -> PreparedJob:
        return PreparedJob(job, self.pictures.prepare(read_source(job, self.notify), str(job.source)))

    def restore(self, batch: Sequence[PreparedJob]) -> list[Outcome[list[Array]]]:
        return self.pictures.restore([item.content for item in batch])

    def finish(self, prepared: PreparedJob, result: list[Array]) -> None:
        picture = self.pictures.finish(prepared.content, result)
        write_result(prepared.job, picture, prepared.content.before, self.notify)

    def size(self, prepared: PreparedJob, result: list[Array]) -> int:
        return prepared.content.picture.pixels.nbytes + sum(part.nbytes for part in result)


def require_readable(source: Path, outscale: float | None = None, whole: bool = False) -> None:
    """Look at an image file, before networks are loaded for it.

    Args:
        source: The file.
        outscale: Size of the result in sizes of the image, where it is known.
        whole: Decode the image, too, not only its first bytes.

    Raises:
        InputError: It is no image, too large, or damaged.
    """
    with _explained_limit(), opened(require_image(source), str(source)) as image:
        if outscale is not None:
            scaled((image.height, image.width), outscale, str(source))
        if whole:
            image.load()


@contextmanager
def _explained_limit() -> Iterator[None]:
    """An image that is too large: the error says what allows more pixels."""
    try:
        yield
    except ImageTooLargeError as error:
        raise InputError(error.message, "max_pixels", "Or give a larger {max_pixels}.") from error


def read_source(job: Job, notify: Callable[[Notice], None]) -> Picture:
    """The picture of a job; what its file holds besides is named in a notice.

    Raises:
        InputError: As :func:`~glean_ext.utils.image_io.read_picture`.
    """
    with _explained_limit():
        picture = read_picture(job.source)
    if picture.not_carried:
        notify(Notice(f"{job.source} holds more than its result: {', '.join(picture.not_carried)}."))
    return picture


def write_result(job: Job, picture: Picture, before: Array, notify: Callable[[Notice], None] = log_notice) -> None:
    """Write the result and, where the job has a name for it, a comparison with the input beside it.

    A notice names what of the result its file has no place for.

    Raises:
        InputError: It cannot be written.
    """
    if job.compare is not None:
        write_picture(Picture(compared(before, picture.pixels), icc=picture.icc), job.compare)
    write_picture(picture, job.target, notify)


def compared(before: Array, after: Array) -> Array:
    """(h, w, 3) and (H, W, 3), uint8 or uint16 -> (H, 2 W + GAP, 3) uint8, the first one enlarged by bicubic."""
    height, width = size_of(after)
    sheet = np.full((height, 2 * width + GAP, 3), 255, np.uint8)
    sheet[:, :width] = to_8_bits(imresize(before, size=(height, width)))
    sheet[:, width + GAP :] = to_8_bits(after)
    return sheet
