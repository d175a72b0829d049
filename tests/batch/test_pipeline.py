"""Files through a network: overlapped, bounded, in full, and stopped without leaving halves."""

from __future__ import annotations

import errno
import os
import threading
import time

import pytest

from glean_ext.batch import pipeline
from glean_ext.errors import InputError
from glean_ext.utils.outcome import Outcome, Report


class Letters:
    """Jobs are letters. 'prepare' and 'finish' note what they see; letters in ``bad`` fail where it says."""

    def __init__(self, bad: dict[str, str] | None = None, seconds: dict[str, float] | None = None, weight: int = 0):
        self.bad, self.seconds, self.weight = bad or {}, seconds or {}, weight
        self.read: list[str] = []
        self.batches: list[list[str]] = []
        self.written: list[str] = []
        self.most_ahead = 0
        self.threads: dict[str, set[str]] = {"prepare": set(), "restore": set(), "finish": set()}

    def _do(self, stage: str, letter: str) -> None:
        self.threads[stage].add(threading.current_thread().name)
        time.sleep(self.seconds.get(stage, 0))
        if self.bad.get(letter) == stage:
            raise InputError(f"{letter} fails in {stage}.")

    def prepare(self, job: str) -> str:
        self._do("prepare", job)
        self.read.append(job)
        done = sum(map(len, self.batches))
        self.most_ahead = max(self.most_ahead, len(self.read) - done)
        return job

    def restore(self, batch):
        results = []
        for letter in batch:
            try:
                self._do("restore", letter)
                results.append(Outcome(letter.upper()))
            except InputError as error:
                results.append(Outcome(error=error))
        self.batches.append(list(batch))
        return results

    def finish(self, prepared: str, result: str) -> None:
        self._do("finish", prepared)
        self.written.append(result)

    def size(self, prepared: str, result: str) -> int:
        return self.weight


JOBS = "abcdefghijklmnop"


def test_each_job_is_read_restored_and_written_once():
    letters, seen = Letters(), []
    report = pipeline.run(JOBS, letters, on_done=seen.append)
    assert sorted(letters.written) == list(JOBS.upper()) and letters.batches == [[letter] for letter in JOBS]
    assert report.done == len(JOBS) and report.failures == {} and report.seconds > 0 and sorted(seen) == list(JOBS)
    assert pipeline.run("", Letters()).done == 0


def test_batches():
    letters = Letters(bad={"c": "prepare"})
    report = pipeline.run(JOBS, letters, batch=5)
    assert letters.batches == [list("abde"), list("fghij"), list("klmno"), ["p"]]
    assert report.done == 15 and list(report.failures) == ["c"]


def test_failures_stop_nothing_and_are_all_reported():
    letters, seen = Letters(bad={"b": "prepare", "d": "restore", "f": "finish", "p": "finish"}), []
    report = pipeline.run(JOBS, letters, on_done=seen.append)
    assert {job: str(error) for job, error in report.failures.items()} == {
        "b": "b fails in prepare.",
        "d": "d fails in restore.",
        "f": "f fails in finish.",
        "p": "p fails in finish.",
    }
    assert report.done == 12 and sorted(seen) == list(JOBS)


def test_the_network_waits_for_neither_reading_nor_writing():
    """Each stage takes 20 ms a file: one after the other that were 0.96 s, and the network alone takes 0.32 s."""
    letters = Letters(seconds={"prepare": 0.02, "restore": 0.02, "finish": 0.02})
    report = pipeline.run(JOBS, letters)
    assert report.seconds < 0.7
    assert letters.threads["restore"] == {threading.current_thread().name}
    assert not letters.threads["restore"] & (letters.threads["prepare"] | letters.threads["finish"])


def test_little_is_read_ahead():
    letters = Letters(seconds={"restore": 0.01})
    pipeline.run(JOBS, letters)
    assert 1 < letters.most_ahead <= 1 + pipeline.READERS + 1


def test_writes_that_wait_are_bounded():
    """By their number and, when they are heavy, by their weight."""
    for weight, most in (0, 2 * pipeline.WRITERS + 1), (pipeline.HELD, 1):
        letters, behind = Letters(seconds={"finish": 0.01}, weight=weight), []
        restore = letters.restore

        def noting(batch, letters=letters, behind=behind, restore=restore):
            behind.append(sum(map(len, letters.batches)) - len(letters.written))
            return restore(batch)

        letters.restore = noting
        assert pipeline.run(JOBS, letters).done == len(JOBS)
        assert max(behind) <= most


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_stops_all(number):
    """And so does a full quota, or one that became read-only."""

    class Full(Letters):
        def finish(self, prepared, result):
            if prepared == "c":
                raise InputError("c cannot be written.") from OSError(number, os.strerror(number))
            super().finish(prepared, result)

    letters = Full(seconds={"restore": 0.005})
    report = Report()
    with pytest.raises(pipeline.EndsRun, match=r"^c cannot be written\.$"):
        pipeline.run(JOBS, letters, report=report)
    assert (report.done, report.failures) == (2, {})
    assert len(letters.read) < len(JOBS)
    letters = Full(bad={"a": "prepare", "b": "finish"})
    with pytest.raises(pipeline.EndsRun):
        pipeline.run(JOBS, letters, report=(report := Report()))
    assert (report.done, list(report.failures)) == (0, ["a", "b"])


@pytest.mark.parametrize("where", ["prepare", "restore", "finish"])
def test_a_fault_of_the_program_is_not_taken_for_one_of_a_file(where):
    class Broken(Letters):
        def _do(self, stage, letter):
            if (stage, letter) == (where, "c"):
                raise ZeroDivisionError("by 0")
            super()._do(stage, letter)

    with pytest.raises((ZeroDivisionError, RuntimeError)) as caught:
        pipeline.run(JOBS, Broken())
    if where != "restore":  # there the network's whole batch is at work
        assert str(caught.value) == "c: an unexpected ZeroDivisionError: by 0"
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_interruption_lets_writers_finish():
    class Interrupted(Letters):
        def restore(self, batch):
            if batch == ["d"]:
                raise KeyboardInterrupt
            return super().restore(batch)

    letters = Interrupted(seconds={"finish": 0.05})
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(JOBS, letters)
    assert {"A", "B"} <= set(letters.written) <= {"A", "B", "C"}
    before = list(letters.written)
    time.sleep(0.1)
    assert letters.written == before and not any(thread.name.startswith("write") for thread in threading.enumerate())
