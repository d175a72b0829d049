"""Connections of clients that are silent or do not read are closed."""

from __future__ import annotations

import asyncio
import time

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10  # in which the headers of a request have to arrive
WRITE_SECONDS = 30  # in which a client has to read what waits for it, up to 128 KiB


class TimeoutProtocol(H11Protocol):
    """Uvicorn's protocol with the time limits that it lacks.

    - Headers: uvicorn's ``timeout_keep_alive`` begins after a response and ends with the next byte, so a client that
      sends nothing, or half a request, would keep its connection for ever.
    - Reading: a client that stops to read a response would do so, too.
    - Room: where ``limit_concurrency`` connections are open, a new one takes the place of the client that has not read
      anything for the longest time.
    """

    _header_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _stalled_since: float | None = None  # when the buffer for writing got full

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if self.limit_concurrency is not None and len(self.connections) + 1 >= self.limit_concurrency:
            self._make_room()
        super().connection_made(transport)
        self._await_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._header_timer, self._write_timer):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled_since = time.monotonic()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled_since = None
        if self._write_timer is not None:
            self._write_timer.cancel()

    def _make_room(self) -> None:
        stalled = [other for other in self.connections if getattr(other, "_stalled_since", None) is not None]
        if stalled:
            min(stalled, key=lambda other: other._stalled_since).transport.abort()  # type: ignore[union-attr]

    def _await_headers(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._close_if_late)

    def _close_if_late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:  # no request is being answered
            self.transport.close()
