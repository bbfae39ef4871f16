"""The official SDK: its clients, and what its errors mean. The one module that imports it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final

import aiohttp
import httpx2
import openai
from openai import AsyncAzureOpenAI, AsyncOpenAI, DefaultAioHttpClient

from sluicegate.adapters import wire
from sluicegate.adapters.backend_batch import RETRY_WITHIN_S, Timeouts
from sluicegate.adapters.credentials import Surface, TokenSource
from sluicegate.adapters.wire import Reply
from sluicegate.core.types import Dialect

__all__ = ["NETWORK", "Refusal", "client", "never_sent", "reply", "why"]

Refusal = openai.APIStatusError
"""The provider answered with an error."""

NETWORK: Final = (openai.APIConnectionError, httpx2.HTTPError, aiohttp.ClientError, OSError, TimeoutError)
"""No whole answer came."""


def client(
    surface: Surface, *, key: str | None, token: str | None, tokens: TokenSource | None, once: bool,
    timeouts: Timeouts, read_retries: int, now: Callable[[], float], organization: str | None, project: str | None,
    transport: httpx2.AsyncBaseTransport | None,
) -> AsyncOpenAI:  # fmt: skip
    """A client; ``once`` is for what must not be repeated, see :mod:`sluicegate.adapters.backend_batch`."""
    azure = surface.dialect is Dialect.AZURE
    read_s = max(timeouts.create_s, timeouts.stall_s) if once else timeouts.read_s
    shared: dict[str, Any] = {
        "base_url": surface.base_url,
        "default_query": dict(surface.query),
        "max_retries": 0 if once else read_retries,
        "timeout": httpx2.Timeout(read_s, connect=timeouts.connect_s),
        "http_client": _http(surface, now, once=once, transport=transport),
    }
    made: AsyncOpenAI
    if surface.dated:
        made = AsyncAzureOpenAI(
            api_version=dict(surface.query)["api-version"], api_key=key, azure_ad_token=token,
            azure_ad_token_provider=tokens, **shared,
        )  # fmt: skip
    else:
        # Azure's v1 surface takes a key as bearer, as the SDK sends it, and older gateways before it as api-key.
        headers = {"api-key": key} if azure and key else None
        made = AsyncOpenAI(api_key=tokens or token or key, default_headers=headers, **shared)
    # The SDK fills these from the environment; here they come from the settings alone.
    made.organization, made.project = (None, None) if azure else (organization, project)
    return made


def _http(
    surface: Surface, now: Callable[[], float], *, once: bool, transport: httpx2.AsyncBaseTransport | None
) -> httpx2.AsyncClient:
    origin = surface.host

    async def keep_credentials_home(request: httpx2.Request) -> None:
        if f"{request.url.scheme}://{request.url.netloc.decode('ascii')}" != origin:
            request.headers.pop("authorization", None)
            request.headers.pop("api-key", None)

    async def leave_long_waits_to_the_caller(response: httpx2.Response) -> None:
        if response.status_code >= 400:
            wait_s = wire.retry_after(response.headers, now)
            if response.status_code in (409, 429) or (wait_s is not None and wait_s > RETRY_WITHIN_S):
                response.headers["x-should-retry"] = "false"

    hooks: dict[str, list[Callable[..., Any]]] = {
        "request": [keep_credentials_home],
        "response": [leave_long_waits_to_the_caller],
    }
    limits = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=0.0 if once else 5.0)
    more: dict[str, Any] = {} if transport is None else {"transport": transport}
    return DefaultAioHttpClient(limits=limits, follow_redirects=not once, event_hooks=hooks, **more)


def reply(error: openai.APIStatusError) -> Reply:
    """What the provider answered."""
    return Reply(status=error.status_code, headers=error.response.headers, content=error.response.content)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def never_sent(error: BaseException) -> bool:
    """True if the error proves that no byte of the request left: no name, no connection, no TLS.

    aiohttp's own error decides, since the SDK's transport maps every broken connection to a connect time-out.
    """
    before = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
    causes = list(_chain(error))
    if any(isinstance(cause, aiohttp.ClientError) for cause in causes):
        return any(isinstance(cause, before) for cause in causes)
    return any(isinstance(cause, httpx2.ConnectError | httpx2.UnsupportedProtocol) for cause in causes)


def why(error: BaseException, host: str) -> str:
    """One clause about a network error, for people."""
    causes = list(_chain(error))
    for cause in causes:
        if isinstance(cause, aiohttp.ClientConnectorDNSError):
            return f"the name {host} cannot be resolved; is there a network, and is the address right?"
        if isinstance(cause, aiohttp.ClientProxyConnectionError):
            return "the proxy cannot be reached; see HTTPS_PROXY"
        if isinstance(cause, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
            return f"no secure connection to {host} ({cause}); behind a company's proxy set SSL_CERT_FILE"
        if isinstance(cause, aiohttp.ClientConnectorError):
            return f"no connection to {host} ({cause.os_error.strerror or cause.os_error})"
        if isinstance(cause, aiohttp.ConnectionTimeoutError):
            return f"no connection to {host} in time"
    if any(isinstance(cause, TimeoutError | httpx2.TimeoutException) for cause in causes) and not any(
        isinstance(cause, aiohttp.ClientConnectionError) and not isinstance(cause, TimeoutError) for cause in causes
    ):
        return f"no answer from {host} in time"
    return f"the connection to {host} broke ({type(causes[-1]).__name__})"
