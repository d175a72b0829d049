"""What ``tools/infer.py`` does once its arguments are known."""

from __future__ import annotations

import time
import warnings
from argparse import Namespace
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from glean_ext.batch import pipeline
from glean_ext.batch.image_stages import PhotoStages, PictureStages, Timed
from glean_ext.batch.output_plan import Job, Plan, plan_outputs, require_own_faces, require_writable, without_existing
from glean_ext.cli.restore_options import add_photo_options, add_size_options, names_of
from glean_ext.errors import InputError
from glean_ext.inference.image_restorer import ONNX, ImageRestorer
from glean_ext.inference.size_policy import SizePolicy
from glean_ext.utils.messages import summarize_names

if TYPE_CHECKING:  # PyAV, which images do not need
    from glean_ext.batch.video_stages import VideoFiles

# What frames depend on; with others an interrupted video starts anew.
VIDEO_OPTIONS = {*names_of(add_size_options), *names_of(add_photo_options), "outscale"} - {"save_faces"}


def run_infer(args: Namespace) -> None:
    """Restore what the arguments of :func:`glean_ext.cli.base.restore_options.make_parser` name.

    Raises:
        InputError: Something given cannot be used, or files failed.
    """
    model, inputs = split_model(args.arguments)
    plan = plan_outputs(inputs, args.output, args.suffix, args.compare)
    jobs, skipped = without_existing(plan, args.overwrite, args.skip_existing)
    root = plan.folder or Path(args.output).parent
    require_writable(root)
    if args.save_faces is not None:
        faces = Path(args.save_faces)
        require_writable(faces)
        images = [job for job in jobs if not job.is_video]
        require_own_faces(plan, images, faces, root, keep=args.overwrite or args.skip_existing)
    warnings.filterwarnings("ignore", module="PIL")  # what matters of damaged files is told
    console = Console(soft_wrap=True, markup=False, highlight=False, emoji=False)
    if others := [path for path in plan.left_out if path not in plan.links]:
        console.print(f"left out, no images: {summarize_names([path.name for path in others])}")
    if plan.links:
        console.print(f"left out, links to folders: {summarize_names([path.name for path in plan.links])}")
    if not jobs:
        console.print(f"all {skipped} outputs exist; there is nothing to do")
        return
    with _progress(console, plan) as progress:
        run = _Run(args, model, plan, console, progress)
        run.go(jobs, skipped)


Model = tuple[str, str | None]  # config and checkpoint, or an ONNX model and None


def split_model(arguments: list[str]) -> tuple[Model, list[str]]:
    """CONFIG CHECKPOINT INPUT ... or MODEL.onnx INPUT ...: the model and the inputs.

    Raises:
        InputError: There are too few.
    """
    first, *rest = arguments
    model, inputs = ((first, None), rest) if first.lower().endswith(ONNX) else ((first, *rest[:1]), rest[1:])
    if len(model) < 2 or not inputs:
        raise InputError("Too little is given. Give CONFIG CHECKPOINT INPUT ..., or MODEL.onnx INPUT ....")
    return (model[0], model[1]), inputs


def _progress(console: Console, plan: Plan) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    quiet = plan.alone and not console.is_terminal
    return Progress(*columns, console=console, transient=plan.alone, disable=quiet)


