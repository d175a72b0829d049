"""From raw images to a data set: what is written, through interruptions, by the tool."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image
from support.preparation import TOOL, content, fault, names, picture, run, save, start
from support.restoring import KILLER
from support.tools import load_tool, run_main

from glean_ext.data_preparation.readers import Entry, FolderSource
from glean_ext.errors import InputError
from glean_ext.utils import files
from glean_ext.utils.image_io import read_rgb
from glean_ext.utils.imresize import imresize

# ---------------------------------------------------------------- what is written


def test_everything_that_is_written(tmp_path, raw):
    (raw / "0.png").unlink()
    save(picture(0, 40, 60), raw / "0.jpg", quality=95)
    (raw / "broken.png").write_bytes((raw / "1.png").read_bytes()[:100])
    save(picture(11, 20), raw / "small.png")
    save(picture(1), raw / "copy.bmp")
    (raw / "notes.txt").write_text("x")
    out = tmp_path / "out"
    report = run(raw, out, lr_scale=8, split=0.9)
    assert (report["images"], report["other files"], report["train"], report["test"]) == (13, 1, 9, 1)
    assert report["rejected"] == {"unreadable": 1, "too small": 1}
    assert report["duplicates dropped"] == {"equal": 1} and report["duplicates kept"] == {}
    assert [(reject["file"], reject["kind"]) for reject in report["rejects"]] == [
        ("broken.png", "unreadable"), ("small.png", "too small")
    ]  # fmt: skip
    assert report["rejects"][1]["reason"] == "small.png: it is 20x20, smaller than 32x32."
    assert json.loads((out / "report.json").read_text()) == report
    for split, count in ("train", 9), ("test", 1):
        found = names(out / split / "GT")
        assert names(out / split / "LQ") == found and len(found) == count
        lines = (out / f"meta_info_{split}.txt").read_text().splitlines()
        assert lines == [f"{name} (32,32,3)" for name in found]
        for name in found:
            gt = read_rgb(out / split / "GT" / name)
            np.testing.assert_array_equal(read_rgb(out / split / "LQ" / name), imresize(gt, size=(4, 4)))
            if name != "0.png":
                np.testing.assert_array_equal(gt, read_rgb(raw / name))
    original = np.ascontiguousarray(read_rgb(raw / "0.jpg")[:, 10:50])
    np.testing.assert_array_equal(read_rgb(next(out.glob("*/GT/0.png"))), imresize(original, size=(32, 32)))
    rows = list(csv.DictReader((out / "images.csv").read_text().splitlines()))
    assert {row["name"]: row["file"] for row in rows}["0.png"] == "0.jpg" and len(rows) == 10
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.size[0] > 9 * 96 and sheet.size[1] > 5 * 96  # train, test, two of a pair, rejected
    assert names(out) == [
        "contact_sheet.png", "images.csv", "meta_info_test.txt", "meta_info_train.txt", "records.jsonl",
        "report.json", "test", "train",
    ]  # fmt: skip


def test_mmagic_reads_what_was_written(tmp_path, raw):
    """Folders through this package's dataset, LMDB through MMagic's LoadImageFromFile, as configs would."""
    from mmagic.registry import DATASETS
    from mmengine.registry import DefaultScope

    import glean_ext.plugin  # noqa: F401  (makes MMagic importable)

    run(raw, tmp_path / "folders", lr_scale=8, split=0.8)
    run(raw, tmp_path / "databases", lr_scale=8, split=0.8, lmdb=True)
    root = tmp_path / "databases"
    assert names(root / "train_GT.lmdb") == ["data.mdb", "lock.mdb", "meta_info.txt"]
    assert (root / "train_GT.lmdb/meta_info.txt").read_text().splitlines()[0] == (
        f"{names(tmp_path / 'folders/train/GT')[0]} (32,32,3) 4"
    )

    def load(key: str, database: str) -> dict:
        backend = {"backend": "lmdb", "db_path": str(root / database)}
        return {"type": "LoadImageFromFile", "key": key, "channel_order": "rgb", "backend_args": backend}

    def samples(kind: str, root: Path, prefix: dict, pipeline: list[dict], **more) -> list[dict]:
        cfg = {"type": kind, "data_root": str(root), "data_prefix": prefix, "ann_file": "meta_info_train.txt"}
        with DefaultScope.overwrite_default_scope("mmagic"):
            dataset = DATASETS.build(cfg | {"pipeline": pipeline} | more)
        return [dataset[i] for i in range(len(dataset))]  # an LMDB is open once in a process; now it is closed again

    gt, img = load("gt", "train_GT.lmdb"), load("img", "train_LQ.lmdb")
    alone, both = {"gt": "train_GT.lmdb"}, {"gt": "train_GT.lmdb", "img": "train_LQ.lmdb"}
    folders = {"gt": "train/GT", "img": "train/LQ"}
    from_files = [{"type": "LoadRGB", "key": "gt"}, {"type": "LoadOrMakeLQ"}]
    expected = samples("SRFolderDataset", tmp_path / "folders", folders, from_files, scale=8)
    made = samples("SRFolderDataset", root, alone, [gt, {"type": "LoadOrMakeLQ"}], scale=8)
    pairs = samples("SRFolderDataset", root, both, [gt, img], scale=8)
    theirs = samples("BasicImageDataset", root, both, [gt, img])
    assert [len(one) for one in (expected, made, pairs, theirs)] == [8] * 4
    for wanted, *found in zip(expected, made, pairs, theirs, strict=True):
        name = Path(wanted["gt_path"]).name
        np.testing.assert_array_equal(wanted["gt"], read_rgb(raw / name))
        for sample in found:
            assert Path(sample["gt_path"]).name == name
            np.testing.assert_array_equal(sample["gt"], wanted["gt"])
            np.testing.assert_array_equal(sample["img"], wanted["img"])


# ---------------------------------------------------------------- continuing


def test_a_second_run_has_nothing_to_do_and_restores_missing_files(tmp_path, raw, caplog):
    for kind, lmdb_too in ("folder", False), ("database", True):
        out = tmp_path / kind
        report = run(raw, out, lr_scale=8, lmdb=lmdb_too)
        caplog.clear()
        caplog.set_level("INFO")
        assert run(raw, out, lr_scale=8, lmdb=lmdb_too) == report
        assert "is complete, there is nothing to do." in caplog.text
    before = content(tmp_path / "folder")
    victims = sorted((tmp_path / "folder/train/GT").iterdir())[:3]
    victims[0].unlink()
    victims[1].write_bytes(victims[1].read_bytes()[:-9])
    run(raw, tmp_path / "folder", lr_scale=8)
    assert content(tmp_path / "folder") == before


@pytest.mark.parametrize("lmdb_too", [False, True])
def test_the_source_may_change_between_runs(tmp_path, raw, lmdb_too):
    """What was added, changed and taken away shows; the result is that of a run from nothing."""
    run(raw, tmp_path / "out", split=0.5, lmdb=lmdb_too)
    for seed in range(20, 30):
        save(picture(seed), raw / f"more/{seed}.png")
    (raw / "3.png").unlink()
    save(picture(4, 40), raw / "4.png")
    save(picture(5, 64), raw / "5_larger.png")
    report = run(raw, tmp_path / "out", split=0.5, lmdb=lmdb_too)
    fresh = run(raw, tmp_path / "fresh", split=0.5, lmdb=lmdb_too)
    for key in "train", "test", "duplicates dropped", "duplicates", "images":
        assert report[key] == fresh[key]
    assert content(tmp_path / "out") == content(tmp_path / "fresh")
    for split in "train", "test":
        lines = [(tmp_path / out / f"meta_info_{split}.txt").read_text() for out in ("out", "fresh")]
        assert lines[0] == lines[1] and lines[0].count("\n") == report[split]
        if lmdb_too:
            keys = []
            for out in "out", "fresh":
                with lmdb.open(str(tmp_path / f"{out}/{split}_GT.lmdb"), readonly=True) as database:
                    keys.append({bytes(key): bytes(value) for key, value in database.begin().cursor()})
            assert keys[0] == keys[1] and len(keys[0]) == report[split]


def test_finished_images_are_not_written_again(tmp_path, raw):
    run(raw, tmp_path / "out", split=1.0)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/train/GT").iterdir()}
    save(picture(20), raw / "20.png")
    run(raw, tmp_path / "out", split=1.0)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/train/GT").iterdir()}
    assert after.keys() - before.keys() == {tmp_path / "out/train/GT/20.png"} and before.items() <= after.items()


def test_the_report_follows_files_that_are_left_out(tmp_path, raw):
    assert run(raw, tmp_path / "out")["left out"] == []
    (raw / "notes.txt").write_text("x")
    assert run(raw, tmp_path / "out")["left out"] == ["notes.txt"]


def test_other_options_and_other_folders_are_refused(tmp_path, raw):
    out = tmp_path / "out"
    run(raw, out)
    before = content(out)
    assert fault(run, raw, out, 16) == (
        f"{out} was begun with size = 32x32, but now it is 16x16. Give the same options, or a new folder as out."
    )
    (tmp_path / "list.txt").write_text("1.png\n")
    assert "was begun with list of all = None, but now it is" in fault(
        run, raw, out, lists={"all": tmp_path / "list.txt"}
    )
    assert content(out) == before
    save(picture(1), tmp_path / "mine/a.png")
    assert fault(run, raw, tmp_path / "mine") == (
        f"{tmp_path}/mine is not empty, and this tool did not make it. Give a new folder as out."
    )
    assert (
        fault(run, raw, raw / "out")
        == f"{raw}/out and {raw} lie within each other. Give a folder beside source as out."
    )
    assert fault(run, raw, tmp_path).endswith("lie within each other. Give a folder beside source as out.")
    assert fault(run, raw, tmp_path / "list.txt") == f"{tmp_path}/list.txt is a file. Give a new folder as out."
    (out / "records.jsonl").write_bytes(b"no database " * 99)
    assert fault(run, raw, out) == (
        f"{out}/records.jsonl is damaged (line 1 is not one of its own). Give a new folder as out."
    )


def test_a_folder_of_another_version_is_refused(tmp_path, raw):
    out = tmp_path / "out"
    run(raw, out)
    log = (out / "records.jsonl").read_text()
    (out / "records.jsonl").write_text(log.replace('"version": "3"', '"version": "1"'))
    assert fault(run, raw, out) == (
        f"{out} was begun with version = 1, but now it is 3. Give the same options, or a new folder as out."
    )


def test_two_runs_do_not_write_at_once(tmp_path, raw):
    from glean_ext.data_preparation.record_log import RecordLog

    first = RecordLog(tmp_path / "out", {})
    assert (
        fault(RecordLog, tmp_path / "out", {}) == f"{tmp_path}/out is being written by another run. Wait for it to end."
    )
    first.close()


def test_processes_and_one_process_make_the_same(tmp_path):
    for seed in range(20):
        save(picture(seed), tmp_path / f"raw/{seed}.png")
    run(tmp_path / "raw", tmp_path / "one", lr_scale=4)
    run(tmp_path / "raw", tmp_path / "two", lr_scale=4, workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two") and len(content(tmp_path / "one")) == 40


def wait_for_images(out: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(names(out / ".staging/GT")) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A folder of 240 images, ``raw``, and what is made of it in one go, ``whole``."""
    home = tmp_path_factory.mktemp("many")
    for seed in range(240):
        save(picture(seed, 192), home / f"raw/{seed}.bmp")
    run(home / "raw", home / "whole", 96, lr_scale=8)
    return home


