"""What ``glean-restore`` shows of a run: its progress, and what became of the files."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from glean_ext.batch.options import RestoreOptions
from glean_ext.batch.output_plan import Job, Plan
from glean_ext.batch.run import RunCallbacks, RunPlan, RunReport, plan_run, restore_files
from glean_ext.cli.base import as_option
from glean_ext.cli.models import download_line
from glean_ext.cli.plain_console import PlainConsole
from glean_ext.errors import InputError, Notice
from glean_ext.utils.image_io import opened, pixel_limit
from glean_ext.utils.messages import summarize_names
from glean_ext.utils.progress import ProgressBar

if TYPE_CHECKING:  # PyAV, which images do not need
    from glean_ext.batch.video_stages import RestoredVideo


def run(options: RestoreOptions) -> None:
    """Restore files, and show it.

    Raises:
        InputError: Something given cannot be used, or files failed.
    """
    plan = plan_run(options)
    console = PlainConsole()
    for line in left_out(plan.outputs):
        console.show(line)
    if options.shard is not None:
        total = len(plan.outputs.jobs)
        console.show(f"shard {options.shard}: {total - plan.elsewhere} of {total} files")
    if not plan.jobs and not plan.skipped:
        console.show("there is nothing to do")
        return
    if not plan.jobs:
        console.show(f"all {plan.skipped} outputs exist; there is nothing to do")
        return
    if line := model_line(options):
        console.show(line)
    alone = plan.outputs.alone
    with ProgressBar(console, transient=alone, disable=alone and not console.is_terminal) as bar:
        report = restore_files(options, Display(console, bar, plan).callbacks, plan)
    summarize(console, plan, report)


def model_line(options: RestoreOptions) -> str:
    """What is downloaded before a model of the zoo can run; empty where nothing is, or nodes of a cluster do so."""
    if options.cluster is not None:
        return ""
    purpose = "finds the faces of photographs and restores them" if options.photo else ""
    return download_line(options.model.checkpoint or "", purpose)


def left_out(plan: Plan) -> list[str]:
    """Lines that name what the inputs hold besides what is restored."""
    links = set(plan.links)
    groups = {
        "no images": [path for path in plan.left_out if path not in links],
        "links to folders": [path for path in plan.left_out if path in links],
        "hidden": plan.hidden,
        "results of an earlier run": plan.earlier,
    }
    return [
        f"left out, {kind}: {summarize_names([path.name for path in paths])}" for kind, paths in groups.items() if paths
    ]


class Display:
    """Progress bars, and lines above them."""

    def __init__(self, console: PlainConsole, bar: ProgressBar, plan: RunPlan):
        self.console, self.bar = console, bar
        self.broken: OSError | None = None
        self.files = bar.add_task("restoring", total=len(plan.jobs), visible=not plan.outputs.alone)
        self.tiles = bar.add_task("tiles", visible=False)
        self.frames = bar.add_task("frames", visible=False)
        self.callbacks = RunCallbacks(
            notify=self.show_notice,
            on_file=self.show_file,
            on_tile=self.show_tile,
            on_frames=self.show_frames,
            on_video=self.show_video,
        )

    def show_notice(self, notice: Notice) -> None:
        """Called by threads that read and write files, for which an error of stdout would be a fault of the file."""
        try:
            kind = "warning: " if notice.level >= logging.WARNING else ""
            self.console.show(f"{kind}{notice.render(as_option)}")
        except OSError as error:
            self.broken = error

    def show_file(self, job: Job) -> None:
        """Called by the main thread.

        Raises:
            OSError: stdout cannot be written to.
        """
        if self.broken is not None:
            raise self.broken
        self.bar.advance(self.files)

    def show_tile(self, done: int, total: int) -> None:
        if done == 1:
            self.bar.reset(self.tiles, total=total)
        self.bar.update(self.tiles, completed=done, visible=1 < total != done)

    def show_frames(self, done: int | None, total: int | None) -> None:
        self.bar.update(self.frames, completed=done or 0, total=total, visible=done is not None)

    def show_video(self, job: Job, video: RestoredVideo) -> None:
        result, faces = video.result, video.faces
        new, (width, height) = result.frames - result.resumed, result.size
        parts = [f"{job.target}: {result.frames} frames of {width}x{height}"]
        parts += [f"{result.resumed} of them from the interrupted run"] if result.resumed else []
        if faces is not None:
            parts.append(f"{faces} faces in the new ones" if result.resumed else f"{faces} faces")
        parts.append(f"{result.seconds:.1f} s, {new / result.seconds:.1f} frames/s")
        share = f"{video.network_seconds / result.seconds:.0%} of the time in the network"
        self.console.show(f"{'; '.join(parts)}, {share}")


def summarize(console: PlainConsole, plan: RunPlan, report: RunReport) -> None:
    """Show what became of the files.

    Raises:
        InputError: Files failed.
    """
    if plan.outputs.alone:
        for reason in report.failures.values():
            raise reason
        for job in plan.images:
            console.show(result_line(job, report.faces))
        return
    for line in summary_lines(report):
        console.show(line)
    if report.failures:
        total = report.done + len(report.failures)
        source = f" in {plan.outputs.source}" if plan.outputs.source else ""
        kind = "files" if any(job.is_video for job in plan.outputs.jobs) else "images"
        raise InputError(
            f"{len(report.failures)} of {total} {kind}{source} failed "
            f"({summarize_names([job.source.name for job in report.failures])}); why is said above."
            + (f" The others are in {plan.outputs.folder}." if report.done else "")
        )


def result_line(job: Job, faces: int | None) -> str:
    """Where the result of one image is, and what it is.

    Args:
        faces: That were found and restored; None: none were searched for.
    """
    with pixel_limit(sys.maxsize), opened(job.target, str(job.target)) as image:
        size = f"{image.width} × {image.height}"
    found = "" if faces is None else f", {faces or 'no'} face{'s' * (faces != 1)}"
    return f"{'Written' if faces == 0 else 'Restored'}: {job.target} ({size}){found}"


def summary_lines(report: RunReport) -> list[str]:
    """Numbers of files and times, and why files failed."""
    by = "" if report.workers is None else f" by {report.workers} worker{'s' * (report.workers != 1)}"
    parts = [f"{report.done} restored{by}"]
    parts += [] if report.faces is None else [f"{report.faces} face(s)"]
    parts += [f"{report.skipped} skipped, which existed"] if report.skipped else []
    parts += [f"{len(report.failures)} failed"] if report.failures else []
    speed = "" if report.images_per_second is None else f", {report.images_per_second:.1f} images/s"
    share = f"{report.network_seconds / report.seconds:.0%} of the time in the network"
    lines = ["; ".join([*parts, f"{report.seconds:.1f} s{speed}, {share}"])]
    return lines + [f"failed: {reason.render(as_option)}" for reason in report.failures.values()]