class _Run:
    """The network, and the files that go through it."""

    def __init__(self, args: Namespace, model: Model, plan: Plan, console: Console, progress: Progress):
        self.args, self.model, self.plan, self.console, self.progress = args, model, plan, console, progress
        self._told: set[str] = set()
        self.files = progress.add_task("restoring", total=None, visible=not plan.alone)
        self.tiles = progress.add_task("tiles", visible=False)
        policy = SizePolicy(args.size_policy, args.fit, args.tile_size, args.tile_overlap)
        self.restorer = ImageRestorer(
            *model,
            device=args.device,
            size_policy=policy,
            cfg_options=args.cfg_options,
            notify=self._notify,
            on_tile=self._on_tile,
            dtype=args.dtype,
            compile="default" if args.compile else None,
        )
        self.dtype = getattr(self.restorer.network, "dtype", None)  # what None in the arguments stands for
        self.timed = self.restorer.network = Timed(self.restorer.network)
        self.background = background(args, self._notify) if args.photo else None
        self.photo = photo_stages(args, self.restorer, self.background, plan, self._notify) if args.photo else None
        self.pictures = PictureStages(self.restorer, args.alpha, args.outscale)

    def go(self, jobs: list[Job], skipped: int) -> None:
        """Images first, then videos; then the summary.

        Raises:
            InputError: Files failed.
        """
        self.progress.update(self.files, total=len(jobs))
        images, videos = [job for job in jobs if not job.is_video], [job for job in jobs if job.is_video]
        stages: Any = self.photo or self.pictures
        started = time.monotonic()
        report = pipeline.run(images, stages, self.args.batch, lambda job: self.progress.advance(self.files))
        speed = f", {len(images) / report.seconds:.1f} images/s" if images else ""
        useless = [name for name in ("compare", "save_faces") if vars(self.args)[name]]
        if videos and useless:
            self.console.print(f"--{useless[0].replace('_', '-')} makes pictures of images only, not of videos")
        for job in videos:
            try:
                self._restore_video(job)
                report.done += 1
            except InputError as error:
                report.failures[job] = error
            self.progress.advance(self.files)
        if self.plan.alone:
            for reason in report.failures.values():
                raise reason
            if self.photo is not None and self.photo.faces:
                self.console.print(f"{self.photo.faces} face{'s' * (self.photo.faces > 1)} restored")
            return
        seconds = time.monotonic() - started
        share = f"{self.timed.seconds / seconds:.0%} of the time in the network"
        self._sum_up(report, skipped, f"{seconds:.1f} s{speed}, {share}")

    def _notify(self, line: str) -> None:
        """Once each: all frames of a video have the same to say."""
        if line not in self._told:
            self._told.add(line)
            self.console.print(line)

    def _on_tile(self, done: int, total: int) -> None:
        if done == 1:
            self.progress.reset(self.tiles, total=total)
        self.progress.update(self.tiles, completed=done, visible=1 < total != done)

    @cached_property
    def videos(self) -> VideoFiles:
        from glean_ext.batch.video_stages import VideoFiles, fingerprint

        options = {name: vars(self.args)[name] for name in sorted(VIDEO_OPTIONS)} | {"dtype": self.dtype}
        models = [self.model]
        if self.args.background != ["bicubic"]:
            model, *rest = self.args.background
            models.append((model, rest[0] if rest else None))
        return VideoFiles(
            self.restorer,
            self.photo.photos if self.photo else None,
            self.args.outscale,
            self.args.batch,
            self.args.crf,
            fingerprint(models, self.args.cfg_options, options),
            self._notify,
            self.background,
        )

    def _restore_video(self, job: Job) -> None:
        frames = self.progress.add_task("frames", total=None)
        before = self.timed.seconds, self.videos.faces
        try:
            result = self.videos.restore(
                job.source,
                job.target,
                lambda done, total: self.progress.update(frames, completed=done, total=total),
            )
        finally:
            self.progress.remove_task(frames)
        network, faces = self.timed.seconds - before[0], self.videos.faces - before[1]
        new, (width, height) = result.frames - result.resumed, result.size
        parts = [f"{job.target}: {result.frames} frames of {width}x{height}"]
        parts += [f"{result.resumed} of them from the interrupted run"] if result.resumed else []
        parts += [f"{faces} faces in the new ones" if result.resumed else f"{faces} faces"] if self.photo else []
        parts.append(f"{result.seconds:.1f} s, {new / result.seconds:.1f} frames/s")
        self.console.print(f"{'; '.join(parts)}, {network / result.seconds:.0%} of the time in the network")

    def _sum_up(self, report: pipeline.Report[Job], skipped: int, times: str) -> None:
        parts = [f"{report.done} restored"]
        parts += [f"{self.photo.faces} face(s)"] if self.photo else []
        parts += [f"{skipped} skipped, which existed"] if skipped else []
        parts += [f"{len(report.failures)} failed"] if report.failures else []
        self.console.print("; ".join([*parts, times]))
        for reason in report.failures.values():
            self.console.print(f"failed: {reason}")
        if report.failures:
            total = report.done + len(report.failures)
            source = f" in {self.plan.source}" if self.plan.source else ""
            kind = "files" if any(job.is_video for job in self.plan.jobs) else "images"
            raise InputError(
                f"{len(report.failures)} of {total} {kind}{source} failed "
                f"({summarize_names([job.source.name for job in report.failures])}); why is said above."
                + (f" The others are in {self.plan.folder}." if report.done else "")
            )


def photo_stages(
    args: Namespace,
    restorer: ImageRestorer,
    background: ImageRestorer | None,
    plan: Plan,
    notify: Callable[[str], None],
) -> PhotoStages:
    """What ``--photo`` and its options ask for.

    Raises:
        InputError: Options that cannot be used.
    """
    from glean_ext.faces.photo_restorer import PhotoRestorer

    if args.alpha == "restore":
        raise InputError("--alpha restore has no effect with --photo: transparency is upsampled. Leave it out.")
    photos = PhotoRestorer(
        restorer,
        outscale=1 if args.outscale is None else args.outscale,
        fidelity=args.fidelity,
        only_center_face=args.only_center_face,
        aligned=args.aligned,
        min_face=args.min_face,
        max_faces=args.max_faces,
        when_no_face=args.when_no_face,
        background=None if background is None else background.restore,
        save_faces=args.save_faces is not None,
        batch=args.batch,
        restore_batch=restorer.restore_batch,
    )
    root = plan.folder or Path(args.output).parent
    faces_to = None if args.save_faces is None else Path(args.save_faces)
    return PhotoStages(photos, faces_to, root, keep=args.skip_existing, notify=notify)


def background(args: Namespace, notify: Callable[[str], None]) -> ImageRestorer | None:
    """What makes the surroundings of faces larger or better; None is bicubic.

    Raises:
        InputError: A model that cannot be used.
    """
    if args.background == ["bicubic"]:
        return None
    model, *rest = args.background
    if len(rest) != (0 if model.lower().endswith(ONNX) else 1):
        raise InputError("--background takes bicubic, CONFIG CHECKPOINT, or MODEL.onnx. Give one of these.")
    if not rest:
        return ImageRestorer(model, notify=notify)
    return ImageRestorer(model, rest[0], args.device, notify=notify, dtype=args.dtype)
