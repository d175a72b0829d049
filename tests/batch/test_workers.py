"""Several workers do what one process does, and a lost one loses nothing."""

from __future__ import annotations

import importlib.util
import signal
import time
from pathlib import Path

import pytest
from support.restoring import KILLER, restore, results, start_restoring, wait_for_results, workers_of, write_images
from support.tools import only_error, run_main

from glean_ext.batch.networks import RunCallbacks
from glean_ext.batch.options import ModelSource, PhotoOptions, RestoreOptions
from glean_ext.batch.output_plan import Job
from glean_ext.batch.run import plan_run, restore_files
from glean_ext.batch.workers import absolute, grouped
from glean_ext.cli import restore as command
from glean_ext.errors import InputError
from glean_ext.utils.shard import Shard

MODEL = ModelSource.named("demo_lightglean_x8")


# ---------------------------------------------------------------- processes


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
    assert failures["killer.png"].endswith("while it worked on it, for the second time.")
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


def test_groups_are_images_of_a_batch_and_single_videos():
    jobs = [Job(Path(name), Path("out", name)) for name in ("a.png", "f.mp4", "b.png", "c.png")]
    assert [[str(job) for job in group] for group in grouped(jobs, 2)] == [["f.mp4"], ["a.png", "b.png"], ["c.png"]]


def test_nodes_of_a_cluster_get_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("arcface.pth").touch()
    for embedder, expected in ("arcface.pth", f"{tmp_path}/arcface.pth"), *[("https://a.org/b.pth",) * 2]:
        options = RestoreOptions(
            MODEL, ("in",), "out", photo=PhotoOptions(embedder=embedder), references=("refs", Path("/a.png"))
        )
        made = absolute(options)
        assert made.photo.embedder == expected
        assert made.references == (tmp_path / "refs", Path("/a.png"))


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
