"""Several workers, on one machine or on a cluster, restore the files of one run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from glean_ext.batch.networks import RunCallbacks
from glean_ext.batch.options import RestoreOptions
from glean_ext.batch.output_plan import Job
from glean_ext.batch.workers.dispatch import Dispatcher, WorkersReport
from glean_ext.batch.workers.pool import WorkerPool


def restore_jobs(options: RestoreOptions, callbacks: RunCallbacks, jobs: Sequence[Job], root: Path) -> WorkersReport:
    """Restore files by the workers that the options ask for.

    Args:
        options: Of the run, with ``workers`` or ``cluster``.
        callbacks: What is called meanwhile; there are no tiles and frames.
        jobs: The files.
        root: The folder that all outputs are in.

    Raises:
        InputError: The cluster or the networks cannot be used, no worker is left, or the disk is full.
        RuntimeError: A fault of the program in a worker.
    """
    with closing(make_pool(replace(options, inputs=options.inputs[:1]), callbacks, root)) as pool:
        return Dispatcher(pool, jobs, options.batch, callbacks).run()


def make_pool(options: RestoreOptions, callbacks: RunCallbacks, root: Path) -> WorkerPool:
    """Processes of this machine, or actors of the cluster.

    Raises:
        InputError: As :func:`restore_jobs`.
    """
    if options.cluster is not None:
        from glean_ext.batch.workers.ray_pool import RayPool

        return RayPool(options, root, callbacks.notify)
    from glean_ext.batch.workers.local_pool import LocalPool

    for model in options.model, options.background:
        if model is not None:
            model.fetch()  # once, before all workers need it
    return LocalPool(options, root)
