"""Many files through a network: while it works on some, the next are read and the last are written.

Everything waits for the network, which runs in the caller's thread; other threads read ahead and write behind, a
bounded number of files.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from glean_ext.errors import InputError
from glean_ext.utils.outcome import Outcome, Report

JobT = TypeVar("JobT")
GivenT = TypeVar("GivenT", contravariant=True)  # a job, where it is only taken
PreparedT = TypeVar("PreparedT")
ResultT = TypeVar("ResultT")

READERS, WRITERS = 2, 2
HELD = 512 * 2**20  # bytes of results that may wait to be written
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # after these no other file can be written either


class EndsRun(InputError):
    """What no other file of a run would escape either."""


class Stages(Protocol[GivenT, PreparedT, ResultT]):
    """What is done with each file. An InputError is that file's failure; EndsRun and any other exception stop all.

    ``str(job)`` is what messages call it.
    """

    def prepare(self, job: GivenT) -> PreparedT:
        """Read; in one of several threads."""

    def restore(self, batch: Sequence[PreparedT]) -> list[Outcome[ResultT]]:
        """Run the network; in the caller's thread."""

    def finish(self, prepared: PreparedT, result: ResultT) -> None:
        """Write; in one of several threads."""

    def size(self, prepared: PreparedT, result: ResultT) -> int:
        """Bytes that are held until they are written."""


def run(
    jobs: Sequence[JobT],
    stages: Stages[JobT, PreparedT, ResultT],
    batch: int = 1,
    on_done: Callable[[JobT], None] = lambda job: None,
    report: Report[JobT] | None = None,
) -> Report[JobT]:
    """Do all jobs, up to ``batch`` of them at once in the network; one that fails does not stop the others.

    Args:
        jobs: Hashable.
        on_done: Is called after each, whether it failed or not.
        report: Is filled in, and returned; None makes one.

    Raises:
        EndsRun: The disk is full, or a stage raised it.
        RuntimeError: A fault of the program while a file was read or written; it is the cause.
        KeyboardInterrupt: Files that are being written are finished first, so none is partial.
    """
    report = Report() if report is None else report
    started = time.monotonic()
    reading, writing = ThreadPoolExecutor(READERS, "read"), ThreadPoolExecutor(WRITERS, "write")
    try:
        writes: _Writes[JobT] = _Writes(report, on_done)
        for group in _read_ahead(jobs, stages, reading, batch):
            ready = []
            for job, future in group:
                try:
                    ready.append((job, future.result()))
                except EndsRun:
                    raise
                except InputError as error:
                    writes.fail(job, error)
                except Exception as error:
                    raise _fault(job, error) from error
            results = stages.restore([prepared for _, prepared in ready]) if ready else []
            for (job, prepared), outcome in zip(ready, results, strict=True):
                if outcome.error is not None:
                    writes.fail(job, outcome.error)
                    continue
                result = outcome.unwrap()
                size = stages.size(prepared, result)
                writes.settle(HELD - size)
                writes.add(job, writing.submit(stages.finish, prepared, result), size)
        writes.settle(0, 0)
    finally:
        for pool in reading, writing:
            pool.shutdown(cancel_futures=True)
        report.seconds = time.monotonic() - started
    return report


def _read_ahead(
    jobs: Sequence[JobT], stages: Stages[JobT, PreparedT, Any], pool: ThreadPoolExecutor, batch: int
) -> Iterator[list[tuple[JobT, Future[PreparedT]]]]:
    """Groups of up to ``batch`` jobs, being read; as many as the readers and the next group need are read ahead."""
    waiting: deque[tuple[JobT, Future[PreparedT]]] = deque()
    left = iter(jobs)

    def fill() -> None:
        for job in islice(left, batch + READERS - len(waiting)):
            waiting.append((job, pool.submit(stages.prepare, job)))

    fill()
    while waiting:
        group = [waiting.popleft() for _ in range(min(batch, len(waiting)))]
        fill()
        yield group


class _Writes(Generic[JobT]):
    """Files that are being written, oldest first."""

    def __init__(self, report: Report[JobT], on_done: Callable[[JobT], None]):
        self.report, self.on_done = report, on_done
        self.pending: deque[tuple[JobT, Future[None], int]] = deque()

    def add(self, job: JobT, future: Future[None], size: int) -> None:
        self.pending.append((job, future, size))

    def settle(self, held: int, most: int = 2 * WRITERS) -> None:
        """Wait until at most ``most`` files of at most ``held`` bytes are pending; take what is ready anyway."""
        while self.pending:
            job, future, _ = self.pending[0]
            full = len(self.pending) > most or sum(size for _, _, size in self.pending) > held
            if not full and not future.done():
                return
            self.pending.popleft()
            try:
                future.result()
            except EndsRun:
                raise
            except InputError as error:
                if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_SPACE:
                    raise EndsRun(error.message, error.parameter, error.hint) from error
                self.fail(job, error)
            except Exception as error:
                raise _fault(job, error) from error
            else:
                self.report.done += 1
                self.on_done(job)

    def fail(self, job: JobT, error: InputError) -> None:
        self.report.failures[job] = error
        self.on_done(job)


def _fault(job: object, error: Exception) -> RuntimeError:
    return RuntimeError(f"{job}: an unexpected {type(error).__name__}: {error}")