SLOW = pytest.mark.slow  # 10 seconds each, and each signal takes the same way through the code but SIGKILL


@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGINT, marks=SLOW), pytest.param(signal.SIGTERM, marks=SLOW), signal.SIGKILL]
)
def test_an_interrupted_run_continues(many, tmp_path, how):
    out = tmp_path / "out"
    options = "--size", "96", "--lr-scale", "8", "--workers", "2"
    process = start(many / "raw", out, *options, start_new_session=True)
    wait_for_images(out, 10)
    children = subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, text=True).stdout.split()
    if how != signal.SIGKILL:
        os.killpg(process.pid, how)  # as a terminal and batch systems do
    else:
        process.kill()
    _, errors = process.communicate(timeout=60)
    assert len(children) >= 3
    if how != signal.SIGKILL:
        assert process.returncode == 128 + how
        assert "Interrupted. The next run continues from here.\n" in errors and errors.endswith(
            "\ninterrupted\n" if how == signal.SIGINT else "\nterminated\n"
        )
        assert "Traceback" not in errors
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children):  # no process is left
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (out / "report.json").exists()
    run(many / "raw", out, 96, lr_scale=8)
    assert content(out) == content(many / "whole") and len(content(out)) == 480
    assert not (out / ".staging").exists()


def test_a_killed_worker_is_replaced(many, tmp_path):
    out = tmp_path / "out"
    process = start(many / "raw", out, "--size", "96", "--lr-scale", "8", "--workers", "2")
    wait_for_images(out, 10)
    children = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True)
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "was killed (SIGKILL)" in errors and "Traceback" not in errors
    assert content(out) == content(many / "whole")


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs Linux")
def test_an_image_that_ends_two_processes_is_rejected_and_tried_again(tmp_path, raw, monkeypatch):
    for seed in range(20, 30):
        save(picture(seed), raw / f"{seed}.png")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(KILLER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=":")
    os.rename(raw / "3.png", raw / "killer.png")
    report = run(raw, tmp_path / "out", workers=2)
    (reject,) = report["rejects"]
    assert reject["file"] == "killer.png" and reject["reason"].endswith(
        "was killed (SIGKILL) while it worked on it, for the second time."
    )
    monkeypatch.undo()
    again = run(raw, tmp_path / "out")
    assert again["rejects"] == [] and again["images"] == report["images"] == 20


