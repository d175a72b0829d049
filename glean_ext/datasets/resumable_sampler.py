"""The order in which training sees its data: it depends on the seed and the position only."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sized
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler


class ResumableSampler(Sampler):
    """Endless shuffled epochs, for iteration-based training, that can continue from any position at once.

    Each item is ``(index, seed)``. A dataset that seeds its random transforms with ``seed`` gives the same batch at the
    same position however often training was interrupted, whatever the number of workers, and N processes see together
    what one process with an N times larger batch sees.

    Args:
        dataset: What is sampled.
        shuffle: Whether each epoch has another order; otherwise it is the dataset's.
        seed: Decides the order and the seeds of samples; None: a random one, the same in all processes.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None):
        self.size = len(dataset)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.rank, self.world_size = get_dist_info()
        self.start = 0  # number of samples of this process that are left out

    def __iter__(self) -> Iterator[tuple[int, int]]:
        position = self.rank + self.start * self.world_size
        while True:
            epoch, offset = divmod(position, self.size)
            generator = torch.Generator().manual_seed(self.seed + epoch)
            order = torch.randperm(self.size, generator=generator) if self.shuffle else torch.arange(self.size)
            for index in order[offset :: self.world_size].tolist():
                yield index, (self.seed + position) % 2**32
                position += self.world_size

    def __len__(self) -> int:
        return self.size


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the random generators of Python, NumPy and PyTorch (CPU) within the block, and restore them after it."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
