"""What runs workers: processes of this machine, or actors of a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from glean_ext.workers.worker import Group, GroupReport

AUTO = "auto"


@dataclass(frozen=True)
class Ready:
    """A worker is ready to work.

    Attributes:
        worker: Its number.
        place: Where it runs: a device, or a node of a cluster.
    """

    worker: int
    place: str


@dataclass(frozen=True)
class Done:
    """A worker has done a group."""

    worker: int
    group: Group
    report: GroupReport


@dataclass(frozen=True)
class Lost:
    """A worker is gone, with all groups that it had.

    Attributes:
        worker: Its number.
        reason: A sentence without its full stop.
        by_itself: Perhaps one of its tasks was the reason; not so where its machine is gone, too.
    """

    worker: int
    reason: str
    by_itself: bool = True


Event = Ready | Done | Lost


class WorkerPool(ABC):
    """Workers by number, from 0 to ``size`` - 1.

    Attributes:
        size: Number of workers.
        slots: Groups that a worker has at a time.
        retries_failures: A task that failed is tried again: another machine may have what was missing.
    """

    size: int
    slots: int
    retries_failures = False

    @abstractmethod
    def start(self, worker: int) -> None:
        """Begin to start a worker, for the first time or after it was lost. An event follows."""

    @abstractmethod
    def give(self, worker: int, group: Group) -> None:
        """Let a worker that is ready do a group. An event follows."""

    @abstractmethod
    def wait(self) -> Iterable[Event]:
        """What happened; waits until something has.

        Raises:
            InputError: Workers cannot be made, or the disk is full.
            RuntimeError: A fault of the program in a worker.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers. No file stays that is written in part."""


def worker_count(workers: int | str | None, available: int) -> int:
    """How many workers there are, where ``available`` is what ``'auto'`` and None stand for."""
    return workers if isinstance(workers, int) else max(1, available)
