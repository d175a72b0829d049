"""Hooks that keep the bank fixed, and the discriminator's augmentation in step with its overfitting."""

from __future__ import annotations

import hashlib

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from glean_ext.engine.unwrap import unwrap
from glean_ext.errors import InputError
from glean_ext.networks.augment import Augmentation


class FrozenBankHook(Hook):
    """Checks that the latent bank stays bit-identical: every ``interval`` iterations and at the end.

    A bank that the network tunes (``bank='tuned'``), or does not have, is left alone; the log says so.

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
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise RuntimeError(
                f"The latent bank changed during training (iteration {iteration}): {', '.join(changed[:3])}{more}. "
                "Something unfroze it; the bank must stay fixed."
            )


class AdaptiveAugmentationHook(Hook):
    """Lets the augmentation of the discriminator follow how much it overfits; does nothing where there is none.

    That is told by the mean sign of its logits of real images: towards 1 it knows the training images by heart. Source:
    see :mod:`glean_ext.networks.augment`. Log and checkpoints have the probability.

    Args:
        interval: Iterations between changes.

    Raises:
        InputError: There is an augmentation, but what is trained is no bank.
    """

    def __init__(self, interval: int = 4):
        self.interval = interval
        self._augmentation: Augmentation | None = None
        self._signs = torch.zeros(2)  # since the last change: their sum, and how many

    def before_run(self, runner: Runner) -> None:
        discriminator = getattr(unwrap(runner.model), "discriminator", None)
        self._augmentation = getattr(unwrap(discriminator), "augmentation", None) if discriminator is not None else None
        from mmagic.models.editors.stylegan2 import StyleGAN2

        if self._augmentation is not None and not isinstance(unwrap(runner.model), StyleGAN2):
            raise InputError("model.discriminator.augment is for the training of banks. Remove it.")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self._augmentation is not None:
            checkpoint["augmentation"] = {"p": self._augmentation.p, "signs": self._signs}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self._augmentation is not None and runner._resume and "augmentation" in checkpoint:
            self._augmentation.p = checkpoint["augmentation"]["p"]
            self._signs = checkpoint["augmentation"]["signs"].cpu()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if self._augmentation is None:
            return
        logits = runner.message_hub.get_info("disc_pred_real")  # MMagic's trainer leaves them there
        self._signs += torch.tensor([logits.detach().sign().sum().item(), len(logits)])
        if self.every_n_train_iters(runner, self.interval):
            signs = self._signs.to(logits.device)
            all_reduce(signs)
            total, images = signs.tolist()
            self._augmentation.adapt(total / images, int(images))
            self._signs.zero_()
            runner.message_hub.update_scalar("train/real_sign", total / images)
        runner.message_hub.update_scalar("train/augment_p", self._augmentation.p)


def bank_digests(model: nn.Module) -> dict[str, str]:
    """Tensor name -> SHA-256 of its bytes, for the bank of a restorer (wrapped for distributed training or not)."""
    bank = unwrap(unwrap(model).get_submodule("generator")).get_submodule("generator")
    return {
        name: hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in bank.state_dict().items()
    }
