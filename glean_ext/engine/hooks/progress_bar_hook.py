"""A progress bar of training, validation and test."""

from __future__ import annotations

import atexit
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.progress import TaskID

from glean_ext.utils.progress import ProgressBar


class ProgressBarHook(Hook):
    """A progress bar with the time left and the losses, in the first process only.

    On a terminal it is a bar; elsewhere a line is written now and then.
    """

    priority = "VERY_LOW"

    def __init__(self) -> None:
        self._progress = ProgressBar(details=True, disable=not is_main_process())
        self._tasks: dict[str, TaskID] = {}
        atexit.register(self._progress.stop)  # a run that fails does not reach the end

    def before_train(self, runner: Runner) -> None:
        self._start("training", runner.max_iters, runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        losses = " ".join(f"{k.removeprefix('loss_')} {v.item():.4f}" for k, v in (outputs or {}).items())
        self._show("training", runner.iter + 1, losses)

    def after_train(self, runner: Runner) -> None:
        self._progress.stop()

    def before_val_epoch(self, runner: Runner) -> None:
        self._start("validation", _batches(runner.val_loop))

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None) -> None:
        self._show("validation", batch_idx + 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._progress.remove_task(self._tasks.pop("validation"))

    def before_test_epoch(self, runner: Runner) -> None:
        self._start("test", _batches(runner.test_loop))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        self._show("test", batch_idx + 1)

    def after_test(self, runner: Runner) -> None:
        self._progress.stop()

    def _start(self, name: str, total: int, completed: int = 0) -> None:
        self._tasks[name] = self._progress.add_task(name, total=total, completed=completed, details="")
        self._progress.start()

    def _show(self, name: str, completed: int, details: str = "") -> None:
        self._progress.update(self._tasks[name], completed=completed, details=details)


def _batches(loop: Any) -> int:
    """Of all data sets of a validation or test; MMagic's loops have several, mmengine's one."""
    return sum(map(len, getattr(loop, "dataloaders", None) or [loop.dataloader]))
