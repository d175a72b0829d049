"""A progress bar of the training."""

from __future__ import annotations

import atexit

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from glean_ext.utils.progress import ProgressBar


class ProgressBarHook(Hook):
    """A progress bar with the time left and the losses, in the first process only.

    On a terminal it is a bar; elsewhere a line is written now and then.
    """

    priority = "VERY_LOW"

    def before_train(self, runner: Runner) -> None:
        if not is_main_process():
            return
        self._progress = ProgressBar(details=True)
        self._task = self._progress.add_task("training", total=runner.max_iters, completed=runner.iter, details="")
        atexit.register(self._progress.stop)  # a run that fails does not reach after_train
        self._progress.start()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        if is_main_process():
            losses = " ".join(f"{k.removeprefix('loss_')} {v.item():.4f}" for k, v in (outputs or {}).items())
            self._progress.update(self._task, completed=runner.iter + 1, details=losses)

    def after_train(self, runner: Runner) -> None:
        if is_main_process():
            self._progress.stop()
