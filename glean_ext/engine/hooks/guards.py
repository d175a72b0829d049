"""Hooks that keep a training right: the bank, checkpoints, random numbers, collapse, damaged files."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from glean_ext.engine.checkpoint_resume import newest_whole_checkpoint
from glean_ext.errors import InputError


class NaNGuardHook(Hook):
    """Stops training at the first loss that is not finite, and keeps weights that are not out of checkpoints.

    Raises:
        InputError: It names the iteration, the losses, the files of the batch and the last good checkpoint.
    """

    priority = "VERY_HIGH"

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        bad = {name: loss.item() for name, loss in (outputs or {}).items() if not torch.isfinite(loss)}
        if bad:
            losses = ", ".join(f"{name} is {loss}" for name, loss in bad.items())
            self._stop(runner, f"{losses}; the batch was {', '.join(batch_files(data_batch)) or 'of unknown files'}")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        bad = [key for key, value in checkpoint["state_dict"].items() if not torch.isfinite(value).all()]
        if bad:
            self._stop(runner, f"{len(bad)} tensors are not finite, {bad[0]} for one; nothing was saved")

    def _stop(self, runner: Runner, what: str) -> None:
        try:  # mmengine's note of the last one names that which is not saved
            last = newest_whole_checkpoint(runner.work_dir)
        except InputError:
            last = None
        where = f"The last good checkpoint is {last}" if last else "There is no checkpoint yet"
        raise InputError(
            f"training collapsed at iteration {runner.iter + 1}: {what}. {where}. Lower the learning rates, clip "
            "gradients (optim_wrapper.generator.clip_grad), or train in fp32."
        )


class SkippedFilesHook(Hook):
    """Counts the damaged files that ``SRFolderDataset(unreadable='skip')`` replaced; warns of each once."""

    def before_train(self, runner: Runner) -> None:
        self.files: set[str] = set()
        self.times = 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: object = None
    ) -> None:
        for sample in (data_batch or {}).get("data_samples", ()):
            for path in sample.metainfo.get("skipped", ()):
                self.times += 1
                if path not in self.files:
                    self.files.add(path)
                    runner.logger.warning(f"{path} is damaged and was skipped.")

    def after_train(self, runner: Runner) -> None:
        if self.files:
            runner.logger.warning(f"{len(self.files)} damaged files were skipped, {self.times} times in all.")


def batch_files(data_batch: dict | None) -> list[str]:
    """The ground-truth files of a batch."""
    return [str(sample.metainfo.get("gt_path", "?")) for sample in (data_batch or {}).get("data_samples", ())]
