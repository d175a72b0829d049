"""Stops a training whose losses or weights are no longer finite."""

from __future__ import annotations

import math

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from glean_ext.engine.checkpoint_resume import newest_whole_checkpoint
from glean_ext.errors import InputError


class NaNGuardHook(Hook):
    """Stops training at the first loss that is not finite, and never lets weights that are not finite be saved.

    Raises:
        InputError: It names the iteration, the losses, the files of the batch and the last good checkpoint.
    """

    priority = "VERY_HIGH"

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        if not outputs:
            return
        values = torch.stack([loss.float() for loss in outputs.values()]).tolist()  # a GPU is waited for once
        bad = {name: value for name, value in zip(outputs, values, strict=True) if not math.isfinite(value)}
        if bad:
            losses = ", ".join(f"{name} is {loss}" for name, loss in bad.items())
            self._stop(runner, f"{losses}; the batch was {', '.join(batch_files(data_batch)) or 'of unknown files'}")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        bad = [key for key, value in checkpoint["state_dict"].items() if not torch.isfinite(value).all()]
        if bad:
            self._stop(runner, f"{len(bad)} tensors are not finite, {bad[0]} for one; nothing was saved")

    def _stop(self, runner: Runner, reason: str) -> None:
        try:  # not mmengine's "last_checkpoint", which already names the one that is not saved
            last = newest_whole_checkpoint(runner.work_dir)
        except InputError:
            last = None
        where = f"The last good checkpoint is {last}" if last else "There is no checkpoint yet"
        raise InputError(
            f"training collapsed at iteration {runner.iter + 1}: {reason}. {where}. Lower the learning rates, clip "
            "gradients (optim_wrapper.generator.clip_grad), or train in fp32."
        )


def batch_files(data_batch: dict | None) -> list[str]:
    """The ground-truth files of a batch."""
    return [str(sample.metainfo.get("gt_path", "?")) for sample in (data_batch or {}).get("data_samples", ())]
