"""From files to files: what is done with each photograph on its way through the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from glean_ext.batch.image_stages import read_source, write_result
from glean_ext.batch.options import PhotoOptions
from glean_ext.batch.output_plan import Job
from glean_ext.errors import InputError, Notice
from glean_ext.faces.detection import Face, FaceFinder
from glean_ext.faces.photo_restorer import PhotoRestorer, PhotoResult
from glean_ext.faces.references import FaceReferences
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.utils.image_io import Picture, write_picture
from glean_ext.utils.messages import log_notice
from glean_ext.utils.outcome import Outcome


def make_photo_restorer(
    options: PhotoOptions,
    restorer: ImageRestorer,
    background: ImageRestorer | None = None,
    outscale: float | None = None,
    batch: int = 1,
    finder: FaceFinder | None = None,
    references: FaceReferences | None = None,
) -> PhotoRestorer:
    """What the options ask for, with these networks.

    Raises:
        InputError: As :class:`PhotoRestorer`.
    """
    return PhotoRestorer(
        restorer,
        outscale="auto" if outscale is None else outscale,
        fidelity=0 if restorer.network.gated else options.fidelity,  # the network has it
        only_center_face=options.only_center_face,
        aligned=options.aligned,
        min_face=options.min_face,
        max_faces=options.max_faces,
        when_no_face=options.when_no_face,
        background=None if background is None else background.restore,
        save_faces=options.save_faces is not None,
        batch=batch,
        restore_batch=restorer.restore_batch,
        finder=finder,
        references=() if references is None else references.of(restorer),
    )


def colourless(name: str) -> Notice:
    """The suggestion for a gray or toned photograph, which stays so."""
    return Notice(
        f"{name} has no colours, and is restored without any.",
        "model",
        "A colorizer adds some: {model} demo_glean_color.",
    )


@dataclass(frozen=True, eq=False)
class PreparedPhoto:
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
        notify: Gets a notice for a photograph that was not treated as requested.
    """

    def __init__(
        self,
        photos: PhotoRestorer,
        faces_to: Path | None,
        root: Path,
        keep: bool = False,
        notify: Callable[[Notice], None] = log_notice,
    ):
        self.photos, self.faces_to, self.root, self.keep, self.notify = photos, faces_to, root, keep, notify
        self._faces = 0

    @property
    def faces(self) -> int:
        """How many were restored."""
        return self._faces

    def prepare(self, job: Job) -> PreparedPhoto:
        picture = read_source(job, self.notify)
        return PreparedPhoto(job, picture, self.photos.find(picture.filled, str(job.source)))

    def restore(self, batch: Sequence[PreparedPhoto]) -> list[Outcome[PhotoResult]]:
        return [Outcome.of(lambda item=item: self._restore(item)) for item in batch]  # type: ignore[misc]

    def _restore(self, item: PreparedPhoto) -> PhotoResult:
        name = str(item.job.source)
        try:
            result = self.photos.restore(item.picture, name, faces=item.faces)
        except InputError as error:  # perhaps of a crop, which does not know the photograph
            raise error.about(name) from error
        self._faces += len(result.faces)
        return result

    def finish(self, prepared: PreparedPhoto, result: PhotoResult) -> None:
        if result.notice:
            self.notify(Notice(result.notice))
        if result.colourless:
            self.notify(colourless(str(prepared.job.source)))
        if self.faces_to is not None:
            for index, face in enumerate(result.faces):
                for kind, image in ("", face.crop), ("_restored", face.restored):
                    path = prepared.job.face_path(self.faces_to, self.root, f"{index:02d}{kind}")
                    if image is not None and not (self.keep and path.exists()):
                        write_picture(Picture(image, icc=prepared.picture.icc), path)
        write_result(prepared.job, result.picture, prepared.picture.filled, self.notify)

    def size(self, prepared: PreparedPhoto, result: PhotoResult) -> int:
        return prepared.picture.pixels.nbytes + result.image.nbytes
