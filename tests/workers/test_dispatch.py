"""Which worker gets what, and what happens to the tasks of those that are lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from glean_ext.errors import InputError, Notice
from glean_ext.workers.dispatch import Dispatcher
from glean_ext.workers.pool import Done, Event, Lost, Ready, WorkerPool
from glean_ext.workers.worker import Group, GroupReport

SLOTS = 4


class ScriptedPool(WorkerPool):
    """Workers that are ready at once and work at once, unless ``script`` has an event for a task.

    Attributes:
        given: The tasks of each group, in the order in which workers got them.
    """

    slots = SLOTS

    def __init__(self, size: int, script: dict[str, list[str]] | None = None, places: Sequence[str] = ("here",)):
        self.size, self.script, self.places = size, script or {}, places
        self.events: list[Event] = []
        self.given: list[tuple[int, list[str]]] = []
        self.starts: list[int] = []

    def start(self, worker: int) -> None:
        self.starts.append(worker)
        fails = self.script.get(f"start {worker}")
        self.events.append(self._lost(worker, fails.pop(0)) if fails else self._ready(worker))

    def _ready(self, worker: int) -> Ready:
        return Ready(worker, self.places[worker % len(self.places)])

    def _lost(self, worker: int, how: str) -> Lost:
        return Lost(worker, f"Worker {worker} was lost", how == "lost")

    def give(self, worker: int, group: Group) -> None:
        self.given.append((worker, [str(task) for task in group]))
        happens = [outcomes.pop(0) for task in group if (outcomes := self.script.get(str(task)))]
        if "lost" in happens or "node" in happens:
            self.events = [event for event in self.events if event.worker != worker]
            self.events.append(self._lost(worker, happens[0]))
        elif not any(isinstance(event, Lost) and event.worker == worker for event in self.events):
            errors = {0: InputError(f"{group[0]} is bad.")} if happens else {}
            self.events.append(Done(worker, group, GroupReport(errors)))

    def wait(self) -> Iterable[Event]:
        assert self.events, "waits for nothing"
        events, self.events = self.events, []
        return events

    def close(self) -> None: ...


def dispatched(pool: ScriptedPool, *names: str, batch: int = 1) -> tuple[dict[str, str], list[str], int]:
    """Failures by task, notices, and the number of tasks that were done."""
    notices: list[str] = []
    ended: list[str] = []
    groups = [names[start : start + batch] for start in range(0, len(names), batch)]
    dispatcher = Dispatcher(
        pool,
        groups,
        lambda notice: notices.append(str(notice)),
        on_task=ended.append,
        is_long=lambda name: name.endswith(".mp4"),
    )
    report = dispatcher.run()
    assert sorted(ended) == sorted(names)
    return {task: str(error) for task, error in report.failures.items()}, notices, report.done


def test_workers_get_the_same_number_of_groups_and_no_more_than_they_have_room_for():
    pool = ScriptedPool(2)
    names = [f"{number}.png" for number in range(20)]
    assert dispatched(pool, *names) == ({}, [], 20)
    assert [worker for worker, _ in pool.given[: 2 * SLOTS]] == [0, 1] * SLOTS
    assert sorted(name for _, group in pool.given for name in group) == sorted(names)
    few = ScriptedPool(8)
    assert dispatched(few, "a.png", "b.png", "c.png", batch=2) == ({}, [], 3) and few.starts == [0, 1]


def test_what_several_workers_notice_is_said_once():
    class Noticing(ScriptedPool):
        def give(self, worker: int, group: Group) -> None:
            report = GroupReport(notices=[Notice("of the model"), Notice(f"of {group[0]}")])
            self.events.append(Done(worker, group, report))

    assert dispatched(Noticing(2), "a.png", "b.png")[1] == ["of the model", "of a.png", "of b.png"]


def test_nothing_waits_behind_what_takes_long():
    pool = ScriptedPool(1)
    pool.give, give = lambda worker, group: (waiting.append(list(pool.events)), give(worker, group)), pool.give
    waiting: list[list[Event]] = []
    assert dispatched(pool, "film.mp4", "a.png", "b.png")[2] == 3
    assert [group for _, group in pool.given] == [["film.mp4"], ["a.png"], ["b.png"]]
    assert waiting[1] == [], "the others were given when it was done"


def test_what_a_lost_worker_had_is_tried_again_alone_and_elsewhere():
    pool = ScriptedPool(2, {"b.png": ["lost"]}, places=("here", "there"))
    failures, notices, done = dispatched(pool, "a.png", "b.png", "c.png", "d.png", "e.png", "f.png")
    assert (failures, done) == ({}, 6) and len(notices) == 1 and notices[0].startswith("Worker 1 was lost; ")
    again = [(worker, group) for worker, group in pool.given if group == ["b.png"]]
    assert again == [(1, ["b.png"]), (0, ["b.png"])] and pool.starts == [0, 1, 1]


def test_a_file_that_loses_two_workers_is_listed_and_the_others_are_not():
    pool = ScriptedPool(1, {"b.png": ["lost", "lost"]})
    failures, _, done = dispatched(pool, "a.png", "b.png", "c.png")
    assert failures == {"b.png": "b.png: Worker 0 was lost while it worked on it, for the second time."} and done == 2


def test_a_lost_node_is_no_fault_of_its_files():
    pool = ScriptedPool(1, {"b.png": ["node"] * 5})
    assert dispatched(pool, "a.png", "b.png", "c.png")[::2] == ({}, 3)


@pytest.mark.parametrize(("retries", "outcomes", "fails"), [(False, 1, True), (True, 1, False), (True, 2, True)])
def test_failures_are_tried_again_on_a_cluster_only(retries, outcomes, fails):
    pool = ScriptedPool(2, {"b.png": ["bad"] * outcomes})
    pool.retries_failures = retries
    failures, _, done = dispatched(pool, "a.png", "b.png", "c.png")
    assert failures == ({"b.png": "b.png is bad."} if fails else {}) and done == 3 - fails


def test_a_worker_that_cannot_start_is_left_out_and_without_any_the_run_ends():
    pool = ScriptedPool(2, {"start 1": ["lost"]})
    failures, notices, done = dispatched(pool, "a.png", "b.png", "c.png")
    assert (failures, done, pool.starts) == ({}, 3, [0, 1]) and notices == [
        "Worker 1 was lost while it started; the other workers do its share."
    ]
    again = ScriptedPool(1, {"start 0": ["node", "node"]})
    assert dispatched(again, "a.png")[2] == 1 and again.starts == [0, 0, 0]
    with pytest.raises(InputError, match=r"No worker is left: Worker 0 was lost .* Set workers to fewer\."):
        dispatched(ScriptedPool(1, {"start 0": ["lost"]}), "a.png")
