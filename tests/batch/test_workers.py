"""Several workers do what one process does, and a lost one loses nothing."""

from __future__ import annotations

import importlib.util
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from support.restoring import restore, results, start_restoring, wait_for_results, workers_of, write_images
from support.tools import only_error, run_main

from glean_ext.batch.networks import RunCallbacks
from glean_ext.batch.options import ModelSource, RestoreOptions
from glean_ext.batch.output_plan import Job
from glean_ext.batch.run import plan_run, restore_files
from glean_ext.batch.workers.dispatch import Dispatcher, grouped
from glean_ext.batch.workers.pool import Done, Event, Lost, Ready, WorkerPool
from glean_ext.batch.workers.worker import SLOTS, Group, GroupReport
from glean_ext.cli import restore as command
from glean_ext.errors import InputError
from glean_ext.utils.shard import Shard

MODEL = ModelSource.named("demo_lightglean_x8")


# ---------------------------------------------------------------- processes

KILLER = """
import os, signal, sys
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("killer.png") and "spawn_main" in " ".join(sys.orig_argv):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
"""


def test_two_workers_restore_what_one_process_does_and_name_the_file_that_kills_them(tmp_path, monkeypatch):
    write_images(tmp_path / "in", 20)
    options = RestoreOptions(MODEL, (tmp_path / "in",), tmp_path / "one", device="cpu", dtype="float32")
    assert restore_files(options).done == 20
    Path(tmp_path, "in/00/damaged.png").write_bytes(b"no image")
    Path(tmp_path, "in/killer.png").write_bytes(b"no image")
    Path(tmp_path, "site").mkdir()
    Path(tmp_path, "site/sitecustomize.py").write_text(KILLER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=":")
    notices, files = [], []
    two = RestoreOptions(MODEL, (tmp_path / "in",), tmp_path / "two", device="cpu", dtype="float32", workers=2)
    report = restore_files(two, RunCallbacks(notify=notices.append, on_file=files.append))
    assert (report.done, report.skipped) == (20, 0) and len(files) == len(set(files)) == 22
    assert results(tmp_path / "two") == results(tmp_path / "one")
    failures = {job.source.name: str(error) for job, error in report.failures.items()}
    assert failures.keys() == {"damaged.png", "killer.png"} and "(SIGKILL)" in failures["killer.png"]
    assert failures["killer.png"].endswith("while it restored it, for the second time.")
    assert len([notice for notice in notices if "was killed (SIGKILL)" in str(notice)]) == 2
    assert 0 < report.network_seconds < report.seconds


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
def test_an_ended_run_leaves_whole_files_and_no_processes_and_continues(tmp_path, end, code):
    write_images(tmp_path / "in", 200)
    arguments = tmp_path / "in", tmp_path / "out", "--workers", 2, "--skip-existing"
    process = start_restoring(*arguments)
    wait_for_results(tmp_path / "out", 5, process)
    workers = workers_of(process)
    process.send_signal(signal.Signals[end])
    _, stderr = process.communicate()
    assert process.returncode == code and stderr.count("\n") == (end != "SIGKILL")
    deadline = time.monotonic() + 30
    while any(worker.is_running() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    before = results(tmp_path / "out")
    code, stdout, _ = restore(*arguments)
    assert code == 0 and f"{len(before)} skipped, which existed" in stdout and len(before) < 200
    assert restore(tmp_path / "in", tmp_path / "one")[0] == 0
    assert results(tmp_path / "out") == results(tmp_path / "one")


@pytest.mark.slow
def test_a_killed_worker_is_replaced(tmp_path):
    write_images(tmp_path / "in", 200)
    process = start_restoring(tmp_path / "in", tmp_path / "out", "--workers", 2)
    wait_for_results(tmp_path / "out", 5, process)
    workers_of(process)[0].kill()
    stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "") and "was killed (SIGKILL); " in stdout and "200 restored" in stdout
    assert restore(tmp_path / "in", tmp_path / "one")[0] == 0
    assert results(tmp_path / "out") == results(tmp_path / "one")


# ---------------------------------------------------------------- who gets what


class ScriptedPool(WorkerPool):
    """Workers that are ready at once and restore at once, unless ``script`` has an event for a file.

    Attributes:
        given: The names of the files of each group, in the order in which workers got them.
    """

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
        self.given.append((worker, [job.source.name for job in group]))
        happens = [outcomes.pop(0) for job in group if (outcomes := self.script.get(job.source.name))]
        if "lost" in happens or "node" in happens:
            self.events = [event for event in self.events if event.worker != worker]
            self.events.append(self._lost(worker, happens[0]))
        elif not any(isinstance(event, Lost) and event.worker == worker for event in self.events):
            errors = {0: InputError(f"{group[0]} is bad.")} if happens else {}
            self.events.append(Done(worker, group, GroupReport(errors, network_seconds=1)))

    def wait(self) -> Iterable[Event]:
        assert self.events, "waits for nothing"
        events, self.events = self.events, []
        return events

    def close(self) -> None: ...


def jobs(*names: str) -> list[Job]:
    return [Job(Path(name), Path("out", name)) for name in names]


def dispatched(pool: ScriptedPool, *names: str, batch: int = 1) -> tuple[dict[str, str], list[str], int]:
    """Failures by file, notices, and the number of restored files."""
    notices: list[str] = []
    done: list[Job] = []
    callbacks = RunCallbacks(notify=lambda notice: notices.append(str(notice)), on_file=done.append)
    report = Dispatcher(pool, jobs(*names), batch, callbacks).run()
    assert sorted(map(str, done)) == sorted(names)
    return {str(job): str(error) for job, error in report.failures.items()}, notices, report.done


