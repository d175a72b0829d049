"""The networks of a run, and what they do with its files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glean_ext.batch.image_stages import PictureStages
from glean_ext.batch.options import ModelSource, PhotoOptions, RestoreOptions
from glean_ext.batch.output_plan import Job
from glean_ext.batch.remote_files import LocalCopies, RemoteStages
from glean_ext.batch.restore_pictures import PictureRestorer
from glean_ext.errors import Notice
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.memory_budget import WEBP_BYTES
from glean_ext.inference.references import Reference, read_references
from glean_ext.utils.image_io import pixel_limit
from glean_ext.utils.messages import log_notice, once

if TYPE_CHECKING:  # PyAV, OpenCV and mediapipe, which images alone do not need
    from glean_ext.batch.photo_stages import PhotoStages
    from glean_ext.batch.video_stages import RestoredVideo, VideoRestorer
    from glean_ext.faces.detection import FaceFinder
    from glean_ext.faces.references import FaceReferences


@dataclass(frozen=True)
class RunCallbacks:
    """What a run calls while it works; all may be called from other threads but ``on_video``.

    Attributes:
        notify: With each thing that is not as one would expect, once.
        on_file: After each file, whether it failed or not.
        on_tile: After each tile of an image, with (done, all).
        on_frames: While a video is restored, with (done, all or None); with None, None when it ends.
        on_video: After each restored video.
    """

    notify: Callable[[Notice], None] = log_notice
    on_file: Callable[[Job], None] = lambda job: None
    on_tile: Callable[[int, int], None] = lambda done, total: None
    on_frames: Callable[[int | None, int | None], None] = lambda done, total: None
    on_video: Callable[[Job, RestoredVideo], None] = lambda job, video: None


@contextmanager
def quiet_reading(max_pixels: int) -> Iterator[None]:
    """Images of up to so many pixels are read; Pillow's warnings are left out: what matters of damage is reported."""
    with pixel_limit(max_pixels), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


class Networks:
    """The networks of a run, and what they do with its files.

    Args:
        options: Of the run.
        callbacks: What is called meanwhile.
        root: The folder that all outputs are in.
        images: How many images are going to be restored, of all workers together.

    Attributes:
        stages: What is done with images, see :func:`glean_ext.batch.pipeline.run`.

    Raises:
        InputError: A network that cannot be used.
    """

    def __init__(self, options: RestoreOptions, callbacks: RunCallbacks, root: Path, images: int):
        self.options, self.callbacks = options, callbacks
        self.copies = LocalCopies()
        self.notify = once(lambda notice: callbacks.notify(self._about_urls(notice)))
        self._finder, references = self._faces_of_references()  # before the network, which may take long
        self.restorer = ImageRestorer(
            options.model.config,
            options.model.fetch(),  # before PyTorch is loaded: without a network that would be in vain
            device=options.device,
            size_policy=options.size_policy,
            cfg_options=options.cfg_options,
            notify=self.notify,
            on_tile=callbacks.on_tile,
            dtype=options.dtype,
            compile=options.compile,
            seed=options.seed,
            backend=options.backend,
            cache=options.cache,
            images=images,
            fidelity=options.gate_weight(),
            references=options.references if options.photo is None else (),
        )
        if options.format == "webp" or str(options.output).lower().endswith(".webp"):
            self.restorer.writing = WEBP_BYTES
        self.background = None
        self.photo_stages: PhotoStages | None = None
        self._references: FaceReferences | None = None
        if options.photo is not None:
            if options.background is not None:
                self.background = load_background(options.background, options, self.notify)
            self._references = self._make_references(options.photo, references)
            self.photo_stages = self._photo_stages(options.photo, root)
        pictures = PictureRestorer(self.restorer, options.alpha, options.outscale)
        self.stages = RemoteStages(self.photo_stages or PictureStages(pictures, self.notify), self.copies)
        self._videos: VideoRestorer | None = None
        self._video_seconds = 0.0

    def _faces_of_references(self) -> tuple[FaceFinder | None, list[Reference]]:
        """The references of photographs, aligned, and what found their faces; none for other inputs."""
        options = self.options
        if options.photo is None or not options.references:
            return None, []
        read = read_references(options.references)
        if not options.finds_faces:
            return None, read
        from glean_ext.faces.detection import FaceFinder
        from glean_ext.faces.references import align_references

        finder = FaceFinder()
        return finder, align_references(read, finder)

    def _make_references(self, photo: PhotoOptions, references: Sequence[Reference]) -> FaceReferences | None:
        if not references:
            return None
        from glean_ext.faces.references import FaceReferences

        return FaceReferences(self.restorer, references, photo.embedder, photo.aligned)

    def _photo_stages(self, photo: PhotoOptions, root: Path) -> PhotoStages:
        from glean_ext.batch.photo_stages import PhotoStages, make_photo_restorer

        options = self.options
        photos = make_photo_restorer(
            photo,
            self.restorer,
            self.background,
            options.outscale,
            options.batch,
            self._finder,
            self._references,
        )
        return PhotoStages(photos, photo.save_faces, root, keep=options.skip_existing, notify=self.notify)

    def _about_urls(self, notice: Notice) -> Notice:
        return Notice(self.copies.renamed(notice.message), notice.parameter, notice.hint, notice.level)

    @property
    def faces(self) -> int | None:
        """How many were found and restored in images so far; None: none are searched for."""
        return self.photo_stages.faces if self.photo_stages is not None and self.options.finds_faces else None

    @property
    def network_seconds(self) -> float:
        """Seconds spent in the network so far."""
        return self.restorer.network_seconds + self._video_seconds

    def restore_video(self, job: Job) -> RestoredVideo:
        """Restore a video.

        Raises:
            InputError: As :meth:`VideoRestorer.restore`.
        """
        self._videos = self._videos or self._video_restorer()
        local = self.copies.fetch(job)
        try:
            with self.copies.errors():
                video = self._videos.restore(local.source, local.target, self.callbacks.on_frames)
            self.copies.deliver(job, local)
        finally:
            self.copies.drop(local)
        self._video_seconds += video.network_seconds
        return video

    def _video_restorer(self) -> VideoRestorer:
        from glean_ext.batch.video_stages import VideoRestorer

        options, photo = self.options, self.options.photo
        if options.compare:
            self.notify(Notice("{compare} makes pictures of images only, not of videos.", "compare"))
        if photo is not None and photo.save_faces is not None:
            self.notify(Notice("{save_faces} writes faces of images only, not of videos.", "save_faces"))
        finder = None if self.photo_stages is None else self.photo_stages.photos.finder
        return VideoRestorer(options, self.restorer, self.background, finder, self._references, self.notify)


def load_background(
    source: ModelSource, options: RestoreOptions, notify: Callable[[Notice], None] = log_notice
) -> ImageRestorer:
    """The network that enlarges all but the faces of photographs.

    Raises:
        InputError: A model that cannot be used.
    """
    if source.is_onnx:
        return ImageRestorer(source.config, notify=notify)
    return ImageRestorer(source.config, source.fetch(), options.device, notify=notify, dtype=options.dtype)
