"""Workers as actors of a Ray cluster, one a GPU, or one a core where there are no GPUs."""

from __future__ import annotations

import logging
import re
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import glean_ext
from glean_ext.errors import InputError, Notice, first_line
from glean_ext.utils.optional_packages import import_optional
from glean_ext.utils.stderr_filter import filter_stderr
from glean_ext.workers.pool import AUTO, Done, Event, Lost, Ready, WorkerPool, worker_count
from glean_ext.workers.worker import Group, GroupReport, WorkerSpec

EXTRA = "pip install 'glean-ext[cluster]'"
CONNECT_SECONDS = 10  # Ray itself would try for minutes
DETECTION_SECONDS = 5  # in which Ray finds that the node of an actor that died is gone, too, if it is
SILENCE_SECONDS = 30  # the same for an actor that does not answer: Ray waits for signs of life of its node
PATIENCE = 60.0  # seconds without news after which the lack of workers is said
RAY_LINES = re.compile(rb"\[\d{4}-\d\d-\d\d ")  # of its log
CLIENT = "ray"  # scheme of addresses of Ray's client server


class RayPool(WorkerPool):
    """Workers on the nodes of a cluster.

    Args:
        spec: What workers are made from.
        workers: Number of actors; ``'auto'`` or None: one for each GPU, or each core, of the cluster.
        cluster: Its address.
        notify: Gets a notice while no node has room for a worker.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached or has nothing that is needed.
    """

    retries_failures = True

    def __init__(self, spec: WorkerSpec, workers: int | str | None, cluster: str, notify: Callable[[Notice], None]):
        self._ray = connect(cluster)
        self._spec, self._notify, self.slots = spec.for_elsewhere(), notify, spec.slots
        resources = self._ray.cluster_resources()
        self._resource = spec.resource(resources)
        self.size = worker_count(workers, int(resources.get(self._resource, 0)))
        self._actors: dict[int, Any] = {}
        self._nodes: dict[int, tuple[str, str]] = {}  # of each actor that is ready: ID, address
        self._calls: dict[Any, tuple[int, Group | None]] = {}  # None: it starts

    def start(self, worker: int) -> None:
        amount = {"num_gpus": 1} if self._resource == "GPU" else {"num_cpus": 1}
        actor = self._ray.remote(Actor).options(max_concurrency=self.slots, scheduling_strategy="SPREAD", **amount)
        self._actors[worker] = actor.remote()
        call = self._actors[worker].load.remote(glean_ext.__version__, self._spec)
        self._calls[call] = worker, None

    def give(self, worker: int, group: Group) -> None:
        there = tuple(self._spec.task_for_elsewhere(task) for task in group)
        self._calls[self._actors[worker].work.remote(there)] = worker, group

    def wait(self) -> Iterator[Event]:
        ready, _ = self._ray.wait(list(self._calls), timeout=PATIENCE)
        if ready:
            ready, _ = self._ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
        elif not self._nodes:
            self._notify(Notice("No node of the cluster has room for a worker; waiting.", level=logging.WARNING))
        for call in ready:
            if call in self._calls:  # else its worker was lost meanwhile
                yield self._event(call, *self._calls.pop(call))

    def _event(self, call: Any, worker: int, group: Group | None) -> Event:
        errors = self._ray.exceptions
        try:
            content = self._ray.get(call)
        except errors.RayTaskError as error:
            raise RuntimeError(f"a fault of a worker:\n{error}") from None
        except errors.RayError as error:
            if getattr(error, "actor_init_failed", False):
                reason = str(error).strip().splitlines()[-1].strip()
                raise InputError(
                    f"A node of the cluster cannot load glean_ext ({reason}). Install this version of it on all nodes."
                ) from error
            return self._lost(worker, error)
        if isinstance(content, InputError):
            raise content
        if group is None:
            self._nodes[worker] = content
            return Ready(worker, content[0])
        assert isinstance(content, GroupReport)
        return Done(worker, group, content)

    def _lost(self, worker: int, error: Exception) -> Lost:
        node, address = self._nodes.pop(worker, ("", ""))
        self._calls = {call: whose for call, whose in self._calls.items() if whose[0] != worker}
        self._ray.kill(self._actors.pop(worker))  # it may be out of reach only
        silent = isinstance(error, self._ray.exceptions.ActorUnavailableError)
        deadline = time.monotonic() + (SILENCE_SECONDS if silent else DETECTION_SECONDS)
        while node and self._is_alive(node) and time.monotonic() < deadline:
            time.sleep(0.2)
        if node and not self._is_alive(node):
            return Lost(worker, f"Node {address} was lost with worker {worker + 1}", by_itself=False)
        where = f" on {address}" if address else ""
        return Lost(worker, f"Worker {worker + 1}{where} ended ({type(error).__name__})")

    def _is_alive(self, node: str) -> bool:
        return any(item["NodeID"] == node and item["Alive"] for item in self._ray.nodes())

    def close(self) -> None:
        self._ray.shutdown()  # with it the actors of this process end


class Actor:
    """A worker's process on a node. Ray chooses its GPU, and its number of threads."""

    def load(self, version: str, spec: WorkerSpec) -> tuple[str, str] | InputError:
        """Make the worker; the node's ID and address."""
        import ray

        self.address = address = ray.util.get_node_ip_address()
        if version != glean_ext.__version__:
            return InputError(
                f"Node {address} has glean_ext {glean_ext.__version__}, but this is {version}. Install one version."
            )
        try:
            self.worker = spec.make()
        except InputError as error:
            return self._here(error)
        return ray.get_runtime_context().get_node_id(), address

    def work(self, group: Group) -> GroupReport | InputError:
        """As :meth:`Worker.work`; what would be raised for the user is returned."""
        try:
            return self.worker.work(group)
        except InputError as error:
            return self._here(error)

    def _here(self, error: InputError) -> InputError:
        return type(error)(f"Node {self.address}: {error.message}", error.parameter, error.hint)


def require_cluster(address: str) -> Any:
    """Ray, where it is installed and something listens at the address; Ray itself would try for minutes.

    Raises:
        InputError: It is not installed, or nothing listens, or it is no address.
    """
    ray = import_optional("ray", "{cluster}", EXTRA, "cluster")
    require_answer(address)
    return ray


def connect(address: str) -> Any:
    """Ray, connected to a cluster.

    Raises:
        InputError: It is not installed, or nothing answers there, or not to us.
    """
    ray = require_cluster(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with filter_stderr(RAY_LINES), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)  # what follows is said by the error
            _init(ray, address)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray sets its own
    return ray


def _init(ray: Any, address: str) -> None:
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise InputError(
            f"{{cluster={address}}}: no Ray cluster takes this connection ({first_line(error)}). Is one there, of "
            f"version {ray.__version__}, and is RAY_AUTH_TOKEN (with RAY_AUTH_MODE=token) its token, if it has one?",
            "cluster",
        ) from error


def require_answer(address: str) -> None:
    """Look whether something listens there.

    Raises:
        InputError: Nothing does, or it is no address.
    """
    if address == AUTO:
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        if parts.scheme not in ("", CLIENT) or not parts.hostname or not parts.port:
            raise ValueError("this is no address")
        socket.create_connection((parts.hostname, parts.port), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise InputError(
            f"{{cluster={address}}}: nothing answers there ({reason}). Give HOST:PORT as ray start --head says it, "
            "ray://HOST:10001, or auto on a machine of the cluster.",
            "cluster",
        ) from error
