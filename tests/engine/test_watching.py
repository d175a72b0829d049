"""What a training shows: losses, metrics and pictures in files and in TensorBoard, and a progress bar."""

from __future__ import annotations

import io
import json
import logging
import re
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
from glean_ext.engine.runner import QuietRunner
from glean_ext.engine.terminal_log import TerminalHandler
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


class Steps:
    """A runner of three iterations with a validation of two batches."""

    max_iters, iter = 5, 1
    val_loop = test_loop = SimpleNamespace(dataloader=[0, 1])


def test_progress_bars_show_the_iteration_its_losses_and_the_batches(monkeypatch, capsys):
    monkeypatch.setattr("glean_ext.utils.progress.SECONDS_BETWEEN_LINES", 0)
    hook, runner = ProgressBarHook(), Steps()
    hook.before_train(runner)
    hook.after_train_iter(runner, 1, outputs={"loss_pix": torch.tensor(0.5), "loss_gan": torch.tensor(2.0)})
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0)
    hook.after_val_epoch(runner)
    runner.iter = 2
    hook.after_train_iter(runner, 2, outputs={"loss_pix": torch.tensor(0.25)})
    hook.after_train(runner)
    hook.before_test_epoch(runner)
    hook.after_test_iter(runner, 1)
    hook.after_test(runner)
    first, validation, second, test = capsys.readouterr().out.splitlines()
    assert first.startswith("training 2/5") and first.endswith(" pix 0.5000 gan 2.0000")
    assert validation.startswith("validation 1/2")
    assert second.startswith("training 3/5") and second.endswith(" pix 0.2500")
    assert test.startswith("test 2/2")


# ---------------------------------------------------------------- what reaches the terminal


def record(message: str, level: int = logging.INFO, path: str = "/site-packages/mmengine/runner/runner.py", *args):
    return logging.LogRecord("mmengine", level, path, 0, message, args, None)


@pytest.mark.parametrize(
    ("message", "level", "shown"),
    [
        ("Iter(val) [20/20]    PSNR: 23.1", logging.INFO, True),
        ("Iter(val) [10/20]    eta: 0:00:01", logging.INFO, False),
        ("Iter(train) [ 50/500]  lr: 1e-4", logging.INFO, False),
        ("Saving checkpoint at 250 iterations", logging.INFO, True),
        ("Distributed training is not used, all SyncBatchNorm (SyncBN) layers", logging.INFO, False),
        ("Hooks will be executed in the following order:\nbefore_run", logging.INFO, False),
        ("The prefix is not set in metric class PSNR.", logging.WARNING, False),
        ('"FileClient" will be deprecated in future. Please use', logging.WARNING, False),
        ("The model and loaded state dict do not match exactly", logging.WARNING, True),
        ("It is deprecated to fail", logging.ERROR, True),
    ],
)
def test_of_other_libraries_only_what_tells_a_user_something_is_shown(capsys, message, level, shown):
    TerminalHandler().handle(record(message, level))
    assert bool(capsys.readouterr().out) == shown


def test_what_this_package_logs_is_shown_with_the_time_and_the_level(capsys):
    handler = TerminalHandler()
    handler.handle(record("the bank is %s", logging.INFO, runners.__file__, "frozen"))
    handler.handle(record("two\nlines", logging.WARNING, runners.__file__))
    first, second, third = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d the bank is frozen", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning: two", second) and third == "lines"


def test_names_of_files_do_nothing_to_the_terminal(capsys):
    one = record("%s is bad\nand skipped", logging.WARNING, runners.__file__, "a\x1b[2J.png")
    TerminalHandler().handle(one)
    assert capsys.readouterr().out.endswith("a\\x1b[2J.png is bad\nand skipped\n")
    assert one.getMessage() == "a\x1b[2J.png is bad\nand skipped", "other handlers get it as it was"


def test_the_terminal_of_a_run_gets_printable_lines_and_its_log_all(tmp_path, capsys):
    runner = object.__new__(QuietRunner)
    runner._experiment_name, runner._log_dir, runner._timestamp = "printable", str(tmp_path), "now"
    logger = runner.build_logger()
    logger.warning("The prefix is not set in metric class PSNR.")
    logging.getLogger("glean_ext.networks").warning("b\u202egnp.exe is %s", "damaged")
    written = capsys.readouterr().out
    assert "warning: b\\u202egnp.exe is damaged" in written and "prefix" not in written
    log = (tmp_path / "now.log").read_text()
    assert "The prefix is not set" in log and "b\u202egnp.exe is damaged" in log
