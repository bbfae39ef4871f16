"""``x-request-id`` on every answer, one log line and one count for each: what people quote when they ask for help.

Defects end here too, so that their answers are like all others.
"""

from __future__ import annotations

import logging
import random
import re
import time
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sluicegate.web.dialects import Problem, envelope, prefix_of
from sluicegate.web.logs import FIELDS
from sluicegate.web.metrics import Metrics

LOG = logging.getLogger("sluicegate.requests")
DEFECTS = logging.getLogger("sluicegate.gateway")
_GIVEN: Final = re.compile(rb"[A-Za-z0-9._:-]{1,100}")
_TRACE: Final = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, version 00; anything else is ignored."""

UNROUTED: Final = "none"
"""The route of paths that there are not; methods that HTTP does not have count as OTHER."""

NEVER: Final = 499
"""What is counted and logged where no answer began: the client was gone."""

SAFE: Final = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
"""On every answer: nothing is taken for a page that is none, nothing stays in a cache on the way."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Access:
    """Takes the client's ``x-request-id`` if it is harmless, else makes one; says it in the answer and in the log."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        name = given if _GIVEN.fullmatch(given) else f"req_{random.getrandbits(96):024x}".encode()
        trace = _TRACE.fullmatch(headers.get(b"traceparent", b""))
        began = time.monotonic()
        status = received = sent = 0

        async def take() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def answer(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", name), *SAFE]
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, take, answer)
        except Exception as error:  # noqa: BLE001 - the edge of a request: logged, answered, counted
            DEFECTS.error(
                "%s %s failed", scope["method"], _template(scope), exc_info=error,
                extra={FIELDS: {"request": name.decode()}},
            )  # fmt: skip
            if not status:  # else the server ends the connection, which tells the client that the answer is not whole
                problem = Problem(500, "server_error", "The gateway had an error; it is logged.")
                await envelope(Request(scope), problem)(scope, receive, answer)
        finally:
            status = status or NEVER
            seconds = time.monotonic() - began
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            route = _template(scope)
            self._metrics.answered(method=method, route=route, status=status, seconds=seconds, received=received)
            caller = scope.get("state", {}).get("caller")
            LOG.info(
                "%s %s %d", method, route, status,
                extra={FIELDS: {
                    "request": name.decode(), "trace": trace[1].decode() if trace else None,
                    "key": getattr(caller, "key", None), "tenant": getattr(caller, "tenant", None),
                    "client": (scope.get("client") or (None,))[0],
                    "batch": scope.get("state", {}).get("batch"), "ms": round(1e3 * seconds, 1), "received": received,
                    "sent": sent,
                }},
            )  # fmt: skip


def _template(scope: Scope) -> str:
    """The template of a request's path with its family's prefix, ``/v1/batches/{id}``: never what a client chose."""
    path: str | None = getattr(scope.get("route"), "path", None)
    if path is None:
        return UNROUTED
    prefix = prefix_of(str(scope["path"]))
    return path if prefix is None or path.startswith(prefix) else prefix + path
