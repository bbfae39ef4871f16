"""``x-request-id`` on every answer, and one log line for each: what people quote when they ask for help."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger("sluicegate.requests")
_GIVEN: Final = re.compile(rb"[A-Za-z0-9._:-]{1,100}")


class RequestIds:
    """Takes the client's ``x-request-id`` if it is harmless, else makes one; says it in the answer and in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        name = given if _GIVEN.fullmatch(given) else f"req_{secrets.token_hex(12)}".encode()
        began = time.monotonic()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", name)]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            took_ms = 1e3 * (time.monotonic() - began)
            # The path without its query: signed URLs and keys stand there.
            LOG.info("%s %s %d %.1f ms %s", scope["method"], scope["path"], status, took_ms, name.decode())
