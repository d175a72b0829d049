"""Tasks done by several workers, which are processes of this machine or of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable

from glean_ext.errors import Notice
from glean_ext.workers.pool import AUTO, WorkerPool
from glean_ext.workers.worker import WorkerSpec


def make_pool(
    spec: WorkerSpec, workers: int | str | None, cluster: str | None, notify: Callable[[Notice], None]
) -> WorkerPool:
    """Workers on a cluster, or of this machine.

    Args:
        spec: What they are made from.
        workers: Their number; ``'auto'`` or None: one for each GPU, where GPUs are used, else one for each core.
        cluster: Address of a Ray cluster; None: they run on this machine.
        notify: Gets a notice while no node of a cluster has room for a worker.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached or has nothing that is needed.
    """
    if cluster is not None:
        from glean_ext.workers.ray_pool import RayPool

        return RayPool(spec, workers, cluster, notify)
    from glean_ext.workers.local_pool import LocalPool

    return LocalPool(spec, workers)


__all__ = ["AUTO", "WorkerPool", "WorkerSpec", "make_pool"]