def test_leftovers_of_a_killed_run_are_removed(tmp_path, raw, monkeypatch):
    """Temporary files of everything that is written, in folders and databases, and images that nobody waits for."""
    for lmdb_too in False, True:
        out = tmp_path / f"out{lmdb_too}"
        run(raw, out, lmdb=lmdb_too)
        (out / "report.json").unlink()  # what is written last
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for name in ".report.partial-0a1b2c3d.json", ".records.partial-0a1b2c3d.jsonl", ".images.partial-01234567.csv":
            (out / name).write_text("half")
        (out / ".meta_info_train.partial-01234567.txt").write_text("half")
        (out / ".contact_sheet.partial-01234567.png").write_text("half")
        (out / ".mine.json").write_text("a file of the user")
        if lmdb_too:
            (out / "train_GT.lmdb/.meta_info.partial-01234567.txt").write_text("half")
        monkeypatch.setattr(files, "_searched", set())  # as in a new process
        run(raw, out, lmdb=lmdb_too)
        after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        changed = {path for path in before | after if before.get(path) != after.get(path)}
        assert changed - {*out.glob("*/lock.mdb")} == {out / ".mine.json", out / "report.json"}
        (out / ".staging/GT").mkdir(parents=True)
        (out / ".staging/GT/0.png").write_bytes(b"half an image")
        (out / ".staging/GT/gone.png").write_bytes(b"of an image that is not in the source any more")
        save(picture(30), raw / f"more{lmdb_too}.png")
        run(raw, out, lmdb=lmdb_too)
        run(raw, tmp_path / f"fresh{lmdb_too}", lmdb=lmdb_too)
        assert content(out) == content(tmp_path / f"fresh{lmdb_too}") and not (out / ".staging").exists()
        (raw / f"more{lmdb_too}.png").unlink()


