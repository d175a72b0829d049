"""The queue: one worker restores, the other jobs wait; results are kept for a while in a folder each."""

from __future__ import annotations

import secrets
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from glean_ext.errors import InputError
from glean_ext.web.limits import Limits

Kind = Literal["face", "photo"]
State = Literal["waiting", "running", "done", "failed", "cancelled"]
SWEEP = 30  # seconds after which an idle worker looks for expired results
FORGET = 60  # seconds after which a job without a result is forgotten
JOIN = 10  # seconds that closing waits for a forward to end


class Cancelled(Exception):
    """Nobody wants the job's result any more."""


class Busy(Exception):
    """The queue is full."""


@dataclass(frozen=True)
class Order:
    """What is to be done.

    Attributes:
        name: What messages call it.
        model: Name of the model.
        kind: ``'face'``: the image is given to the model; ``'photo'``: the faces in it are.
        fidelity: In [0, 1], share of the input in the result.
        size: Height and width of the image.
    """

    name: str
    model: str
    kind: Kind
    fidelity: float
    size: tuple[int, int]


@dataclass(eq=False)
class Job:
    """An order and what became of it. The worker alone changes it, but for ``unwanted``."""

    id: str
    order: Order
    content: bytes  # the image file; the work drops it when it has read it
    folder: Path
    state: State = "waiting"
    step: str = ""
    done: int = 0
    total: int = 0  # of the step; 0 when it cannot be counted
    notices: list[str] = field(default_factory=list)
    error: str = ""
    result: dict[str, Any] | None = None
    began: float = 0.0
    first: tuple[int, float] = (0, 0.0)  # of the step: what was done when, at its first and its last report
    last: tuple[int, float] = (0, 0.0)
    ended: float = 0.0
    unwanted: bool = False

    def report(self, step: str, done: int = 0, total: int = 0) -> None:
        """Say how far the job is.

        Raises:
            Cancelled: Nobody wants to know.
        """
        if self.unwanted:
            raise Cancelled
        self.last = done, time.monotonic()
        if step != self.step:
            self.first = self.last
        self.step, self.done, self.total = step, done, total

    @property
    def effort(self) -> tuple[tuple[str, Kind], int]:
        """What the time it takes depends on: of two jobs with the same first part, the pixels."""
        return (self.order.model, self.order.kind), self.order.size[0] * self.order.size[1]


class Jobs:
    """A queue with one worker thread.

    Args:
        work: Restores: writes into ``job.folder``, calls ``job.report``, returns what :attr:`Job.result` becomes.
        root: Each job has a folder in it.
        limits: How many may wait, and how long results are kept.
    """

    def __init__(self, work: Callable[[Job], dict[str, Any]], root: Path, limits: Limits):
        self._work = work
        self._root = root
        self._limits = limits
        self._jobs: dict[str, Job] = {}  # in the order they came
        self._rates: dict[tuple[str, Kind], float] = {}  # seconds a pixel
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="restoring", daemon=True)
        self._thread.start()

    def check_room(self) -> None:
        """Raise Busy when the queue is full."""
        with self._changed:
            if self._closed or len(self._waiting()) >= self._limits.waiting:
                raise Busy

    def add(self, order: Order, content: bytes) -> Job:
        """Queue an order.

        Raises:
            Busy: The queue is full.
        """
        with self._changed:
            self.check_room()
            token = secrets.token_urlsafe(24)
            job = self._jobs[token] = Job(token, order, content, self._root / token)
            self._changed.notify_all()
        return job

    def get(self, token: str) -> Job | None:
        """The job of that id, unless there is none or it has expired."""
        with self._changed:
            self._sweep()
            return self._jobs.get(token)

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, end it at its next report, or throw its result away."""
        with self._changed:
            job.unwanted = True
            if job.state == "waiting":
                job.state, job.ended, job.content = "cancelled", time.monotonic(), b""
            elif job.state != "running":
                self._forget(job)

    def outlook(self, job: Job) -> tuple[int, float | None]:
        """How many jobs are before this one, and seconds until it is done: None when that is not known."""
        with self._changed:
            line = [other for other in self._jobs.values() if other.state == "running"] + self._waiting()
            if job not in line:
                return 0, None
            place = line.index(job)
            left = [self._left(other) for other in line[: place + 1]]
            return place, None if None in left else sum(seconds for seconds in left if seconds is not None)

    def status(self, job: Job) -> dict[str, Any]:
        """What the page is told: how a job ended never without what came of it."""
        with self._changed:
            ahead, seconds = self.outlook(job)
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

    def close(self) -> None:
        """End the work and forget everything."""
        with self._changed:
            self._closed = True
            for job in list(self._jobs.values()):
                self.cancel(job)
            self._changed.notify_all()
        self._thread.join(JOIN)

    def _waiting(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.state == "waiting"]

    def _left(self, job: Job) -> float | None:
        now = time.monotonic()
        (done, then), (done_now, lately) = job.first, job.last
        if job.state == "running" and done_now > done:
            pace = (lately - then) / (done_now - done)
            return max(0.0, pace * (job.total - done_now) - (now - lately))
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
                self._end(job, "failed", str(error))
            except Exception:  # a bug must not end the worker, nor say on the page where it is
                traceback.print_exc(file=sys.stderr)
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
                self._changed.wait(SWEEP)
        return None

    def _end(self, job: Job, state: State, error: str = "") -> None:
        with self._changed:
            job.state = "cancelled" if job.unwanted else state
            job.error, job.ended, job.content = error, time.monotonic(), b""
            if job.state == "done":
                like, pixels = job.effort
                self._rates[like] = (job.ended - job.began) / pixels
            else:
                shutil.rmtree(job.folder, ignore_errors=True)
            self._sweep()

    def _sweep(self) -> None:
        """Forget the ended jobs that are too old, and the results that are too many."""
        ended = sorted((job for job in self._jobs.values() if job.ended), key=lambda job: job.ended)
        now, surplus = time.monotonic(), sum(job.state == "done" for job in ended) - self._limits.keep_jobs
        for job in ended:
            done = job.state == "done"
            if done and surplus > 0:
                surplus -= 1
                self._forget(job)
            elif now - job.ended > (self._limits.keep_seconds if done else FORGET):
                self._forget(job)

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        shutil.rmtree(job.folder, ignore_errors=True)
