"""The process that serves the page: a front end, which writes to the terminal."""

from __future__ import annotations

import copy
import fcntl
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from glean_ext.errors import InputError
from glean_ext.web.app import make_app
from glean_ext.web.connection_timeouts import TimeoutProtocol
from glean_ext.web.limits import Limits
from glean_ext.web.model_specs import ModelSpec
from glean_ext.web.request_guard import RequestGuard, allowed_names, is_loopback
from glean_ext.web.worker import ModelWorker

CONNECTIONS = 256  # at the same time, where as many files may be open; further requests get status 503
OTHER_FILES = 64  # that the process opens besides those of connections
FOLDER_PREFIX = "glean-web-"
TORCH_CACHE = "TORCHINDUCTOR_CACHE_DIR"  # else torch leaves a folder in the temporary one, though nothing is compiled


def serve(
    host: str, port: int, specs: Sequence[ModelSpec], device: str | None = None, limits: Limits | None = None
) -> None:
    """Serve the page until Ctrl-C, SIGTERM or SIGHUP; its files are removed then.

    Args:
        host: Address or name to listen on.
        port: 0 takes a free one.
        specs: The models to offer, the default first.
        device: As in :class:`glean_ext.inference.image_restorer.ImageRestorer`.
        limits: What is accepted and kept.

    Raises:
        InputError: An address that is not available, a model that cannot be loaded, or an unusable temporary folder.
    """
    limits = limits or Limits()
    with listen(host, port) as listener:
        end_cleanly_on_signals()
        with results_folder() as folder:
            os.environ.setdefault(TORCH_CACHE, str(folder / "torch"))
            worker = ModelWorker(specs, device, limits)
            server = make_server(make_app(worker, folder, limits, allowed_names(host)))
            if not is_loopback(host):
                write_line(
                    "warning: everyone who can reach this machine can use the page, or keep others from it: it has no "
                    "password. On the internet it belongs behind a reverse proxy.",
                    to_stderr=True,
                )
            write_line(f"Open {address(listener)} in a browser. Ctrl-C ends.")
            try:
                server.run(sockets=[listener])
            except KeyboardInterrupt:  # uvicorn raises the signal again after a clean shutdown
                write_line("ended")


def write_line(line: str, to_stderr: bool = False) -> None:
    """Write a line to the terminal; without one, as for a daemon, nothing."""
    stream = sys.stderr if to_stderr else sys.stdout
    if stream is not None:
        print(line, file=stream, flush=True)


def make_server(app: RequestGuard) -> uvicorn.Server:
    """A server that logs warnings and errors only, its own and the page's, on stderr."""
    logging_config = copy.deepcopy(LOGGING_CONFIG)
    logging_config["loggers"]["glean_ext.web"] = {"handlers": ["default"], "level": "WARNING", "propagate": False}
    config = uvicorn.Config(
        app,
        http=TimeoutProtocol,
        log_config=logging_config,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=max_connections(),
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)


def max_connections() -> int:
    """How many connections fit into the number of open files that this process may have: each needs up to two."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if files == resource.RLIM_INFINITY else max(2, min(CONNECTIONS, (files - OTHER_FILES) // 2))


@contextmanager
def results_folder() -> Iterator[Path]:
    """A temporary folder for results; those that killed servers left behind are removed.

    Raises:
        InputError: No temporary folder can be written to.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(
            f"The temporary folder cannot be written to ({error.strerror or error}). Set TMPDIR to another one."
        ) from error
    with folder as name:
        path = Path(name)
        _remove_leftovers(path.parent)
        with _locked(path / "lock"):
            yield path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file for as long as this process lives; it appears when it is locked already."""
    try:
        with path.with_suffix(".new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            Path(lock.name).rename(path)
            yield
    except OSError as error:
        raise InputError(
            f"{path.parent} cannot be written to ({error.strerror or error}). Set TMPDIR to another folder."
        ) from error


def _remove_leftovers(parent: Path) -> None:
    """Remove folders of this user's servers that do not run any more: nobody holds their locks."""
    for folder in parent.glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / "lock").open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its server runs
                shutil.rmtree(folder, ignore_errors=True)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on the first address of ``host`` that can be used, since IPv6 may be off.

    Raises:
        InputError: This machine has no such address, or the port is taken.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"{{port}} {port}: ports go from 0 to 65535.", parameter="port", hint="Give another {port}.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, where in found[:-1]:
            with suppress(OSError):
                return socket.create_server(where, family=family, backlog=128)
        return socket.create_server(found[-1][4], family=found[-1][0], backlog=128)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0  # positive ones are the system's
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise InputError(
            f"{host}:{port} cannot be listened on ({reason}).",
            parameter=("port", "host"),
            hint="Give another {port}, or {host=127.0.0.1}.",
        ) from error


def address(listener: socket.socket) -> str:
    """What to type into a browser on this machine.

    >>> with socket.create_server(("127.0.0.1", 0)) as listener:
    ...     address(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    True
    """
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def end_cleanly_on_signals() -> None:
    """SIGTERM ends the process cleanly, also before uvicorn handles it, and SIGHUP does what SIGTERM does."""
    signal.signal(signal.SIGTERM, _exit)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))


def _exit(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
