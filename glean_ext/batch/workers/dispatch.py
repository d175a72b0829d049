"""Hands the files of a run to workers, takes back what a lost one had, and collects what became of all."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from glean_ext.batch.networks import RunCallbacks, once
from glean_ext.batch.output_plan import Job
from glean_ext.batch.workers.pool import Done, Lost, Ready, WorkerPool
from glean_ext.batch.workers.worker import SLOTS, Group
from glean_ext.errors import InputError, Notice


@dataclass
class WorkersReport:
    """What became of the files.

    Attributes:
        workers: Number of those that were ready at some time.
        done: Files that were restored.
        failures: Why others failed.
        faces: That were restored in images; None: images are no photographs.
        network_seconds: In the network, of all workers together.
        seconds: From the first worker that was ready to the last file.
    """

    workers: int = 0
    done: int = 0
    failures: dict[Job, InputError] = field(default_factory=dict)
    faces: int | None = None
    network_seconds: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Retry:
    """A file for the second try.

    Attributes:
        place: Where the first one was.
    """

    job: Job
    place: str


class Dispatcher:
    """One run of files through a pool of workers.

    A worker gets the next group as soon as it has room. What a lost worker had, and on a cluster what failed, is tried
    once more, when all else is done: alone, so that a second loss names the file that causes it, and in another place
    where there is one.

    Args:
        pool: Runs the workers.
        jobs: The files.
        batch: Images of a group.
        callbacks: What is called meanwhile.
    """

    def __init__(self, pool: WorkerPool, jobs: Sequence[Job], batch: int, callbacks: RunCallbacks):
        self.pool, self.callbacks, self.notify = pool, callbacks, once(callbacks.notify)
        self.waiting = deque(grouped(jobs, batch))
        self.retries: deque[Retry] = deque()
        self.tried: set[Job] = set()  # files whose next failure counts
        self.held: dict[int, list[Group]] = {}  # of each worker that is ready
        self.places: dict[int, str] = {}  # of these
        self.starting: set[int] = set()
        self.report, self.started = WorkersReport(), time.monotonic()

    def run(self) -> WorkersReport:
        """Restore all files.

        Raises:
            InputError: Networks cannot be loaded, no worker is left, or the disk is full.
            RuntimeError: A fault of the program in a worker.
        """
        for worker in range(min(self.pool.size, len(self.waiting))):
            self._start(worker)
        while self.waiting or self.retries or any(self.held.values()):
            for event in self.pool.wait():
                self._handle(event)
            self._give()
        self.report.seconds = time.monotonic() - self.started
        return self.report

    def _start(self, worker: int) -> None:
        self.starting.add(worker)
        self.pool.start(worker)

    def _handle(self, event: Ready | Done | Lost) -> None:
        if isinstance(event, Ready):
            if not self.report.workers:
                self.started = time.monotonic()
            self.starting.discard(event.worker)
            self.held[event.worker], self.places[event.worker] = [], event.place
            self.report.workers = max(self.report.workers, len(self.held))
        elif isinstance(event, Done):
            self._take(event)
        elif event.worker in self.starting:
            self._handle_failed_start(event)
        else:
            self._handle_loss(event)

    def _take(self, event: Done) -> None:
        self.held[event.worker].remove(event.group)
        report, place = event.report, self.places[event.worker]
        for notice in report.notices:
            self.notify(notice)
        self.report.network_seconds += report.network_seconds
        if report.faces is not None:
            self.report.faces = (self.report.faces or 0) + report.faces
        for position, job in enumerate(event.group):
            error = report.errors.get(position)
            if error is None:
                self.report.done += 1
                if report.video is not None:
                    self.callbacks.on_video(job, report.video)
                self.callbacks.on_file(job)
            elif self.pool.retries_failures and job not in self.tried:
                self._retry(job, place)
            else:
                self._fail(job, error)

    def _retry(self, job: Job, place: str) -> None:
        self.tried.add(job)
        self.retries.append(Retry(job, place))

    def _fail(self, job: Job, error: InputError) -> None:
        self.report.failures[job] = error
        self.callbacks.on_file(job)

    def _handle_failed_start(self, event: Lost) -> None:
        self.starting.discard(event.worker)
        if not event.by_itself:
            self._start(event.worker)
        elif self.starting or self.held:
            self._warn(f"{event.reason} while it loaded networks; the other workers do its share.")
        else:
            raise InputError(
                f"No worker is left: {event.reason} while it loaded networks, perhaps for lack of memory.",
                parameter="workers",
                hint="Set {workers} to fewer.",
            )

    def _handle_loss(self, event: Lost) -> None:
        jobs = [job for group in self.held.pop(event.worker) for job in group]
        place = self.places.pop(event.worker)
        for job in jobs:
            if event.by_itself and job in self.tried:
                self._fail(job, InputError(f"{job}: {event.reason} while it restored it, for the second time."))
            elif event.by_itself or job in self.tried:
                self._retry(job, place)
            else:
                self.waiting.appendleft((job,))
        self._warn(f"{event.reason}; {len(jobs)} files that it had are restored by others.")
        if self.waiting or self.retries:
            self._start(event.worker)

    def _warn(self, message: str) -> None:
        self.callbacks.notify(Notice(message, level=logging.WARNING))

    def _give(self) -> None:
        """One group at a time to the worker that has fewest, so that all get the same where few are left."""
        free = set(self.held)
        while free:
            worker = min(free, key=lambda worker: (len(self.held[worker]), worker))
            group = self._next_group(worker)
            if group is None:
                free.remove(worker)
                continue
            self.held[worker].append(group)
            self.pool.give(worker, group)

    def _next_group(self, worker: int) -> Group | None:
        held = self.held[worker]
        if len(held) == SLOTS or any(group[0].is_video or group[0] in self.tried for group in held):
            return None  # what would wait behind a video is sooner done by others
        if self.waiting:
            return self.waiting.popleft()
        place = self.places[worker]
        elsewhere = any(other != place for other in self.places.values())
        retry = next((retry for retry in self.retries if retry.place != place or not elsewhere), None)
        if held or retry is None:
            return None
        self.retries.remove(retry)
        return (retry.job,)


def grouped(jobs: Sequence[Job], batch: int) -> list[Group]:
    """Videos one by one, as they take longest, then images in groups of up to ``batch``."""
    images = [job for job in jobs if not job.is_video]
    videos = [(job,) for job in jobs if job.is_video]
    return videos + [tuple(images[start : start + batch]) for start in range(0, len(images), batch)]
