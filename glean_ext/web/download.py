"""Files that are sent to a client for as long as it is there."""

from __future__ import annotations

from contextlib import suppress

from fastapi.responses import FileResponse
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send


class Download(FileResponse):
    """A file that is read as the client reads it, and no further than it does.

    Older versions of Starlette read the rest of the file for a client that has left, which takes time and keeps
    others out: uvicorn counts it as a connection.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)

        async def send_if_connected(message: Message) -> None:
            if await request.is_disconnected():
                raise ClientDisconnect
            await send(message)

        with suppress(ClientDisconnect):
            await super().__call__(scope, receive, send_if_connected)
