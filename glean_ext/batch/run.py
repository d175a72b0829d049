"""A run: files in, restored files out, by one set of options. Usable from Python; the command line only shows it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from glean_ext.batch import pipeline
from glean_ext.batch.image_stages import require_readable
from glean_ext.batch.networks import Networks, RunCallbacks, quiet_reading
from glean_ext.batch.options import RestoreOptions
from glean_ext.batch.output_checks import require_own_faces, require_writable, without_existing
from glean_ext.batch.output_plan import DEFAULT_FORMAT, Job, Plan, plan_outputs
from glean_ext.batch.remote_files import plan_remote_outputs
from glean_ext.batch.run_report import RunReport
from glean_ext.errors import InputError
from glean_ext.inference.references import list_references
from glean_ext.utils.image_writer import OUTPUT_FORMATS
from glean_ext.utils.url_files import is_file_url
from glean_ext.utils.weight_files import require_weights

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
    def elsewhere(self) -> int:
        """How many belong to other shards."""
        return len(self.outputs.jobs) - len(self.jobs) - self.skipped

    @property
    def images(self) -> list[Job]:
        return [job for job in self.jobs if not job.is_video]

    @property
    def videos(self) -> list[Job]:
        return [job for job in self.jobs if job.is_video]


def plan_run(options: RestoreOptions) -> RunPlan:
    """Decide what is written where, and make sure that it can be.

    Raises:
        InputError: There is nothing to restore, or an input or another output would be overwritten, or outputs exist.
    """
    outputs = _plan_outputs(options)
    root = output_root(options, outputs)
    own = [job for job in outputs.jobs if options.shard is None or options.shard.has(job.name_within(root))]
    jobs, skipped = without_existing(replace(outputs, jobs=own), options.overwrite, options.skip_existing)
    plan = RunPlan(outputs, jobs, skipped)
    if options.temporal and not any(job.is_video for job in outputs.jobs):
        raise InputError("{temporal} is about videos, but there is none to restore. Leave it out.", "temporal")
    if not is_file_url(root):
        require_writable(root)
    if outputs.alone and plan.images:
        with quiet_reading(options.max_pixels):
            require_readable(jobs[0].source, options.outscale, whole=options.model.is_missing)
    if jobs:
        options.gate_weight()  # refuses one for a model without the gate
        references = list_references(options.references)
        options.model.check(options.cfg_options, options.size_policy, options.seed, len(references))
        _require_references(options, references)
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


def _require_references(options: RestoreOptions, references: Sequence[Path]) -> None:
    """Raise InputError where a reference is no image, or weights that choose among them are no file."""
    with quiet_reading(options.max_pixels):
        for reference in references:
            require_readable(reference, whole=True)
    embedder = None if options.photo is None else options.photo.embedder
    if embedder is not None:
        require_weights(embedder)


def _plan_outputs(options: RestoreOptions) -> Plan:
    remote = [place for place in (*options.inputs, options.output) if is_file_url(place)]
    if not remote:
        return plan_outputs(options.inputs, options.output, options.suffix, options.compare, format=options.format)
    if options.photo is not None and options.photo.save_faces is not None:
        raise InputError(f"{{save_faces}} writes faces of local files only, but {remote[0]} is a URL.", "save_faces")
    format = OUTPUT_FORMATS[options.format or DEFAULT_FORMAT]
    return plan_remote_outputs(options.inputs, os.fspath(options.output), options.suffix, options.compare, format)


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
        InputError: The options or the networks cannot be used, the disk is full, or a store fails.
    """
    plan, callbacks = plan or plan_run(options), callbacks or RunCallbacks()
    report = RunReport(skipped=plan.skipped)
    try:
        if plan.jobs:
            _restore(options, callbacks, plan, report)
    except pipeline.EndsRun as error:
        raise InputError(f"{error.message} {report.until_now()}", error.parameter, error.hint) from error
    return report


def _restore(options: RestoreOptions, callbacks: RunCallbacks, plan: RunPlan, report: RunReport) -> None:
    root = output_root(options, plan.outputs)
    if options.workers is not None or options.cluster is not None:
        from glean_ext.batch.workers import restore_jobs

        restore_jobs(options, callbacks, plan.jobs, root, expected_images(plan), report)
    else:
        with quiet_reading(options.max_pixels):
            _restore_here(Networks(options, callbacks, root, expected_images(plan)), plan, report)


def expected_images(plan: RunPlan) -> int:
    """Images and frames that go through the network, as far as is known."""
    return len(plan.images) + FRAMES * len(plan.videos)


def _restore_here(networks: Networks, plan: RunPlan, report: RunReport) -> None:
    started, callbacks = time.monotonic(), networks.callbacks
    pipeline.run(plan.images, networks.stages, networks.options.batch, callbacks.on_file, report)
    if plan.images:
        report.images_per_second = len(plan.images) / report.seconds
    for job in plan.videos:
        try:
            video = networks.restore_video(job)
        except pipeline.EndsRun:
            raise
        except InputError as error:
            report.failures[job] = error
        else:
            report.done += 1
            callbacks.on_video(job, video)
        finally:
            callbacks.on_frames(None, None)
        callbacks.on_file(job)
    report.faces, report.network_seconds = networks.faces, networks.network_seconds
    report.seconds = time.monotonic() - started
