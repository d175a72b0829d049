"""Resumes random numbers where the interrupted run stopped."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from glean_ext.compat import is_resuming
from glean_ext.engine.checkpoint_resume import images_per_iteration
from glean_ext.engine.unwrap import unwrap

State = dict[str, Any]


class RandomStateHook(Hook):
    """Resumes random numbers where the interrupted run stopped, in every process.

    Checkpoints get the states of Python's, NumPy's and PyTorch's generators of all processes, and the seed of the
    sampler. Processes that the interrupted run did not have get seeds from its seed, the iteration and their rank. The
    restorer's ``step_counter``, which decides when the discriminator trains (``disc_steps``), follows the iteration.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._gathered: list[State] = []  # of all processes, until the checkpoint is written
        self._loaded: State | None = None

    def gather_state(self, runner: Runner) -> None:
        """Called in all processes before a checkpoint is saved, which only the first one does."""
        self._gathered = all_gather_object(generator_states())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        first, *others = self._gathered or [generator_states()]
        self._gathered = []
        checkpoint["random_states"] = {
            **first,
            "other_processes": others,
            "sampler": getattr(runner.train_dataloader.sampler, "seed", None),
            "batch": images_per_iteration(runner),
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if is_resuming(runner) and "random_states" in checkpoint:
            self._loaded = checkpoint["random_states"]
            runner.train_dataloader.sampler.seed = self._loaded["sampler"]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        # Not earlier, since building the training loop and the data loader draws random numbers.
        if self._loaded is None:
            return
        counter = getattr(unwrap(runner.model), "step_counter", None)
        if counter is not None:
            counter.fill_(runner.iter)
        states, self._loaded = self._loaded, None
        rank = get_rank()
        processes = [states, *states.get("other_processes", ())]
        if rank < len(processes):
            set_generator_states(processes[rank])
        else:
            seed_generators([states["sampler"] or 0, runner.iter, rank])


def generator_states() -> State:
    """The states of this process's generators, as plain containers and tensors."""
    name, key, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(key, np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],  # of this process's GPU
    }


def set_generator_states(states: State) -> None:
    """Set what :func:`generator_states` gave; its tensors may have been loaded to any device."""
    random.setstate(states["python"])
    name, key, *rest = states["numpy"]
    np.random.set_state((name, key.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and torch.cuda.is_available():  # earlier versions saved those of the other GPUs, too
        torch.cuda.set_rng_state(states["cuda"][0].cpu())


def seed_generators(entropy: list[int]) -> None:
    """Seed this process's generators, differently for every ``entropy``."""
    seeds = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(seeds[0]))
    np.random.seed(seeds[1])
    torch.manual_seed(int(seeds[2]))
