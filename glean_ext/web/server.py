"""The process that serves the page."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from glean_ext.errors import InputError
from glean_ext.web.app import make_app
from glean_ext.web.header_timeout import PunctualProtocol
from glean_ext.web.limits import Limits
from glean_ext.web.model_specs import ModelSpec
from glean_ext.web.request_guard import Guard, is_loopback, names_for
from glean_ext.web.worker import ModelWorker

CONNECTIONS = 50  # at the same time; more get 503


def serve(
    host: str, port: int, specs: Sequence[ModelSpec], device: str | None = None, limits: Limits | None = None
) -> None:
    """Serve the page until Ctrl-C or SIGTERM; its files are gone afterwards.

    Args:
        host: Address or name to listen on.
        port: 0 takes a free one.
        specs: The models to offer, the default first.
        device: As in :class:`glean_ext.inference.image_restorer.ImageRestorer`.
        limits: What is taken and kept.

    Raises:
        InputError: An address that cannot be had, or a model that cannot be loaded.
    """
    limits = limits or Limits()
    with listen(host, port) as listener:
        signal.signal(signal.SIGTERM, _leave)  # to unwind; uvicorn handles the first one itself, and passes it on
        bench = ModelWorker(specs, device, limits)
        with tempfile.TemporaryDirectory(prefix="glean-web-", ignore_cleanup_errors=True) as folder:
            server = make_server(make_app(bench, Path(folder), limits, names_for(host)))
            if not is_loopback(host):
                print(
                    "warning: everyone who can reach this machine can use the page, or keep others from it: it has no "
                    "password. On the internet it belongs behind a reverse proxy.",
                    file=sys.stderr,
                )
            print(f"Open {address(listener)} in a browser. Ctrl-C ends.", flush=True)
            try:
                server.run(sockets=[listener])
            except KeyboardInterrupt:  # passed on after a clean shutdown
                print("ended")


def make_server(app: Guard) -> uvicorn.Server:
    """A server that says nothing of its own accord."""
    config = uvicorn.Config(
        app,
        http=PunctualProtocol,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: There is no such address here, or the port is taken.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: ports go from 0 to 65535. Give another one.")
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(where[:2], family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0  # positive ones are the system's
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise InputError(
            f"{host}:{port} cannot be listened on ({reason}). Give another --port, or --host 127.0.0.1."
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


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
