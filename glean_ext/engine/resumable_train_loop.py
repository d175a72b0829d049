"""The training loop."""

from __future__ import annotations

from itertools import chain, repeat

from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator

from glean_ext.datasets import ResumableSampler


class ResumableTrainLoop(IterBasedTrainLoop):
    """mmengine's loop, which reads again all the images that an interrupted run has seen when it resumes, without that.

    The sampler goes to the position instead; the batches that mmengine then throws away are empty.
    """

    def run(self) -> object:
        sampler = self.dataloader.sampler
        if self._iter and isinstance(sampler, ResumableSampler):
            sampler.start = self._iter * self.dataloader.batch_size
            self.dataloader_iterator = chain(repeat(None, self._iter), _InfiniteDataloaderIterator(self.dataloader))
        try:
            return super().run()
        finally:
            self._end_workers()

    def _end_workers(self) -> None:
        """Left to the garbage collection, which takes their queues first, each worker is waited for five seconds."""
        self.dataloader_iterator = chain()  # empty
        for loader in self.dataloader, getattr(self.runner._val_loop, "dataloader", None):
            if loader is not None:
                loader._iterator = None  # of persistent workers
