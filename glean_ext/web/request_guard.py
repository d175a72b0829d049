"""Who may ask: this page, and nobody else's page in the same browser."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
SAFE = ("GET", "HEAD")


def is_loopback(host: str) -> bool:
    """Whether a host name or address reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_for(host: str) -> frozenset[str]:
    """The names under which a page that listens on ``host`` may be asked for; addresses need not be listed."""
    names = {"localhost", host.lower()}
    if not is_loopback(host):
        own = socket.gethostname().lower()
        names |= {own, f"{own.split('.')[0]}.local"}
    return frozenset(names)


class Guard:
    """Refuses requests that another page may have caused, and adds the headers that keep this one to itself.

    A page of somebody else can have its name resolve to this machine (DNS rebinding); so names that are not this
    machine's are refused. An address in the address bar cannot be rebound, and passes. What changes something must
    come from this very page: the browser's ``Origin`` says so. Programs that are no browsers send none.

    Args:
        app: What is guarded.
        names: Host names that pass.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]):
        self._app = app
        self._names = frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for key, value in HEADERS.items():
                    headers.setdefault(key, value)
            await send(message)

        status, error = self._fault(scope["method"], Headers(scope=scope))
        app = JSONResponse({"error": error}, status) if error else self._app
        await app(scope, receive, send_guarded)

    def _fault(self, method: str, headers: Headers) -> tuple[int, str]:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._knows(hosts[0]):
            return 421, "This page does not answer to that name. Open it by its address, or with --host NAME."
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2].lower() != hosts[0].lower()
        if method not in SAFE and (
            foreign or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        ):
            return 403, "Only this page itself may ask for that."
        return 200, ""

    def _knows(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self._names:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
