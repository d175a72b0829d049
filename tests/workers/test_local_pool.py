"""Workers in processes of this machine: which device each gets. tests/batch/test_workers.py runs real ones."""

from __future__ import annotations

import multiprocessing
from types import SimpleNamespace
from unittest.mock import Mock

from glean_ext.workers.local_pool import LocalPool
from glean_ext.workers.worker import Worker, WorkerSpec


class TwoGPUs(WorkerSpec):
    def __init__(self, device: str | None = None):
        self.device = device

    def devices(self) -> tuple[str, ...]:
        return "cuda:0", "cuda:1"

    def on_device(self, device: str | None) -> WorkerSpec:
        return TwoGPUs(device)

    def make(self) -> Worker:
        raise AssertionError("no process starts here")

    def for_elsewhere(self) -> WorkerSpec:
        return self


def test_workers_share_the_gpus_evenly_and_keep_theirs():
    assert LocalPool(TwoGPUs(), None).size == LocalPool(TwoGPUs(), "auto").size == 2
    pool, process = LocalPool(TwoGPUs(), 3), Mock()
    pool._context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=process)
    for worker in 0, 1, 2, 1:  # the last one takes the place of one that was lost
        pool.start(worker)
    devices = [call.kwargs["args"][1].device for call in process.call_args_list]
    assert devices == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    pool.close()
