"""Hands the tasks of a run to workers, takes back what a lost one had, and collects what became of all."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from glean_ext.errors import InputError, Notice
from glean_ext.utils.messages import once
from glean_ext.utils.outcome import Report
from glean_ext.workers.pool import Done, Lost, Ready, WorkerPool
from glean_ext.workers.worker import Group, GroupReport


@dataclass(frozen=True)
class Retry:
    """A task for the second try.

    Attributes:
        place: Where the first one was.
    """

    task: Any
    place: str


class Dispatcher:
    """One run of tasks through a pool of workers.

    A worker gets the next group as soon as it has room. What a lost worker had, and on a cluster what failed, is tried
    once more, when all else is done: alone, so that a second loss names the task that causes it, and in another place
    where there is one.

    Args:
        pool: Runs the workers.
        groups: The tasks that go to a worker together.
        notify: Gets notices, those of workers once.
        on_report: Is called with what became of a group.
        on_task: Is called after each task, whether it failed or not.
        is_long: Whether a task takes so long that nothing should wait behind it.
        report: Is filled; None makes one.

    Attributes:
        report: What became of the tasks so far; its time begins with the first worker that is ready.
        workers: Number of those that were ready at some time.
    """

    def __init__(
        self,
        pool: WorkerPool,
        groups: Iterable[Group],
        notify: Callable[[Notice], None],
        on_report: Callable[[Any, GroupReport], None] = lambda group, report: None,
        on_task: Callable[[Any], None] = lambda task: None,
        is_long: Callable[[Any], bool] = lambda task: False,
        report: Report[Any] | None = None,
    ):
        self.pool, self.notify, self.notify_once = pool, notify, once(notify)
        self.on_report, self.on_task, self.is_long = on_report, on_task, is_long
        self.waiting = deque(groups)
        self.retries: deque[Retry] = deque()
        self.tried: set[Any] = set()  # tasks whose next failure counts
        self.held: dict[int, list[Group]] = {}  # of each worker that is ready
        self.places: dict[int, str] = {}  # of these
        self.starting: set[int] = set()
        self.report: Report[Any] = Report() if report is None else report
        self.workers, self.started = 0, time.monotonic()

    def run(self) -> Report[Any]:
        """Do all tasks.

        Raises:
            InputError: Workers cannot be made, none is left, or the disk is full.
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
            if not self.workers:
                self.started = time.monotonic()
            self.starting.discard(event.worker)
            self.held[event.worker], self.places[event.worker] = [], event.place
            self.workers = max(self.workers, len(self.held))
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
            self.notify_once(notice)
        self.on_report(event.group, report)
        for position, task in enumerate(event.group):
            error = report.errors.get(position)
            if error is None:
                self.report.done += 1
                self.on_task(task)
            elif self.pool.retries_failures and task not in self.tried:
                self._retry(task, place)
            else:
                self._fail(task, error)

    def _retry(self, task: Any, place: str) -> None:
        self.tried.add(task)
        self.retries.append(Retry(task, place))

    def _fail(self, task: Any, error: InputError) -> None:
        self.report.failures[task] = error
        self.on_task(task)

    def _handle_failed_start(self, event: Lost) -> None:
        self.starting.discard(event.worker)
        if not event.by_itself:
            self._start(event.worker)
        elif self.starting or self.held:
            self._warn(f"{event.reason} while it started; the other workers do its share.")
        else:
            raise InputError(
                f"No worker is left: {event.reason} while it started, perhaps for lack of memory.",
                parameter="workers",
                hint="Set {workers} to fewer.",
            )

    def _handle_loss(self, event: Lost) -> None:
        tasks = [task for group in self.held.pop(event.worker) for task in group]
        place = self.places.pop(event.worker)
        for task in tasks:
            if event.by_itself and task in self.tried:
                self._fail(task, InputError(f"{task}: {event.reason} while it worked on it, for the second time."))
            elif event.by_itself or task in self.tried:
                self._retry(task, place)
            else:
                self.waiting.appendleft((task,))
        self._warn(f"{event.reason}; {len(tasks)} files that it had go to others.")
        if self.waiting or self.retries:
            self._start(event.worker)

    def _warn(self, message: str) -> None:
        self.notify(Notice(message, level=logging.WARNING))

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
        if len(held) == self.pool.slots or any(self.is_long(group[0]) or group[0] in self.tried for group in held):
            return None  # what would wait behind it is sooner done by others
        if self.waiting:
            return self.waiting.popleft()
        place = self.places[worker]
        elsewhere = any(other != place for other in self.places.values())
        retry = next((retry for retry in self.retries if retry.place != place or not elsewhere), None)
        if held or retry is None:
            return None
        self.retries.remove(retry)
        return (retry.task,)
