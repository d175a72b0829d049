"""A run: files in, restored files out, by one set of options. Usable from Python; the command line only shows it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glean_ext.batch import pipeline
from glean_ext.batch.image_stages import PictureStages, require_readable
from glean_ext.batch.options import ModelSource, RestoreOptions
from glean_ext.batch.output_plan import Job, Plan, plan_outputs, require_own_faces, require_writable, without_existing
from glean_ext.batch.restore_pictures import PictureRestorer
from glean_ext.errors import InputError, Notice
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.utils.image_io import pixel_limit
from glean_ext.utils.messages import log_notice

if TYPE_CHECKING:  # PyAV, OpenCV and mediapipe, which images alone do not need
    from glean_ext.batch.photo_stages import PhotoStages
    from glean_ext.batch.video_stages import RestoredVideo

FRAMES = 250  # that a video is taken to have, before it is opened


@dataclass(frozen=True)
class RunPlan:
    """What a run is to do.

    Attributes:
        outputs: Which file is written for which input.
        jobs: Of them, those that remain.
        skipped: How many are left alone, as their outputs exist.
    """

    outputs: Plan
    jobs: list[Job]
    skipped: int

    @property
    def images(self) -> list[Job]:
        return [job for job in self.jobs if not job.is_video]

    @property
    def videos(self) -> list[Job]:
        return [job for job in self.jobs if job.is_video]


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


@dataclass(frozen=True)
class RunReport:
    """What became of a run.

    Attributes:
        done: Files that were restored.
        skipped: Files whose outputs existed.
        failures: Why others failed.
        faces: That were found and restored in images; None: none were searched for.
        seconds: All of it, without loading the networks.
        network_seconds: Of them, those in the network.
        images_per_second: None where there were no images.
    """

    done: int = 0
    skipped: int = 0
    failures: dict[Job, InputError] = field(default_factory=dict)
    faces: int | None = None
    seconds: float = 0.0
    network_seconds: float = 0.0
    images_per_second: float | None = None


def plan_run(options: RestoreOptions) -> RunPlan:
    """Decide what is written where, and make sure that it can be.

    Raises:
        InputError: There is nothing to restore, or an input or another output would be overwritten, or outputs exist.
    """
    outputs = plan_outputs(options.inputs, options.output, options.suffix, options.compare, format=options.format)
    jobs, skipped = without_existing(outputs, options.overwrite, options.skip_existing)
    plan, root = RunPlan(outputs, jobs, skipped), output_root(options, outputs)
    require_writable(root)
    if outputs.alone and plan.images:
        with _quiet_reading(options.max_pixels):
            require_readable(jobs[0].source)
    if jobs:
        options.gate_weight()  # refuses one for a model without the gate
        options.model.check(options.cfg_options, options.size_policy)
        if options.background is not None:
            options.background.check()
    if options.finds_faces:
        from glean_ext.faces.face_networks import require_installed

        require_installed()  # before a model is downloaded
    faces = None if options.photo is None else options.photo.save_faces
    if faces is not None:
        require_writable(faces)
        require_own_faces(outputs, plan.images, faces, root, keep=options.overwrite or options.skip_existing)
    return plan


def output_root(options: RestoreOptions, outputs: Plan) -> Path:
    """The folder that all outputs are in."""
    return outputs.folder or Path(options.output).parent


def restore_files(
    options: RestoreOptions, callbacks: RunCallbacks | None = None, plan: RunPlan | None = None
) -> RunReport:
    """Restore images, then videos; one that fails does not stop the others.

    Args:
        options: What is restored, and how.
        callbacks: What is called meanwhile.
        plan: Of :func:`plan_run`; None makes it.

    Raises:
        InputError: The options or the networks cannot be used, or the disk is full.
    """
    plan = plan or plan_run(options)
    if not plan.jobs:
        return RunReport(skipped=plan.skipped)
    with _quiet_reading(options.max_pixels):
        return _Networks(options, callbacks or RunCallbacks(), plan).restore()


@contextmanager
def _quiet_reading(max_pixels: int) -> Iterator[None]:
    """Images of up to so many pixels are read; Pillow's warnings are left out: what matters of damage is reported."""
    with pixel_limit(max_pixels), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


class _Networks:
    """The networks of a run, and what they do with its files."""

    def __init__(self, options: RestoreOptions, callbacks: RunCallbacks, plan: RunPlan):
        self.options, self.callbacks, self.plan = options, callbacks, plan
        self.notify = once(callbacks.notify)
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
            images=len(plan.images) + FRAMES * len(plan.videos),
            fidelity=options.gate_weight(),
        )
        self.background = None
        self.photo_stages: PhotoStages | None = None
        if options.photo is not None:
            if options.background is not None:
                self.background = load_background(options.background, options, self.notify)
            self.photo_stages = self._photo_stages()

    def _photo_stages(self) -> PhotoStages:
        from glean_ext.batch.photo_stages import PhotoStages, make_photo_restorer

        options, photo = self.options, self.options.photo
        assert photo is not None
        photos = make_photo_restorer(photo, self.restorer, self.background, options.outscale, options.batch)
        root = output_root(options, self.plan.outputs)
        return PhotoStages(photos, photo.save_faces, root, keep=options.skip_existing, notify=self.notify)

    def restore(self) -> RunReport:
        started = time.monotonic()
        options, images = self.options, self.plan.images
        pictures = PictureRestorer(self.restorer, options.alpha, options.outscale)
        stages: Any = self.photo_stages or PictureStages(pictures, self.notify)
        report = pipeline.run(images, stages, options.batch, self.callbacks.on_file)
        network_seconds = self.restorer.network_seconds
        if self.plan.videos:
            network_seconds += self._restore_videos(report)
        return RunReport(
            report.done,
            self.plan.skipped,
            report.failures,
            self.photo_stages.faces if self.photo_stages is not None and options.finds_faces else None,
            time.monotonic() - started,
            network_seconds,
            len(images) / report.seconds if images else None,
        )

    def _restore_videos(self, report: pipeline.Report[Job]) -> float:
        """Restore the videos, and note what became of them; seconds in the network."""
        from glean_ext.batch.video_stages import VideoRestorer

        options, photo = self.options, self.options.photo
        if options.compare:
            self.notify(Notice("{compare} makes pictures of images only, not of videos.", "compare"))
        if photo is not None and photo.save_faces is not None:
            self.notify(Notice("{save_faces} writes faces of images only, not of videos.", "save_faces"))
        finder = None if self.photo_stages is None else self.photo_stages.photos.finder
        videos = VideoRestorer(options, self.restorer, self.background, finder, self.notify)
        seconds = 0.0
        for job in self.plan.videos:
            try:
                video = videos.restore(job.source, job.target, self.callbacks.on_frames)
            except InputError as error:
                report.failures[job] = error
            else:
                report.done += 1
                seconds += video.network_seconds
                self.callbacks.on_video(job, video)
            finally:
                self.callbacks.on_frames(None, None)
            self.callbacks.on_file(job)
        return seconds


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


def once(notify: Callable[[Notice], None]) -> Callable[[Notice], None]:
    """``notify``, with each notice once: all frames of a video have the same ones."""
    known: set[str] = set()

    def notify_once(notice: Notice) -> None:
        if (line := str(notice)) not in known:
            known.add(line)
            notify(notice)

    return notify_once
