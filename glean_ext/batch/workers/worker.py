"""One worker: the networks in its process, and the groups of files that it restores."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from glean_ext.batch import pipeline
from glean_ext.batch.networks import Networks, RunCallbacks, quiet_reading
from glean_ext.batch.options import RestoreOptions
from glean_ext.batch.output_plan import Job
from glean_ext.errors import InputError, Notice
from glean_ext.utils.outcome import Outcome

if TYPE_CHECKING:  # PyAV, which images do not need
    from glean_ext.batch.video_stages import RestoredVideo

Group = tuple[Job, ...]  # images that go through the network together, or one video

SLOTS = 4  # groups that a worker has at a time: one in the network, others are read or written, or wait for it


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker is made from.

    Attributes:
        options: Of the run.
        root: The folder that all outputs are in.
        images: How many images and frames all workers restore together, as far as is known.
    """

    options: RestoreOptions
    root: Path
    images: int


@dataclass(frozen=True)
class GroupReport:
    """What became of a group.

    Attributes:
        errors: Why some failed, by their position.
        notices: What was noticed meanwhile, perhaps of another group.
        faces: That were restored since the last report; None: images are no photographs.
        network_seconds: In the network since then.
        video: Of a video that was restored.
    """

    errors: dict[int, InputError] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    faces: int | None = None
    network_seconds: float = 0.0
    video: RestoredVideo | None = None


class Worker:
    """Holds the networks of a run. Several threads may restore groups: one is in the network, others read and write.

    Raises:
        InputError: A network that cannot be used.
    """

    def __init__(self, spec: WorkerSpec):
        self._notices: SimpleQueue[Notice] = SimpleQueue()
        self._reading = quiet_reading(spec.options.max_pixels)
        self._reading.__enter__()  # for the life of the process, which is the worker's own
        self.networks = Networks(spec.options, RunCallbacks(notify=self._notices.put), spec.root, spec.images)
        self._network_thread = ThreadPoolExecutor(1, "network")
        self._stages = _OneThread(self.networks.stages, self._network_thread)
        self._reporting = threading.Lock()
        self._faces, self._seconds = 0, 0.0

    def restore(self, group: Group) -> GroupReport:
        """Restore images together, or a video.

        Raises:
            InputError: The disk is full.
            RuntimeError: A fault of the program.
        """
        if group[0].is_video:
            outcome = self._network_thread.submit(Outcome.of, lambda: self.networks.restore_video(group[0])).result()
            return self._report({} if outcome.error is None else {0: outcome.error}, outcome.value)
        failures = pipeline.run(group, self._stages, len(group)).failures
        return self._report({group.index(job): error for job, error in failures.items()})

    def stop(self) -> None:
        """Let nothing further into the network; files that are being written are finished."""
        self._network_thread.shutdown(wait=False, cancel_futures=True)

    def _report(self, errors: dict[int, InputError], video: RestoredVideo | None = None) -> GroupReport:
        with self._reporting:
            faces, seconds = self.networks.faces, self.networks.network_seconds
            new = None if faces is None else faces - self._faces
            report = GroupReport(errors, _all_of(self._notices), new, seconds - self._seconds, video)
            self._faces, self._seconds = faces or 0, seconds
            return report


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