def test_groups_are_images_of_a_batch_and_single_videos():
    found = [[str(job) for job in group] for group in grouped(jobs("a.png", "f.mp4", "b.png", "c.png"), 2)]
    assert found == [["f.mp4"], ["a.png", "b.png"], ["c.png"]]


def test_workers_get_the_same_number_of_groups_and_no_more_than_they_have_room_for():
    pool = ScriptedPool(2)
    names = [f"{number}.png" for number in range(20)]
    assert dispatched(pool, *names) == ({}, [], 20)
    assert [worker for worker, _ in pool.given[: 2 * SLOTS]] == [0, 1] * SLOTS
    assert sorted(name for _, group in pool.given for name in group) == sorted(names)
    few = ScriptedPool(8)
    assert dispatched(few, "a.png", "b.png", "c.png", batch=2) == ({}, [], 3) and few.starts == [0, 1]


def test_nothing_waits_behind_a_video():
    pool = ScriptedPool(1)
    pool.give, give = lambda worker, group: (waiting.append(list(pool.events)), give(worker, group)), pool.give
    waiting: list[list[Event]] = []
    assert dispatched(pool, "a.png", "film.mp4", "b.png")[2] == 3
    assert [group for _, group in pool.given] == [["film.mp4"], ["a.png"], ["b.png"]]
    assert waiting[1] == [], "the images were given when the video was done"


def test_what_a_lost_worker_had_is_tried_again_alone_and_elsewhere():
    pool = ScriptedPool(2, {"b.png": ["lost"]}, places=("here", "there"))
    failures, notices, done = dispatched(pool, "a.png", "b.png", "c.png", "d.png", "e.png", "f.png")
    assert (failures, done) == ({}, 6) and len(notices) == 1 and notices[0].startswith("Worker 1 was lost; ")
    again = [(worker, group) for worker, group in pool.given if group == ["b.png"]]
    assert again == [(1, ["b.png"]), (0, ["b.png"])] and pool.starts == [0, 1, 1]


def test_a_file_that_loses_two_workers_is_listed_and_the_others_are_not():
    pool = ScriptedPool(1, {"b.png": ["lost", "lost"]})
    failures, _, done = dispatched(pool, "a.png", "b.png", "c.png")
    assert failures == {"b.png": "b.png: Worker 0 was lost while it restored it, for the second time."} and done == 2


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
        "Worker 1 was lost while it loaded networks; the other workers do its share."
    ]
    again = ScriptedPool(1, {"start 0": ["node", "node"]})
    assert dispatched(again, "a.png")[2] == 1 and again.starts == [0, 0, 0]
    with pytest.raises(InputError, match=r"No worker is left: Worker 0 was lost .* Set workers to fewer\."):
        dispatched(ScriptedPool(1, {"start 0": ["lost"]}), "a.png")


# ---------------------------------------------------------------- shards


def test_shards_are_the_whole_and_stay_when_files_come(tmp_path):
    for number in range(60):
        Path(tmp_path, "in", "deep").mkdir(parents=True, exist_ok=True)
        Path(tmp_path, "in", "deep" if number % 2 else ".", f"{number}.png").touch()

    def planned(number: int) -> set[str]:
        options = RestoreOptions(MODEL, (tmp_path / "in",), tmp_path / "out", shard=Shard(number, 4))
        plan = plan_run(options)
        assert plan.elsewhere == len(plan.outputs.jobs) - len(plan.jobs)
        return {job.name_within(tmp_path / "out") for job in plan.jobs}

    shards = [planned(number) for number in (1, 2, 3, 4)]
    assert sum(map(len, shards)) == len(set().union(*shards)) == 60 and all(5 < len(shard) < 25 for shard in shards)
    for name in shards[1]:  # results of one shard do not stand in the way of another
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path(tmp_path, "in", "new.png").touch()
    assert planned(1) - {"new.png"} == shards[0] and planned(4) - {"new.png"} == shards[3]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "--workers is 0, but it must be at least 1."),
        (["--workers", "few"], "argument --workers: few is neither a number nor auto. See"),
        (["--shard", "5/4"], "--shard is 5/4, but it must be I/N, with I from 1 to N. Give 1/4, for example."),
        (["--shard", "0/4"], "--shard is 0/4, but it must be"),
        (["--shard", "1/0"], "--shard is 1/0, but it must be"),
        (["--shard", "1"], "--shard is 1, but it must be"),
    ],
)
def test_bad_numbers(tmp_path, capsys, arguments, message):
    Path(tmp_path, "a.png").touch()
    given = ["--model", "demo_glean_x8", tmp_path / "a.png", "-o", tmp_path / "out.png", *arguments]
    assert only_error(*run_main(command.main, capsys, *given)).startswith(message)
    with pytest.raises(InputError, match=r"workers is 'some', but it must be auto, or a number from 1 on\."):
        RestoreOptions(MODEL, ("a",), "b", workers="some")


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_a_cluster_needs_ray(tmp_path, capsys):
    write_images(tmp_path / "in", 1)
    given = ["--model", "demo_glean_x8", tmp_path / "in", "-o", tmp_path / "out", "--cluster", "auto"]
    line = only_error(*run_main(command.main, capsys, *given))
    assert line == "--cluster needs ray, which is not installed: pip install 'glean-ext[cluster]'"
