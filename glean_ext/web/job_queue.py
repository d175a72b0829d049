"""The queue of the page: one job runs, the others wait; results are kept for a while, each in its own folder."""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from glean_ext.errors import InputError, Notice
from glean_ext.web.limits import Limits

Kind = Literal["face", "photo"]
State = Literal["waiting", "running", "done", "failed", "cancelled"]

LOGGER = logging.getLogger(__name__)
SWEEP_SECONDS = 30  # after which an idle worker looks for expired results
FORGET_SECONDS = 60  # after which a job without a result is forgotten
CLOSE_SECONDS = 10  # that closing waits for the current forward pass
# How the page's user knows a parameter of the library; hints about other parameters are left out.
CONTROLS = {
    "fidelity": "the fidelity slider",
    "model": "the model",
    "references": "the choice of references",
    "seed": "the variant",
}


def as_control(parameter: str, value: str | None = None) -> str | None:
    """How the page's user knows a parameter: by the control of the page that sets it, if there is one.

    >>> as_control("fidelity"), as_control("fidelity", "0.5"), as_control("size_policy", "resize")
    ('the fidelity slider', 'the fidelity slider at 0.5', None)
    """
    if (parameter, value) == ("model", "list"):
        return None  # the page lists the models anyway
    control = CONTROLS.get(parameter)
    return control if control is None or value is None else f"{control} at {value}"


class Cancelled(Exception):
    """The job's result is no longer wanted."""


class QueueFull(Exception):
    """No further job can be accepted now."""


@dataclass(frozen=True)
class Order:
    """What a job shall do.

    Attributes:
        name: Of the image, in messages.
        model: Name of the model.
        kind: ``'face'``: the model restores the whole image; ``'photo'``: it restores the faces in the image.
        fidelity: In [0, 1], weight of the input in the result.
        size: Height and width of the image.
        seed: Of a colorizer: which of its answers is given; None: the one in the middle.
    """

    name: str
    model: str
    kind: Kind
    fidelity: float
    size: tuple[int, int]
    seed: int | None = None


@dataclass(eq=False)
class Job:
    """An order and its progress. Only the worker thread changes it, except for ``unwanted`` and ``stored_bytes``.

    Attributes:
        content: The image file; empty once it was read.
        references: The files of reference images; none once they were read.
        folder: Where the result is written.
        total: Of the steps that are counted; 0 when they cannot be.
        began: When it started to run, in seconds of a monotonic clock; so are the times below.
        first: What was done and when, at the first report of the current step.
        last: The same of the last report.
        stored_bytes: Size of the result's files.
        unwanted: It shall end at its next report.
    """

    id: str
    order: Order
    content: bytes
    folder: Path
    references: Sequence[bytes] = ()
    state: State = "waiting"
    step: str = ""
    done: int = 0
    total: int = 0
    notices: list[str] = field(default_factory=list)
    error: str = ""
    result: dict[str, Any] | None = None
    began: float = 0.0
    first: tuple[int, float] = (0, 0.0)
    last: tuple[int, float] = (0, 0.0)
    ended: float = 0.0
    stored_bytes: int = 0
    unwanted: bool = False

    def report(self, step: str, done: int = 0, total: int = 0) -> None:
        """Report progress.

        Raises:
            Cancelled: The job is no longer wanted.
        """
        if self.unwanted:
            raise Cancelled
        self.last = done, time.monotonic()
        if step != self.step:
            self.first = self.last
        self.step, self.done, self.total = step, done, total

    def notify(self, notice: Notice) -> None:
        """Add a notice for the page's user."""
        self.notices.append(notice.render(as_control))

    @property
    def effort(self) -> tuple[tuple[str, Kind], int]:
        """What its time depends on: jobs with an equal first part need time in proportion to the second, pixels."""
        return (self.order.model, self.order.kind), self.order.size[0] * self.order.size[1]


