"""From files to files: what is done with each picture, and with each photograph, on its way through the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glean_ext.batch.output_plan import Job
from glean_ext.errors import InputError
from glean_ext.inference.image_restorer import ImageRestorer, Network, Prepared
from glean_ext.inference.memory_budget import Memory
from glean_ext.inference.size_policy import scaled, size_of
from glean_ext.utils.image_io import Picture, read_picture, write_picture
from glean_ext.utils.imresize import imresize

if TYPE_CHECKING:  # OpenCV and mediapipe take a second to load
    from glean_ext.faces.detection import Face
    from glean_ext.faces.photo_restorer import PhotoRestorer, PhotoResult

Array = np.ndarray

ALPHAS = ("upsample", "restore")
GAP = 8  # white pixels between before and after


class Timed:
    """A network, and the seconds spent in it."""

    def __init__(self, network: Network):
        self.network, self.takes, self.seconds = network, network.takes, 0.0

    def __call__(self, lq: Array) -> Array:
        return self._timed(self.network, lq)

    def restore(self, images: Sequence[Array]) -> list[Array]:
        return self._timed(self.network.restore, images)

    def memory(self) -> Memory:
        return self.network.memory()

    def _timed(self, function: Callable, given: object) -> Any:
        started = time.perf_counter()
        try:
            return function(given)
        finally:
            self.seconds += time.perf_counter() - started


# ---------------------------------------------------------------- pictures


@dataclass(frozen=True, eq=False)
class ReadPicture:
    """A picture, and what of it goes through the network: its colours, and perhaps its transparency."""

    job: Job
    picture: Picture
    parts: list[Prepared]


class PictureStages:
    """Pictures restored as a whole, or in tiles; see :class:`glean_ext.batch.pipeline.Stages`.

    Args:
        restorer: The network.
        alpha: ``'upsample'``: transparency gets the result's size by MATLAB's bicubic. ``'restore'``: it goes through
            the network, as a gray picture.
        outscale: Size of results in sizes of the inputs; None: what the network makes.

    Raises:
        InputError: An argument that cannot be used.
    """

    def __init__(self, restorer: ImageRestorer, alpha: str = "upsample", outscale: float | None = None):
        if alpha not in ALPHAS:
            raise InputError(f"alpha is {alpha!r}, but it must be one of {', '.join(ALPHAS)}.")
        if outscale is not None and not 0 < outscale < np.inf:
            raise InputError(f"outscale is {outscale:g}, but it must be a positive number.")
        self.restorer, self.alpha, self.outscale = restorer, alpha, outscale

    def prepare(self, job: Job) -> ReadPicture:
        picture, name = read_picture(job.source), str(job.source)
        if self.outscale is not None:
            scaled(size_of(picture.pixels), self.outscale, name)
        parts = [self.restorer.prepare(picture.filled, name)]
        if picture.alpha is not None and self.alpha == "restore":
            parts.append(self.restorer.prepare(np.repeat(picture.alpha[..., None], 3, 2), f"{name}'s transparency"))
        return ReadPicture(job, picture, parts)

    def restore(self, batch: Sequence[ReadPicture]) -> list[list[Array] | InputError]:
        results = iter(self.restorer.try_batch([part for one in batch for part in one.parts]))
        restored: list[list[Array] | InputError] = []
        for one in batch:
            parts = [next(results) for _ in one.parts]
            error = next((part for part in parts if isinstance(part, InputError)), None)
            restored.append(error or [part for part in parts if not isinstance(part, InputError)])
        return restored

    def finish(self, prepared: ReadPicture, result: list[Array]) -> None:
        picture, before = prepared.picture, prepared.parts[0].shown(prepared.picture.filled)
        size = size_of(result[0])
        if self.outscale is not None:
            size = scaled(size_of(before), self.outscale, str(prepared.job.source))
        pixels = imresize(result[0], size=size)
        alpha = None
        if len(result) > 1:
            alpha = imresize(np.rint(result[1].mean(axis=2)).astype(result[1].dtype), size=size)
        elif picture.alpha is not None:
            alpha = imresize(prepared.parts[0].shown(picture.alpha), size=size)
        write_result(prepared.job, Picture(pixels, alpha, picture.icc), before)

    def size(self, prepared: ReadPicture, result: list[Array]) -> int:
        return prepared.picture.pixels.nbytes + sum(part.nbytes for part in result)


# ---------------------------------------------------------------- photographs


@dataclass(frozen=True, eq=False)
class ReadPhoto:
    """A photograph and the faces in it."""

    job: Job
    picture: Picture
    faces: list[Face]


class PhotoStages:
    """Photographs, whose faces are restored; see :class:`glean_ext.batch.pipeline.Stages`.

    Args:
        photos: Its ``save_faces`` says whether faces are kept.
        faces_to: The folder for them; names are those of the outputs, within ``root``.
        root: The folder of the outputs.
        keep: Leave faces alone whose files exist.
        notify: Gets one line for a photograph that was not treated as asked.
    """

    def __init__(
        self,
        photos: PhotoRestorer,
        faces_to: Path | None,
        root: Path,
        keep: bool = False,
        notify: Callable[[str], None] = print,
    ):
        self.photos, self.faces_to, self.root, self.keep, self.notify = photos, faces_to, root, keep, notify
        self.faces = 0  # that were restored

    def prepare(self, job: Job) -> ReadPhoto:
        picture = read_picture(job.source)
        return ReadPhoto(job, picture, self.photos.find(picture.filled, str(job.source)))

    def restore(self, batch: Sequence[ReadPhoto]) -> list[PhotoResult | InputError]:
        return [self._restore(one) for one in batch]

    def _restore(self, one: ReadPhoto) -> PhotoResult | InputError:
        try:
            result = self.photos.restore(one.picture.filled, str(one.job.source), faces=one.faces)
        except InputError as error:
            name, reason = str(one.job.source), str(error)  # of a crop's failure, which does not know the photograph
            return error if reason.startswith(name) else InputError(f"{name}: {reason}")
        self.faces += len(result.faces)
        return result

    def finish(self, prepared: ReadPhoto, result: PhotoResult) -> None:
        if result.notice:
            self.notify(result.notice)
        picture, alpha = prepared.picture, prepared.picture.alpha
        if alpha is not None:
            alpha = imresize(alpha, size=size_of(result.image))
        if self.faces_to is not None:
            for index, face in enumerate(result.faces):
                for kind, image in ("", face.crop), ("_restored", face.restored):
                    path = prepared.job.face_path(self.faces_to, self.root, f"{index:02d}{kind}")
                    if image is not None and not (self.keep and path.exists()):
                        write_picture(Picture(image, icc=picture.icc), path)
        write_result(prepared.job, Picture(result.image, alpha, picture.icc), picture.filled)

    def size(self, prepared: ReadPhoto, result: PhotoResult) -> int:
        return prepared.picture.pixels.nbytes + result.image.nbytes


# ---------------------------------------------------------------- both


def write_result(job: Job, picture: Picture, before: Array) -> None:
    """Write the result, and what it was made of beside it where the job asks for that.

    Raises:
        InputError: It cannot be written.
    """
    if job.compare is not None:
        write_picture(Picture(compared(before, picture.pixels), icc=picture.icc), job.compare)
    write_picture(picture, job.target)


def compared(before: Array, after: Array) -> Array:
    """(h, w, 3) and (H, W, 3), uint8 or uint16 -> (H, 2 W + GAP, 3) uint8, the first one enlarged by bicubic."""
    height, width = size_of(after)
    sheet = np.full((height, 2 * width + GAP, 3), 255, np.uint8)
    sheet[:, :width] = _8_bits(imresize(before, size=(height, width)))
    sheet[:, width + GAP :] = _8_bits(after)
    return sheet


def _8_bits(image: Array) -> Array:
    return image if image.dtype == np.uint8 else ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
