"""What a training shows: losses, metrics and pictures in files and in TensorBoard, and a progress bar."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.training import make_home, small_config

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.config import load_config
from glean_ext.engine import runner as runners
from glean_ext.engine.hooks.progress_bar_hook import ProgressBarHook
from glean_ext.engine.runner import QuietRunner, _make_printable
from glean_ext.utils.image_io import read_rgb

CONFIG = small_config(
    "train_cfg = dict(max_iters=4, val_interval=2)",
    "default_hooks = dict(checkpoint=dict(interval=100), logger=dict(interval=1))",
    "_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]",
    "visualizer = dict(type='Visualizer', vis_backends=_backends)",
    model="discriminator=None, gan_loss=None",
)


pytestmark = pytest.mark.usefixtures("fast")


def test_tensorboard_has_the_scalars_and_the_comparison(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    make_home(tmp_path, CONFIG, images=3)
    cfg = load_config("config.py")
    cfg.work_dir, cfg.log_level, cfg.experiment_name = "work", "ERROR", tmp_path.name
    runners.train(cfg)

    (folder,) = Path("work").glob("*/vis_data")
    board = EventAccumulator(str(folder))
    board.Reload()
    scalars = [json.loads(line) for line in (folder / "scalars.json").read_text().splitlines()]
    for tag in "loss_pix", "generator.lr":
        expected = [line[tag] for line in scalars if tag in line]
        assert [event.step for event in board.Scalars(tag)] == [1, 2, 3, 4]
        assert [event.value for event in board.Scalars(tag)] == pytest.approx(expected)
    psnr = [line["PSNR"] for line in scalars if "PSNR" in line]
    assert [event.value for event in board.Scalars("PSNR")] == pytest.approx(psnr)
    assert [event.step for event in board.Scalars("PSNR")] == [2, 4]

    pictures = board.Images("comparison")
    assert [picture.step for picture in pictures] == [2, 4]
    files = sorted((folder / "vis_image").glob("comparison_*.png"), key=lambda path: int(path.stem.split("_")[1]))
    for picture, path in zip(pictures, files, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(picture.encoded_image_string)))
        np.testing.assert_array_equal(shown, read_rgb(path))
    # the last row is the ground truth, ten times as large
    first = shown[4 + 3 * 164 : 4 + 3 * 164 + 160 : 10, 130 : 130 + 160 : 10]
    np.testing.assert_array_equal(first, read_rgb("data/GT/0.png"))


def test_the_progress_bar_shows_the_iteration_and_its_losses(monkeypatch, capsys):
    monkeypatch.setattr("glean_ext.utils.progress.SECONDS_BETWEEN_LINES", 0)
    hook, runner = ProgressBarHook(), SimpleNamespace(max_iters=5, iter=1)
    hook.before_train(runner)
    hook.after_train_iter(runner, 1, outputs={"loss_pix": torch.tensor(0.5), "loss_gan": torch.tensor(2.0)})
    runner.iter = 2
    hook.after_train_iter(runner, 2, outputs={"loss_pix": torch.tensor(0.25)})
    hook.after_train(runner)
    first, second = capsys.readouterr().out.split("training ")[1:]
    assert first.startswith("2/5") and first.rstrip().endswith(" pix 0.5000 gan 2.0000")
    assert second.startswith("3/5") and second.rstrip().endswith(" pix 0.2500")


def test_names_of_files_do_nothing_to_the_terminal():
    record = logging.LogRecord("mmengine", logging.WARNING, "", 0, "%s is bad\nand skipped", ("a\x1b[2J.png",), None)
    assert _make_printable(record)
    assert record.getMessage() == "a\\x1b[2J.png is bad\nand skipped"


def test_the_console_of_a_run_gets_printable_lines(tmp_path, capsys):
    runner = object.__new__(QuietRunner)
    runner._experiment_name, runner._log_dir, runner._timestamp = "printable", str(tmp_path), "now"
    runner.build_logger().warning("b\u202egnp.exe is damaged")
    written = capsys.readouterr()
    assert "b\\u202egnp.exe is damaged" in written.out + written.err
