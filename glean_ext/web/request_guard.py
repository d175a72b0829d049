"""Which requests are answered: those of this page, and not those of another page in the same browser."""

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
SAFE_METHODS = ("GET", "HEAD")


def is_loopback(host: str) -> bool:
    """Whether a host name or address reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_names(host: str) -> frozenset[str]:
    """The host names that requests may have when the page listens on ``host``; IP addresses need not be listed."""
    names = {"localhost", host.lower()}
    if not is_loopback(host):
        own = socket.gethostname().lower()
        names |= {own, f"{own.split('.')[0]}.local"}
    return frozenset(names)


class RequestGuard:
    """Refuses requests that another page may have caused, and adds the headers that protect this page.

    DNS rebinding: the name of a foreign page may resolve to this machine, so names that are not this machine's are
    refused. An IP address in the address bar cannot be rebound, and passes; Starlette's ``TrustedHostMiddleware`` knows
    no such rule. Cross-site requests: what changes something must come from this very page, as the browser's ``Origin``
    and ``Sec-Fetch-Site`` say. Programs that are no browsers send neither.

    Args:
        app: The application that is guarded.
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

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for key, value in HEADERS.items():
                    headers.setdefault(key, value)
            await send(message)

        status, error = self._check(scope["method"], Headers(scope=scope))
        app = JSONResponse({"error": error}, status) if error else self._app
        await app(scope, receive, send_with_headers)

    def _check(self, method: str, headers: Headers) -> tuple[int, str]:
        """Status and error of a refusal; 200 and no error for a request that passes."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_allowed(hosts[0]):
            return (
                421,
                "This page does not answer to that name. Open it by its IP address, or have it started for that name.",
            )
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2].lower() != hosts[0].lower()
        if method not in SAFE_METHODS and (
            foreign or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        ):
            return 403, "Only this page itself may ask for that."
        return 200, ""

    def _is_allowed(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self._names:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
