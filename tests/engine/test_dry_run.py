"""``tools/train.py --dry-run``: what a long job needs, on the smallest scale."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from support.training import small_config

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.config import load_config
from glean_ext.engine.dry_run import ImageCount, dry_run
from glean_ext.errors import InputError

CONFIG = small_config()


pytestmark = pytest.mark.usefixtures("fast")


def config(*options: str):
    cfg = load_config("config.py", options)
    cfg.work_dir = "work"
    return cfg


def test_dry_run_reports_what_the_training_takes_and_leaves_nothing(home, capsys):
    report = dry_run(config())
    rows = dict(report.rows())
    said = " ".join(" ".join(row) for row in rows.items())
    assert report.images == {"training": ImageCount(5, 5), "validation": ImageCount(5, 5)}
    assert rows["parameters"] == f"{report.parameters:,}, {report.trained_parameters:,} of them trained"
    assert report.batch == ((2, 3, 8, 8), (2, 3, 16, 16)) and report.steps == 300_000
    assert f", {report.step_seconds * 300_000 / 3600:.1f} h for 300,000 of them" in rows["a step"]
    assert "dry run" not in capsys.readouterr().out
    for fact in "5, 5 of them read", "bank.pth", "(2, 3, 8, 8) -> (2, 3, 16, 16)", "for 300,000 of them", "MB, ":
        assert fact in said, fact
    assert not Path("work").exists() and not list(home.glob("*dirs*"))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda: Path("bank.pth").unlink(), "bank.pth: there is no such file"),
        (lambda: Path("data/GT/3.png").write_bytes(b""), r"data/GT/3.png is empty"),
        (lambda: Image.new("RGB", (32, 32)).save("data/GT/4.png"), "The network makes images|gives a low-resolution"),
    ],
)
def test_dry_run_finds_what_would_stop_the_job(home, break_it, message):
    break_it()
    with pytest.raises(InputError, match=message):
        dry_run(config("train_dataloader.batch_size=4"))


def test_dry_run_skips_what_training_skips(home):
    Path("data/GT/3.png").write_bytes(b"")
    skip = "train_dataloader.dataset.unreadable=skip"
    with pytest.raises(InputError, match=r"data/GT/3.png is empty"):
        dry_run(config(skip))  # the validation stops there
    rows = dict(dry_run(config(skip, "val_dataloader=None", "val_cfg=None", "val_evaluator=None")).rows())
    assert rows["training images"] == "5, 5 of them read, 1 of these are damaged and skipped"


def test_dry_run_names_a_folder_for_temporary_files_that_is_missing(home, monkeypatch):
    cfg = config()
    monkeypatch.setattr("tempfile.tempdir", "nowhere")
    with pytest.raises(InputError, match=r"^nowhere, the folder for temporary files, cannot be written to"):
        dry_run(cfg)


def test_dry_run_finds_a_disk_too_small_for_the_checkpoints(home, monkeypatch):
    """Three are kept, and one is being written, the best one, and its successor."""
    usage = shutil.disk_usage(home)
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage._replace(free=1_000_000))
    with pytest.raises(
        InputError, match=r"has 0.0 GB left, but 6 checkpoints of 0\.0\d GB are kept there. Choose another"
    ):
        dry_run(config())
