"""Training hooks."""

from __future__ import annotations

import atexit
import hashlib

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from glean_ext.checkpoints import plain_keys


class FrozenBankHook(Hook):
    """Checks that the latent bank stays bit-identical: every ``interval`` iterations and at the end.

    Args:
        interval: Iterations between checks; hashing the 30 million numbers of a 1024x1024 bank takes about 0.2 s.

    Raises:
        RuntimeError: A tensor of the bank changed; the message names it.
    """

    def __init__(self, interval: int = 1000):
        self.interval = interval
        self._digests: dict[str, str] = {}

    def before_train(self, runner: Runner) -> None:
        self._digests = bank_digests(runner.model)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if self.every_n_train_iters(runner, self.interval):
            self._check(runner, runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        self._check(runner, runner.iter)
        runner.logger.info("The latent bank is bit-identical to what training started with.")

    def _check(self, runner: Runner, iteration: int) -> None:
        changed = [k for k, v in bank_digests(runner.model).items() if v != self._digests[k]]
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise RuntimeError(
                f"The latent bank changed during training (iteration {iteration}): {', '.join(changed[:3])}{more}. "
                "Something unfroze it; the bank must stay fixed."
            )


class PlainKeysHook(Hook):
    """Keeps the wrappers of distributed training out of checkpoints.

    mmengine writes ``generator.module.encoder...`` when each network has its own wrapper, and looks for
    ``generator.encoder...`` when it reads: it would resume with nothing but a warning, from the initial weights.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint["state_dict"] = plain_keys(checkpoint["state_dict"])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if "state_dict" in checkpoint:
            self.before_save_checkpoint(runner, checkpoint)


def bank_digests(model: nn.Module) -> dict[str, str]:
    """Tensor name -> SHA-256 of its bytes, for the bank of a restorer (wrapped for distributed training or not)."""
    bank = unwrap(unwrap(model).get_submodule("generator")).get_submodule("generator")
    return {
        name: hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in bank.state_dict().items()
    }


def unwrap(model: nn.Module) -> nn.Module:
    """What a wrapper for distributed training holds; the model itself when there is no wrapper."""
    return model.get_submodule("module") if is_model_wrapper(model) else model


class ProgressBarHook(Hook):
    """A progress bar with the time left, for runs that a person watches. Shown by the first process only."""

    priority = "VERY_LOW"

    def before_train(self, runner: Runner) -> None:
        if not is_main_process():
            return
        losses = TextColumn("{task.description}")
        self._progress = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), losses
        )
        self._task = self._progress.add_task("", total=runner.max_iters, completed=runner.iter)
        atexit.register(self._progress.stop)  # a run that fails never comes to after_train
        self._progress.start()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        if is_main_process():
            losses = " ".join(f"{k.removeprefix('loss_')} {v.item():.4f}" for k, v in (outputs or {}).items())
            self._progress.update(self._task, completed=runner.iter + 1, description=losses)

    def after_train(self, runner: Runner) -> None:
        if is_main_process():
            self._progress.stop()
