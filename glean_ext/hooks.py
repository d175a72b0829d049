"""Hooks that keep a training right: the bank, checkpoints, random numbers, collapse, damaged files."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from glean_ext.checkpoints import plain_keys
from glean_ext.errors import InputError
from glean_ext.networks.augmentation import Augmentation
from glean_ext.resume import images_an_iteration, newest_whole_checkpoint


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


class PlainKeysHook(Hook):
    """Keeps the wrappers of distributed training out of checkpoints.

    mmengine writes ``generator.module.encoder...`` when each network has its own wrapper, and looks for
    ``generator.encoder...`` when it reads: it would resume with nothing but a warning, from the initial weights.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # The model's own keys: an average of weights has a "module" too, which is no wrapper.
        parts = unwrap(runner.model).named_children()
        own = plain_keys({key: key for name, part in parts for key in _keys(name, unwrap(part))})
        state = checkpoint["state_dict"]
        renamed = plain_keys({key: key for key in state})
        checkpoint["state_dict"] = {own.get(plain, plain): state[key] for plain, key in renamed.items()}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if "state_dict" in checkpoint:
            self.before_save_checkpoint(runner, checkpoint)


def _keys(name: str, part: nn.Module) -> list[str]:
    return [f"{name}.{key}" for key in part.state_dict()]


class RandomStateHook(Hook):
    """Makes a resumed run go on with the random numbers of the interrupted one.

    Checkpoints get the states of Python's, NumPy's and PyTorch's generators and the seed of the sampler. The restorer's
    ``step_counter``, which decides when the discriminator trains (``disc_steps``), follows the iteration.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._loaded: dict | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        name, key, position, has_gauss, gauss = np.random.get_state()
        checkpoint["random_states"] = {
            "python": random.getstate(),
            "numpy": (name, torch.from_numpy(np.asarray(key, np.int64)), position, has_gauss, gauss),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "sampler": getattr(runner.train_dataloader.sampler, "seed", None),
            "batch": images_an_iteration(runner),
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume and "random_states" in checkpoint:
            self._loaded = checkpoint["random_states"]
            runner.train_dataloader.sampler.seed = self._loaded["sampler"]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        # Not earlier: building the loop and the data draws numbers too. The other processes have seeds of their own.
        if self._loaded is None:
            return
        counter = getattr(unwrap(runner.model), "step_counter", None)
        if counter is not None:
            counter.fill_(runner.iter)
        states, self._loaded = self._loaded, None
        if not is_main_process():
            return
        random.setstate(states["python"])
        name, key, *rest = states["numpy"]
        np.random.set_state((name, key.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(states["torch"].cpu())
        for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state.cpu(), device)


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


class AdaptiveAugmentationHook(Hook):
    """Lets the augmentation of the discriminator follow how much it overfits; does nothing where there is none.

    That is told by the mean sign of its logits of real images: towards 1 it knows the training images by heart. Source:
    see :mod:`glean_ext.networks.augmentation`. Log and checkpoints have the probability.

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


def batch_files(data_batch: dict | None) -> list[str]:
    """The ground-truth files of a batch."""
    return [str(sample.metainfo.get("gt_path", "?")) for sample in (data_batch or {}).get("data_samples", ())]


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
