"""Checks that training leaves the latent bank as it was."""

from __future__ import annotations

import hashlib

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from glean_ext.engine.unwrap import unwrap
from glean_ext.utils.messages import summarize_names


class FrozenBankHook(Hook):
    """Checks that the latent bank stays bit-identical: every ``interval`` iterations and at the end.

    It does nothing, apart from a line in the log, where the network trains its bank (``bank='tuned'``) or has none.

    Args:
        interval: Iterations between checks; hashing the 30 million numbers of a 1024x1024 bank takes about 0.2 s.

    Raises:
        RuntimeError: A tensor of the bank changed; the message names it.
    """

    def __init__(self, interval: int = 1000):
        self.interval = interval
        self._digests: dict[str, str] = {}

    def before_train(self, runner: Runner) -> None:
        network = unwrap(unwrap(runner.model).get_submodule("generator"))
        self._digests = bank_digests(runner.model) if network.bank == "frozen" else {}
        if not self._digests:
            runner.logger.info("There is no frozen bank to watch: generator.bank is %r.", network.bank)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if self._digests and self.every_n_train_iters(runner, self.interval):
            self._check(runner, runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        if self._digests:
            self._check(runner, runner.iter)
            runner.logger.info("The latent bank is bit-identical to what training started with.")

    def _check(self, runner: Runner, iteration: int) -> None:
        changed = [k for k, v in bank_digests(runner.model).items() if v != self._digests[k]]
        if changed:
            raise RuntimeError(
                f"The latent bank changed during training (iteration {iteration}): {summarize_names(changed, 3)}. "
                "Something unfroze it; the bank must stay fixed."
            )


def bank_digests(model: nn.Module) -> dict[str, str]:
    """Tensor name -> SHA-256 of its bytes, for the bank of a restorer (wrapped for distributed training or not)."""
    bank = unwrap(unwrap(model).get_submodule("generator")).get_submodule("generator")
    return {
        name: hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in bank.state_dict().items()
    }