class JobQueue:
    """A queue with one worker thread.

    Args:
        work: Restores: writes into ``job.folder``, calls ``job.report``, and returns :attr:`Job.result`.
        root: Each job has a folder in it.
        limits: How many jobs may wait, and how many results are kept how long.
    """

    def __init__(self, work: Callable[[Job], dict[str, Any]], root: Path, limits: Limits):
        self._work = work
        self._root = root
        self._limits = limits
        self._jobs: dict[str, Job] = {}  # in the order in which they came
        self._rates: dict[tuple[str, Kind], float] = {}  # seconds per pixel
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="restoring", daemon=True)
        self._thread.start()

    def check_room(self) -> None:
        """Raise QueueFull when no further job can wait."""
        with self._changed:
            if self._closed or len(self._waiting()) >= self._limits.waiting:
                raise QueueFull

    def add(self, order: Order, content: bytes, references: Sequence[bytes] = ()) -> Job:
        """Queue an order.

        Raises:
            QueueFull: No further job can wait.
        """
        with self._changed:
            self.check_room()
            token = secrets.token_urlsafe(24)
            job = self._jobs[token] = Job(token, order, content, self._root / token, references)
            self._changed.notify_all()
        return job

    def get(self, token: str) -> Job | None:
        """The job with that id; None when it does not exist or has expired."""
        with self._changed:
            self._sweep()
            return self._jobs.get(token)

    def cancel(self, job: Job) -> None:
        """Remove a waiting job from the queue, end a running one at its next report, or remove a result."""
        with self._changed:
            job.unwanted = True
            if job.state == "waiting":
                job.state, job.ended, job.content, job.references = "cancelled", time.monotonic(), b"", ()
            elif job.state != "running":
                self._forget(job)

    def estimate(self, job: Job) -> tuple[int, float | None]:
        """How many jobs are before this one, and the seconds until it is done: None when they are not known."""
        with self._changed:
            line = [other for other in self._jobs.values() if other.state == "running"] + self._waiting()
            if job not in line:
                return 0, None
            place = line.index(job)
            left = [self._seconds_left(other) for other in line[: place + 1]]
            return place, None if None in left else sum(seconds for seconds in left if seconds is not None)

    def status(self, job: Job) -> dict[str, Any]:
        """What the page shows. An ended job's state and its result or error always appear together."""
        with self._changed:
            ahead, seconds = self.estimate(job)
            return {
                "name": job.order.name,
                "state": job.state,
                "ahead": ahead,
                "step": job.step,
                "done": job.done,
                "total": job.total,
                "seconds": seconds,
                "notices": list(job.notices),
                "error": job.error,
                "result": job.result,
            }

    def count_files(self, job: Job) -> None:
        """Count the files of a result again, to which some were added; those of a forgotten job are removed."""
        with self._changed:
            if job.id in self._jobs:
                job.stored_bytes = sum(path.stat().st_size for path in job.folder.glob("*"))
            else:
                shutil.rmtree(job.folder, ignore_errors=True)

    def close(self) -> None:
        """End the work and remove everything."""
        with self._changed:
            self._closed = True
            for job in list(self._jobs.values()):
                self.cancel(job)
            self._changed.notify_all()
        self._thread.join(CLOSE_SECONDS)

    def _waiting(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.state == "waiting"]

    def _seconds_left(self, job: Job) -> float | None:
        now = time.monotonic()
        (done, then), (done_now, last) = job.first, job.last
        if job.state == "running" and done_now > done:
            pace = (last - then) / (done_now - done)
            return max(0.0, pace * (job.total - done_now) - (now - last))
        like, pixels = job.effort
        if like not in self._rates:
            return None
        spent = now - job.began if job.state == "running" else 0
        return max(0.0, self._rates[like] * pixels - spent)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                job.folder.mkdir(mode=0o700)
                job.result = self._work(job)
                self._end(job, "done")
            except Cancelled:
                self._end(job, "cancelled")
            except InputError as error:
                self._end(job, "failed", error.render(as_control))
            except Exception:  # a fault of the program must not end the worker, and its traceback is not for the page
                LOGGER.exception("The page failed to restore an image.")
                self._end(job, "failed", f"{job.order.name}: the server failed. What happened is in its terminal.")

    def _next(self) -> Job | None:
        """Wait for a job; None when the queue was closed."""
        with self._changed:
            while not self._closed:
                self._sweep()
                if waiting := self._waiting():
                    job = waiting[0]
                    job.state, job.began = "running", time.monotonic()
                    return job
                self._changed.wait(SWEEP_SECONDS)
        return None

    def _end(self, job: Job, state: State, error: str = "") -> None:
        with self._changed:
            job.state = "cancelled" if job.unwanted else state
            job.error, job.ended, job.content, job.references = error, time.monotonic(), b"", ()
            if job.state == "done":
                like, pixels = job.effort
                self._rates[like] = (job.ended - job.began) / pixels
                self.count_files(job)
            else:
                shutil.rmtree(job.folder, ignore_errors=True)
            self._sweep()

    def _sweep(self) -> None:
        """Forget the ended jobs that are too old, and the oldest results where there are too many or too large ones."""
        now, count, size = time.monotonic(), 0, 0
        for job in sorted((job for job in self._jobs.values() if job.ended), key=lambda job: -job.ended):
            done = job.state == "done"
            count, size = count + done, size + job.stored_bytes
            surplus = count > self._limits.keep_jobs or (count > 1 and size > self._limits.keep_bytes)
            if (done and surplus) or now - job.ended > (self._limits.keep_seconds if done else FORGET_SECONDS):
                self._forget(job)

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        shutil.rmtree(job.folder, ignore_errors=True)