def test_a_run_that_was_killed_at_its_start_is_continued(tmp_path, raw):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.records.partial-0a1b2c3d.jsonl").write_text("half")
    assert run(raw, tmp_path / "out")["train"] == 9
    assert not list((tmp_path / "out").glob(".*"))


def test_a_log_whose_last_line_is_torn_is_continued(tmp_path, raw):
    out = tmp_path / "out"
    run(raw, out)
    before = content(out)
    whole = (out / "records.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (out / "records.jsonl").write_bytes(b"".join(lines[:6]) + lines[6][:50])
    run(raw, out)
    assert content(out) == before and (out / "records.jsonl").read_bytes() == whole
    (out / "records.jsonl").write_bytes(b"".join(lines[:3]) + b"{}\n" + lines[4])
    assert fault(run, raw, out) == (
        f"{out}/records.jsonl is damaged (line 4 is not one of its own). Give a new folder as out."
    )


def test_files_that_could_not_be_read_are_read_again(tmp_path, raw, monkeypatch):
    """A damaged file stays rejected until it changes; a file that the system did not give out is tried again."""
    (raw / "0.png").write_bytes(b"damaged")
    read = FolderSource.read

    def refuse(source: FolderSource, entry: Entry) -> bytes:
        if entry.key == "1.png":
            raise InputError("1.png cannot be read (Permission denied).")
        return read(source, entry)

    monkeypatch.setattr(FolderSource, "read", refuse)
    assert run(raw, tmp_path / "out")["rejected"] == {"unreadable": 2}
    monkeypatch.setattr(FolderSource, "read", read)
    report = run(raw, tmp_path / "out")
    assert [reject["file"] for reject in report["rejects"]] == ["0.png"]
    assert run(raw, tmp_path / "out") == report


def test_a_full_disk_stops_with_one_line_and_the_next_run_continues(tmp_path):
    """The system refuses to write beyond 60 kB of a file: what a full disk does, at the same place."""
    for seed in range(4):
        save(np.random.default_rng(seed).integers(0, 256, (160, 160, 3), dtype=np.uint8), tmp_path / f"raw/{seed}.png")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # noqa: E731
    out = tmp_path / "out"
    process = start(tmp_path / "raw", out, "--size", "160", "--workers", "1", preexec_fn=limit)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.splitlines()[-1] == (
        f"error: {out}/.staging/GT/0.png cannot be written (File too large). Free some space or correct the "
        "permissions; the next run continues from here."
    )
    assert "Traceback" not in errors
    assert run(tmp_path / "raw", out, 160)["train"] == 3


# ---------------------------------------------------------------- the tool


def tool(capsys, *arguments: object) -> tuple[int, str, str]:
    return run_main(load_tool("prepare_data").main, capsys, *arguments)


def test_tool(tmp_path, raw, capsys):
    code, printed, _ = tool(capsys, raw, tmp_path / "out", "--size", "16", "--split", "0.8", "--workers", "1")
    assert code == 0
    assert printed.startswith("8 training and 2 test images of 10 in ")
    assert "left out" not in printed
    assert printed.splitlines()[-1] == f"{tmp_path}/out: report.json, images.csv, contact_sheet.png"


def test_tool_names_what_is_left_out(tmp_path, raw, capsys):
    for name in "notes.txt", ".Trash-0/a.png", "b.svg":
        (raw / name).parent.mkdir(exist_ok=True)
        (raw / name).write_text("x")
    _, printed, _ = tool(capsys, raw, tmp_path / "out", "--size", "16", "--workers", "1")
    assert printed.splitlines()[-2] == "left out, no images or hidden: .Trash-0, b.svg, notes.txt"


def test_tool_names_files_of_which_the_first_image_is_used(tmp_path, raw, capsys):
    frames = [Image.fromarray(picture(seed)) for seed in (20, 21, 22)]
    for name in "a.gif", "b.tif":
        frames[0].save(raw / name, save_all=True, append_images=frames[1:])
    command = raw, tmp_path / "out", "--size", "32", "--workers", "1", "--duplicates", "keep"
    line = "of animations and files with several pages, only the first image is used: a.gif, b.tif\n"
    assert line in tool(capsys, *command)[1]
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["first frame only"] == [
        {"file": "a.gif", "not used": "2 more frames of the animation"},
        {"file": "b.tif", "not used": "2 more pages of the file"},
    ]
    assert line in tool(capsys, *command)[1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_notices_that_cannot_be_printed(tmp_path, raw):
    run(raw, tmp_path / "out")
    with open("/dev/full", "w") as full:
        command = [sys.executable, str(TOOL), str(raw), str(tmp_path / "out"), "--size", "32"]
        done = subprocess.run(command, stderr=full, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0 and "training and" in done.stdout, done


def test_the_limit_of_pixels(tmp_path, raw, capsys):
    save(picture(20, 40), raw / "large.png")
    command = raw, tmp_path / "out", "--size", "32", "--max-pixels"
    code, printed, _ = tool(capsys, *command, "1.1e3", "--workers", "1")
    assert code == 0 and "rejected: 1 unreadable" in printed
    (reject,) = json.loads((tmp_path / "out/report.json").read_text())["rejects"]
    assert reject["reason"] == (
        "large.png is too large: Image size (1600 pixels) exceeds limit of 1100 pixels. Crop it or scale it down. Or "
        "give a larger max_pixels."
    )
    assert "of 11 in " in tool(capsys, *command, "1600", "--workers", "1")[1]
    assert json.loads((tmp_path / "out/report.json").read_text())["rejects"] == []
    for wrong in "0", "-1":
        assert tool(capsys, *command, wrong)[2].startswith(f"error: --max-pixels is {wrong}, but it must be at least 1")
    for wrong in "inf", "nan", "1.5", "many":
        assert tool(capsys, *command, wrong)[::2][0] == 2


def test_tool_preset_and_what_is_given_beside_it(tmp_path, raw, capsys):
    (tmp_path / "list.txt").write_text("1.png (256,256,3)\n2.png (256,256,3)\n")
    arguments = "--preset", "cat", "--size", "16x16", "--list", tmp_path / "list.txt", "--workers", "1"
    assert tool(capsys, raw, tmp_path / "out", *arguments)[0] == 0
    assert names(tmp_path / "out/test/GT") == ["1.png", "2.png"]
    np.testing.assert_array_equal(read_rgb(tmp_path / "out/test/GT/1.png"), imresize(picture(1), size=(16, 16)))
    assert tool(capsys, raw, tmp_path / "cut", *arguments, "--crop", "center")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--size is needed, or a --preset."),
        (["--size", "1x2x3"], "argument --size: 1x2x3 is no size: give 256, or WIDTHxHEIGHT such as 512x384."),
        (
            ["--size", "8", "--list", "a", "--list", "b"],
            "argument --list: give one FILE, or one for each of train= and",
        ),
        (["--size", "8", "--workers", "0"], "argument --workers: give 1 or more."),
        (["--size", "8", "--list", "train=no.txt"], "no.txt: the list cannot be read (No such file or directory)."),
        (["--size", "8", "--split", "2"], "--split is 2.0, but it is the share of training images, 0 to 1."),
        (["--preset", "dogs"], "argument --preset: invalid choice: 'dogs'"),
    ],
)
def test_tool_bad_usage(tmp_path, raw, capsys, options, message):
    code, _, errors = tool(capsys, raw, tmp_path / "out", *options)
    assert code == 2 and errors.startswith(f"error: {message}") and errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_faces_are_cut_out_of_photographs(tmp_path, capsys):
    from skimage import data

    save(data.astronaut(), tmp_path / "raw/astronaut.png")
    save(data.coffee(), tmp_path / "raw/coffee.png")
    arguments = "--size", "128", "--crop", "face", "--split", "1", "--workers", "2"
    code, printed, _ = tool(capsys, tmp_path / "raw", tmp_path / "out", *arguments)
    assert code == 0 and printed.startswith("1 training and 0 test images of 2")
    from glean_ext.faces.detection import FaceFinder

    (face,) = FaceFinder().find(read_rgb(tmp_path / "out/train/GT/astronaut.png"))
    quad = face.quad  # an aligned face is aligned
    np.testing.assert_allclose(quad, [[0, 0], [0, 128], [128, 128], [128, 0]], atol=6)
