"""Hooks that add to checkpoints what resuming needs, and keep wrappers out of their keys."""

from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from glean_ext.checkpoints import plain_keys
from glean_ext.engine.checkpoint_resume import images_an_iteration
from glean_ext.engine.unwrap import unwrap


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
