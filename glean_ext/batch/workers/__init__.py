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
from glean_ext.batch.workers.worker import WorkerSpec


def restore_jobs(
    options: RestoreOptions, callbacks: RunCallbacks, jobs: Sequence[Job], root: Path, images: int
) -> WorkersReport:
    """Restore files by the workers that the options ask for.

    Args:
        options: Of the run, with ``workers`` or ``cluster``.
        callbacks: What is called meanwhile; there are no tiles and frames.
        jobs: The files.
        root: The folder that all outputs are in.
        images: How many images and frames that is, as far as is known.

    Raises:
        InputError: The cluster or the networks cannot be used, no worker is left, or the disk is full.
        RuntimeError: A fault of the program in a worker.
    """
    spec = WorkerSpec(replace(options, inputs=options.inputs[:1]), root, images)
    with closing(make_pool(spec, callbacks)) as pool:
        return Dispatcher(pool, jobs, options.batch, callbacks).run()


def make_pool(spec: WorkerSpec, callbacks: RunCallbacks) -> WorkerPool:
    """Processes of this machine, or actors of the cluster.

    Raises:
        InputError: As :func:`restore_jobs`.
    """
    options = spec.options
    if options.cluster is not None:
        from glean_ext.batch.workers.ray_pool import RayPool

        return RayPool(spec, callbacks.notify)
    from glean_ext.batch.workers.local_pool import LocalPool

    for model in options.model, options.background:
        if model is not None:
            model.fetch()  # once, before all workers need it
    return LocalPool(spec)
