"""Workers in processes of this machine, each with a GPU of its own where there are several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from glean_ext.errors import InputError
from glean_ext.utils.processes import count_cores, quiet_processes, thread_count
from glean_ext.workers.pool import Done, Event, Lost, Ready, WorkerPool, worker_count
from glean_ext.workers.worker import Group, Worker, WorkerSpec

READY = "ready"
GRACE = 10.0  # seconds that a worker has to finish what it writes


@dataclass
class _Process:
    """A worker's process, this end of the pipe to it, and the groups that it has, by their number."""

    process: SpawnProcess
    pipe: Connection
    ready: bool = False
    groups: dict[int, Group] = field(default_factory=dict)


class LocalPool(WorkerPool):
    """Workers in processes of this machine.

    Args:
        spec: What workers are made from.
        workers: Number of processes; ``'auto'`` or None: one for each device of the spec, or for each core.
    """

    def __init__(self, spec: WorkerSpec, workers: int | str | None):
        devices = spec.devices()
        self.size = worker_count(workers, len(devices) or count_cores())
        self._devices: Sequence[str | None] = devices or (None,)
        self._spec, self.slots = spec, spec.slots
        self._threads = max(1, min(thread_count(), count_cores() // self.size))
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, _Process] = {}
        self._numbers = count()

    def start(self, worker: int) -> None:
        ours, theirs = self._context.Pipe()
        spec = self._spec.on_device(self._device(worker))
        process = self._context.Process(target=serve, args=(theirs, spec), name=f"worker {worker + 1}")
        with quiet_processes(self._threads):
            process.start()
        theirs.close()  # now a pipe ends when the process does
        self._processes[worker] = _Process(process, ours)

    def _device(self, worker: int) -> str | None:
        return self._devices[worker % len(self._devices)]

    def give(self, worker: int, group: Group) -> None:
        to, number = self._processes[worker], next(self._numbers)
        to.groups[number] = group
        with suppress(OSError):  # it is gone, which the other direction of the pipe will say
            to.pipe.send((number, group))

    def wait(self) -> Iterator[Event]:
        pipes = {item.pipe: worker for worker, item in self._processes.items()}
        for pipe in wait(pipes):
            worker = pipes[pipe]  # type: ignore[index]
            item = self._processes[worker]
            try:
                number, content = item.pipe.recv()
            except (EOFError, OSError):
                yield self._lost(worker)
                continue
            if isinstance(content, Exception):
                raise content
            if content == READY:
                item.ready = True
                yield Ready(worker, str(self._device(worker)))
            else:
                yield Done(worker, item.groups.pop(number), content)

    def _lost(self, worker: int) -> Lost:
        process = self._processes.pop(worker).process
        process.join()
        code = process.exitcode or 0
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended (exit code {code})"
        return Lost(worker, f"Worker {worker + 1} {how}")

    def close(self) -> None:
        for item in self._processes.values():
            item.pipe.close()
            if not item.ready:
                item.process.kill()  # it loads what it needs, and would not notice before that is done
        for item in self._processes.values():
            item.process.join()


def serve(pipe: Connection, spec: WorkerSpec) -> None:
    """A worker's process: takes groups from the pipe and sends their reports, until the other end is closed.

    That end also closes when the other process is killed. Then files that are being written are finished.
    """
    sending = threading.Lock()

    def send(number: int, work: Callable[[], object]) -> None:
        content: object
        try:
            content = work()
        except InputError as error:
            content = error
        except Exception:
            content = RuntimeError(f"a fault of a worker:\n{traceback.format_exc()}")
        with suppress(OSError), sending:
            pipe.send((number, content))

    workers: list[Worker] = []

    def load() -> str:
        workers.append(spec.make())
        return READY

    send(-1, load)
    threads = ThreadPoolExecutor(spec.slots, "group")
    with suppress(EOFError, OSError):
        while True:
            number, group = pipe.recv()
            threads.submit(send, number, partial(workers[0].work, group))
    threading.Timer(GRACE, os._exit, [1]).start()
    for worker in workers:
        worker.stop()
    threads.shutdown(cancel_futures=True)
    os._exit(0)
