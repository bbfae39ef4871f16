"""What every handler is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from starlette.requests import Request

from sluicegate.service.context import Context
from sluicegate.service.desk import Desk
from sluicegate.settings import Settings
from sluicegate.web.auth import Caller, Gatekeeper
from sluicegate.web.dialects import Problem
from sluicegate.web.metrics import Metrics
from sluicegate.web.refusals import Refusals
from sluicegate.web.together import Together
from sluicegate.web.watch import Watch

JSON_BYTES_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """One gateway: the service's context, its desk, its settings, its counters."""

    ctx: Context
    desk: Desk
    settings: Settings
    gatekeeper: Gatekeeper
    metrics: Metrics
    together: Together
    watch: Watch
    refusals: Refusals = field(default_factory=Refusals)

    @property
    def configured(self) -> frozenset[str]:
        """The deployments that the settings name."""
        settings = self.settings
        return frozenset({settings.deployment} if settings.deployment else settings.gateway_models.values())

    def deployment_of(self, model: str) -> str:
        """The deployment that lines of this ``model`` go to."""
        return self.settings.deployment or self.settings.gateway_models.get(model, model)


def gateway_of(request: Request) -> Gateway:
    """The gateway that serves this request."""
    found = request.app.state.gateway
    assert isinstance(found, Gateway)
    return found


async def caller_of(request: Request, *, writes: bool | None = None) -> Caller:
    """The caller; only GET and HEAD do not write, unless ``writes`` says so."""
    changes = request.method not in ("GET", "HEAD") if writes is None else writes
    caller = await gateway_of(request).gatekeeper.caller(request, writes=changes)
    request.state.caller = caller  # for the log
    return caller


async def body_of(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces; a Problem (408) if the client stops sending for as long as the settings allow."""
    pieces = request.stream()
    idle_s = gateway_of(request).settings.gateway_body_idle
    while True:
        try:
            piece = await asyncio.wait_for(anext(pieces), idle_s)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Problem(408, "request_timeout", f"No byte of the body came for {idle_s:g} s.", retry=True) from None
        yield piece


async def json_body(request: Request) -> dict[str, Any]:
    """The body as a JSON object of bounded size, or a Problem."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported_media_type", "Send the body without Content-Encoding.")
    body = bytearray()
    async for chunk in body_of(request):
        body += chunk
        if len(body) > JSON_BYTES_MAX:
            raise Problem(413, "payload_too_large", f"The body has more than {JSON_BYTES_MAX:,} bytes.")
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Problem(400, "invalidPayload", "We could not parse the JSON body of your request.")
    return content
