"""Several workers, on one machine or on a cluster, restore the files of one run."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from glean_ext.batch import pipeline
from glean_ext.batch.networks import Networks, RunCallbacks, quiet_reading
from glean_ext.batch.options import ModelSource, RestoreOptions
from glean_ext.batch.output_plan import Job
from glean_ext.batch.run_report import RunReport
from glean_ext.errors import InputError, Notice
from glean_ext.utils.downloads import is_url
from glean_ext.utils.outcome import Outcome
from glean_ext.utils.url_files import is_file_url
from glean_ext.workers import make_pool
from glean_ext.workers.dispatch import Dispatcher
from glean_ext.workers.worker import GroupReport, Worker, WorkerSpec

if TYPE_CHECKING:  # PyAV, which images do not need
    from glean_ext.batch.video_stages import RestoredVideo

JobGroup = tuple[Job, ...]  # images that go through the network together, or one video


def restore_jobs(
    options: RestoreOptions, callbacks: RunCallbacks, jobs: Sequence[Job], root: Path, images: int, report: RunReport
) -> None:
    """Restore files by the workers that the options ask for.

    Args:
        options: Of the run, with ``workers`` or ``cluster``.
        callbacks: What is called meanwhile; there are no tiles and frames.
        jobs: The files.
        root: The folder that all outputs are in.
        images: How many images and frames that is, as far as is known.
        report: Is filled in.

    Raises:
        InputError: The cluster or the networks cannot be used, or no worker is left.
        EndsRun: The disk is full, or a store fails.
        RuntimeError: A fault of the program in a worker.
    """
    if options.cluster is None:
        for model in options.model, options.background:
            if model is not None:
                model.fetch()  # once, before all workers need it

    def add(group: JobGroup, part: GroupReport) -> None:
        work: Work = part.content
        report.network_seconds += work.network_seconds
        if work.faces is not None:
            report.faces = (report.faces or 0) + work.faces
        if work.video is not None:
            callbacks.on_video(group[0], work.video)

    spec = RestoreSpec(replace(options, inputs=options.inputs[:1]), root, images)
    groups = grouped(jobs, options.batch)
    with closing(make_pool(spec, options.workers, options.cluster, callbacks.notify)) as pool:
        dispatcher = Dispatcher(
            pool, groups, callbacks.notify, add, callbacks.on_file, lambda job: job.is_video, report
        )
        dispatcher.run()
    report.workers = dispatcher.workers
    report.network_seconds /= report.workers
    if count := sum(not job.is_video for job in jobs):
        report.images_per_second = count / report.seconds


def grouped(jobs: Sequence[Job], batch: int) -> list[JobGroup]:
    """Videos one by one, as they take longest, then images in groups of up to ``batch``."""
    images = [job for job in jobs if not job.is_video]
    videos: list[JobGroup] = [(job,) for job in jobs if job.is_video]
    return videos + [tuple(images[start : start + batch]) for start in range(0, len(images), batch)]


@dataclass(frozen=True)
class Work:
    """What a worker has done besides the files of a group.

    Attributes:
        faces: That were restored since it last said so; None: images are no photographs.
        network_seconds: In the network since then.
        video: Of a video that was restored.
    """

    faces: int | None = None
    network_seconds: float = 0.0
    video: RestoredVideo | None = None


@dataclass(frozen=True)
class RestoreSpec(WorkerSpec):
    """What a worker that restores is made from.

    Attributes:
        options: Of the run.
        root: The folder that all outputs are in.
        images: How many images and frames all workers restore together, as far as is known.
    """

    options: RestoreOptions
    root: Path
    images: int

    slots = 4  # one in the network, others are read or written, or wait for it

    def make(self) -> RestoreWorker:
        return RestoreWorker(self)

    def for_elsewhere(self) -> RestoreSpec:
        return replace(self, options=absolute(self.options), root=absolute_path(self.root))

    def task_for_elsewhere(self, task: Job) -> Job:
        return Job(*(path and absolute_path(path) for path in vars(task).values()))

    def devices(self) -> Sequence[str]:
        if self.options.model.is_onnx or self.options.device not in (None, "cuda"):
            return ()
        import torch

        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]

    def on_device(self, device: str | None) -> RestoreSpec:
        return self if device is None else replace(self, options=replace(self.options, device=device))

    def resource(self, resources: Mapping[str, float]) -> str:
        device = self.options.device
        if device not in (None, "cpu", "cuda"):
            raise InputError(
                f"{{device={device}}}: Ray chooses the GPU. Leave it out, or set {{device=cpu}}.", "device"
            )
        if device == "cpu" or self.options.model.is_onnx or (device is None and not resources.get("GPU")):
            return "CPU"
        if not resources.get("GPU"):
            raise InputError("{device=cuda}: the cluster has no GPU. Leave it out.", "device")
        return "GPU"


class RestoreWorker(Worker):
    """Holds the networks of a run. One thread is in the network, others read and write.

    Raises:
        InputError: A network that cannot be used.
    """

    def __init__(self, spec: RestoreSpec):
        self._notices: SimpleQueue[Notice] = SimpleQueue()
        self._reading = quiet_reading(spec.options.max_pixels)
        self._reading.__enter__()  # for the life of the process, which is the worker's own
        self.networks = Networks(spec.options, RunCallbacks(notify=self._notices.put), spec.root, spec.images)
        self._network_thread = ThreadPoolExecutor(1, "network")
        self._stages = _OneThread(self.networks.stages, self._network_thread)
        self._reporting = threading.Lock()
        self._faces, self._seconds = 0, 0.0

    def work(self, group: JobGroup) -> GroupReport:
        if group[0].is_video:
            outcome = self._network_thread.submit(Outcome.of, lambda: self.networks.restore_video(group[0])).result()
            if isinstance(outcome.error, pipeline.EndsRun):
                raise outcome.error
            return self._report({} if outcome.error is None else {0: outcome.error}, outcome.value)
        failures = pipeline.run(group, self._stages, len(group)).failures
        return self._report({group.index(job): error for job, error in failures.items()})

    def stop(self) -> None:
        self._network_thread.shutdown(wait=False, cancel_futures=True)

    def _report(self, errors: dict[int, InputError], video: RestoredVideo | None = None) -> GroupReport:
        with self._reporting:
            faces, seconds = self.networks.faces, self.networks.network_seconds
            new = None if faces is None else faces - self._faces
            work = Work(new, seconds - self._seconds, video)
            self._faces, self._seconds = faces or 0, seconds
            return GroupReport(errors, _all_of(self._notices), work)


class _OneThread:
    """Stages whose network runs in one thread, whoever calls it."""

    def __init__(self, stages: Any, thread: ThreadPoolExecutor):
        self.prepare, self.finish, self.size = stages.prepare, stages.finish, stages.size
        self._restore, self._thread = stages.restore, thread

    def restore(self, batch: Sequence[Any]) -> list[Outcome[Any]]:
        return self._thread.submit(self._restore, batch).result()


def _all_of(queue: SimpleQueue[Notice]) -> list[Notice]:
    notices = []
    try:
        while True:
            notices.append(queue.get_nowait())
    except Empty:
        return notices


def absolute_path(path: Path) -> Path:
    """A path for a process in another folder; a URL stays as it is."""
    return path if is_file_url(path) else Path(os.path.abspath(path))


def absolute(options: RestoreOptions) -> RestoreOptions:
    """The same options for a process in another folder."""
    photo = options.photo
    if photo is not None:
        photo = replace(
            photo,
            save_faces=photo.save_faces and absolute_path(photo.save_faces),
            background=photo.background and _absolute_model(photo.background),
            embedder=photo.embedder and _absolute_weights(photo.embedder),
        )
    references = tuple(absolute_path(Path(file)) for file in options.references)
    return replace(options, model=_absolute_model(options.model), photo=photo, references=references)


def _absolute_model(model: ModelSource) -> ModelSource:
    config = os.path.abspath(model.config) if os.path.isfile(model.config) else model.config
    return ModelSource(config, model.checkpoint and _absolute_weights(model.checkpoint))


def _absolute_weights(weights: str) -> str:
    """A file's path for a process in another folder; a URL or a name stays as it is."""
    return os.path.abspath(weights) if not is_url(weights) and os.path.exists(weights) else weights
