"""What a worker is, wherever it runs: something that does groups of tasks, made from a description that travels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glean_ext.errors import InputError, Notice

Group = tuple[Hashable, ...]  # tasks that a worker does together; ``str(task)`` is what messages call one


@dataclass(frozen=True)
class GroupReport:
    """What became of a group.

    Attributes:
        errors: Why some failed, by their position.
        notices: What was noticed meanwhile, perhaps of another group.
        content: What the kind of worker adds.
    """

    errors: dict[int, InputError] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    content: Any = None


class Worker(ABC):
    """Does groups of tasks. Several threads may ask for it."""

    @abstractmethod
    def work(self, group: Any) -> GroupReport:
        """Do a group.

        Raises:
            InputError: What would stop all others, too, such as a full disk.
            RuntimeError: A fault of the program.
        """

    @abstractmethod
    def stop(self) -> None:
        """Begin nothing further; what is being written is finished."""


class WorkerSpec(ABC):
    """What workers of a kind are made from; it can be pickled.

    Attributes:
        slots: Groups that a worker has at a time: one that is computed, others that are read, written, or wait.
    """

    slots = 2

    @abstractmethod
    def make(self) -> Worker:
        """A worker, in its own process.

        Raises:
            InputError: It cannot be made.
        """

    @abstractmethod
    def for_elsewhere(self) -> WorkerSpec:
        """The same for a process in another folder: paths are absolute."""

    def task_for_elsewhere(self, task: Any) -> Any:
        """A task for a process in another folder."""
        return task

    def devices(self) -> Sequence[str]:
        """The GPUs of this machine, where it uses those."""
        return ()

    def on_device(self, device: str | None) -> WorkerSpec:
        """The same for one of the devices; None: there are none."""
        return self

    def resource(self, resources: Mapping[str, float]) -> str:
        """What a worker takes one of from a cluster that has these: ``'GPU'`` or ``'CPU'``.

        Raises:
            InputError: The cluster does not have what is needed.
        """
        return "CPU"
