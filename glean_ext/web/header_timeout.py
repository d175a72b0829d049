"""Connections that ask for something within seconds, or end."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS = 10  # seconds


class PunctualProtocol(H11Protocol):
    """Closes a connection when the headers of a request, the first or a later one, have not arrived in time.

    Uvicorn itself waits for ever: a few dozen silent connections would keep everybody else out.
    """

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._due is not None:
            self._due.cancel()

    def _await_headers(self) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = self.loop.call_later(HEADERS, self._close_if_late)

    def _close_if_late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:  # no request is being answered
            self.transport.close()
