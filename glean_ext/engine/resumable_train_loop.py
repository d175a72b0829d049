"""The training loop."""

from __future__ import annotations

from itertools import chain, repeat

from mmengine.runner import IterBasedTrainLoop

from glean_ext.compat import built_val_dataloader, end_workers, infinite_iterator
from glean_ext.datasets import ResumableSampler


class ResumableTrainLoop(IterBasedTrainLoop):
    """mmengine's iteration-based loop, which resumes without reading again what the interrupted run has read.

    mmengine reads and drops one batch for each iteration that is done. Here the sampler jumps to the position, and
    the batches that mmengine drops are empty.
    """

    def run(self) -> object:
        sampler = self.dataloader.sampler
        if self.iter and isinstance(sampler, ResumableSampler):
            sampler.start = self.iter * self.dataloader.batch_size
            self.dataloader_iterator = chain(repeat(None, self.iter), infinite_iterator(self.dataloader))
        try:
            return super().run()
        finally:
            self.dataloader_iterator = chain()  # empty: the other one keeps the workers alive
            end_workers(self.dataloader)
            end_workers(built_val_dataloader(self.runner))
