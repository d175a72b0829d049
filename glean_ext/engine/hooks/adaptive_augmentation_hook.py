"""Adapts the discriminator's augmentation to its overfitting."""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from glean_ext.compat import is_resuming
from glean_ext.engine.unwrap import unwrap
from glean_ext.errors import InputError
from glean_ext.networks.augment import Augmentation


class AdaptiveAugmentationHook(Hook):
    """Adapts the discriminator's augmentation to its overfitting; does nothing where it has no augmentation.

    The measure of overfitting is the mean sign of the logits of real images: towards 1 the discriminator recognises
    its training images. Source: Karras et al., NeurIPS 2020, section 3.1. The probability of the augmentation is in
    the log (``augment_p``) and in the checkpoints.

    Args:
        interval: Iterations between changes of the probability.

    Raises:
        InputError: The discriminator has an augmentation, but the model is not StyleGAN2's trainer of banks.
    """

    def __init__(self, interval: int = 4):
        self.interval = interval
        self._augmentation: Augmentation | None = None
        self._saved_signs = torch.zeros(2)
        self._signs = torch.zeros(2)  # since the last change: the sum of the signs, and the number of images

    def before_run(self, runner: Runner) -> None:
        discriminator = getattr(unwrap(runner.model), "discriminator", None)
        self._augmentation = getattr(unwrap(discriminator), "augmentation", None) if discriminator is not None else None
        from mmagic.models.editors.stylegan2 import StyleGAN2

        if self._augmentation is not None and not isinstance(unwrap(runner.model), StyleGAN2):
            raise InputError("model.discriminator.augment is for the training of banks. Remove it.")

    def gather_state(self, runner: Runner) -> None:
        """Called in all processes before a checkpoint is saved, which only the first one does."""
        if self._augmentation is not None:
            self._saved_signs = self._of_all_processes(next(runner.model.parameters()).device).cpu()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self._augmentation is not None:
            checkpoint["augmentation"] = {"p": self._augmentation.p, "signs": self._saved_signs}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self._augmentation is not None and is_resuming(runner) and "augmentation" in checkpoint:
            self._augmentation.p = checkpoint["augmentation"]["p"]
            if is_main_process():  # they are the sum of all processes
                self._signs = checkpoint["augmentation"]["signs"].cpu()  # mmengine loads checkpoints to the GPU

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if self._augmentation is None:
            return
        logits = runner.message_hub.get_info("disc_pred_real")  # set by MMagic's trainer
        self._signs = self._signs.to(logits.device)  # where they are added up without waiting for a GPU
        self._signs[0] += logits.detach().sign().sum()
        self._signs[1] += len(logits)
        if self.every_n_train_iters(runner, self.interval):
            total, images = self._of_all_processes(logits.device).tolist()
            self._augmentation.adapt(total / images, int(images))
            self._signs.zero_()
            runner.message_hub.update_scalar("train/real_sign", total / images)
        runner.message_hub.update_scalar("train/augment_p", self._augmentation.p)

    def _of_all_processes(self, device: torch.device) -> torch.Tensor:
        signs = self._signs.to(device, copy=True)
        all_reduce(signs)
        return signs
