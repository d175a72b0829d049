"""Shards of a data set, made beside each other, and completed by a run of the whole."""

from __future__ import annotations

import pytest
from support.preparation import content, fault, names, picture, run, save, start

from glean_ext.data_preparation.options import PreparationOptions
from glean_ext.data_preparation.prepare import prepare
from glean_ext.data_preparation.record_log import RecordLog
from glean_ext.utils.shard import Shard


@pytest.fixture
def source(tmp_path):
    for number in range(12):
        save(picture(number), tmp_path / "raw" / ("deep" if number % 3 else ".") / f"{number // 2}.png")
    save(picture(3), tmp_path / "raw" / "copy.png")
    (tmp_path / "raw" / "damaged.png").write_bytes(b"no image")
    return tmp_path / "raw"


def make(source, out, number: int, count: int = 3) -> dict:
    return prepare(source, out, PreparationOptions((32, 32), split=0.5), workers=1, shard=Shard(number, count))


def test_shards_and_a_run_of_the_whole_make_what_one_run_makes(source, tmp_path):
    expected = run(source, tmp_path / "one", split=0.5)
    out = tmp_path / "out"
    made = [make(source, out, number) for number in (2, 3, 1)]
    total = sum(report["images"] for report in made)
    assert [report["now"] for report in made] == [report["images"] for report in made] and total == expected["images"]
    assert make(source, out, 1) == {"images": made[2]["images"], "now": 0}
    assert [name for name in names(out) if "records" in name] == [f"records.{n}-of-3.jsonl" for n in (1, 2, 3)]
    report = run(source, out, split=0.5)
    same = {"train", "test", "rejected", "duplicates dropped", "rejects", "duplicates"}
    assert {key: report[key] for key in same} == {key: expected[key] for key in same}
    assert content(out) == content(tmp_path / "one")
    assert [name for name in names(out) if "records" in name] == ["records.jsonl"]


def test_what_shards_have_not_made_the_whole_makes_and_shards_follow_a_changed_source(source, tmp_path):
    out = tmp_path / "out"
    make(source, out, 1)
    log = out / "records.1-of-3.jsonl"
    log.write_bytes(log.read_bytes() + b'{"key": "torn')
    run(source, out, split=0.5)
    expected = run(source, tmp_path / "one", split=0.5)
    assert content(out) == content(tmp_path / "one")
    save(picture(40), source / "new.png")
    made = [make(source, out, number) for number in (1, 2, 3)]
    assert sum(report["now"] for report in made) == 1
    report = run(source, out, split=0.5)
    assert report["images"] == expected["images"] + 1 and "new.png" in {
        *names(out / "train/GT"),
        *names(out / "test/GT"),
    }


def test_shards_write_beside_each_other_but_not_beside_the_whole(source, tmp_path):
    out = tmp_path / "out"
    first, second = RecordLog(out, {}, Shard(1, 2)), RecordLog(out, {}, Shard(2, 2))
    assert fault(RecordLog, out, {}) == f"{out} is being written by another run. Wait for it to end."
    first.close(), second.close()
    whole = RecordLog(out, {})
    assert "is being written by another run" in fault(RecordLog, out, {}, Shard(1, 2))
    whole.close()
    assert "was begun with a = None, but now it is b" in fault(RecordLog, out, {"a": "b"}, Shard(1, 2))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    assert "is not empty, and this tool did not make it" in fault(RecordLog, tmp_path / "other", {}, Shard(1, 2))


def test_the_command(source, tmp_path):
    process = start(source, tmp_path / "out", "--size", "32", "--shard", "2/2", "--workers", "1")
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    lines = stdout.splitlines()
    assert lines[0].startswith("shard 2/2: ") and lines[0].endswith(" images made, 0 were there")
    assert lines[1] == "After all shards, the same command without --shard completes the data set."
    process = start(source, tmp_path / "out", "--size", "32", "--shard", "3/2")
    assert process.communicate()[1].startswith("error: --shard is 3/2, but it must be I/N") and process.returncode == 2
