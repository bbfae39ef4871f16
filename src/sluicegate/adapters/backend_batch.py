"""The Backend port over the official ``openai`` SDK: OpenAI, Azure's api-version surface, and Azure's ``/openai/v1``.

The SDK brings addresses, sign-in, multipart and repeated reads; what comes off the wire is read here, from the raw
replies (:mod:`sluicegate.adapters.wire`), so that a shape nobody has documented never ends in a validation error.

Writes go once (D4). They have a client of their own that keeps no idle connection: one that the provider has just
closed would make the outcome of a create unknown for nothing. Whether anything was sent at all is told by aiohttp's
error: what fails before a connection stands cannot have happened.
"""

from __future__ import annotations

import asyncio
import io
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai
from openai import AsyncAzureOpenAI, AsyncOpenAI, DefaultAioHttpClient, omit

from sluicegate.adapters import wire
from sluicegate.adapters.azure_account import MANAGEMENT_URL, AzureAccount
from sluicegate.adapters.credentials import (
    COGNITIVE_SCOPE,
    Credential,
    Scrubber,
    Surface,
    TokenSource,
    default_credential,
    header_safe,
    surface_of,
)
from sluicegate.adapters.wire import Call, Kind, Reply
from sluicegate.core.types import Accepted, BatchPage, Dialect, ProviderBatch, RemoteFile
from sluicegate.errors import CallRefused, NotFound, OutcomeUnknown, SluicegateError, Unavailable, UsageError

READ_RETRIES: Final = 2
DOWNLOAD_CHUNK_BYTES: Final = 256 * 1024
FILE_PAGES_MAX: Final = 1_000
OPENAI_FILES_PER_PAGE: Final = 1_000
RETRY_WITHIN_S: Final = 2.0
"""The SDK repeats a read by itself only if the provider asks for no longer wait than this; else the caller plans it."""

FILE_EXPIRY_S: Final = {Dialect.OPENAI: (3_600, 2_592_000), Dialect.AZURE: (1_209_600, 2_592_000)}
"""Least and most ``expires_after.seconds`` (OpenAI: 1 hour to 30 days; Azure: 14 to 30 days; their specs of 2025)."""

_NETWORK: Final = (openai.APIConnectionError, httpx2.HTTPError, aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait, seconds.

    Attributes:
        connect_s: For a connection.
        read_s: For the next bytes of a reply to a read.
        create_s: For the whole reply to a create: regions that fail fast count the file meanwhile.
        stall_s: For the next piece of an upload to be taken, and for the reply after the last one.
    """

    connect_s: float = 15.0
    read_s: float = 60.0
    create_s: float = 300.0
    stall_s: float = 300.0


class _Raw(Protocol):
    """The part of the SDK's raw response that is used."""

    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> httpx2.Headers: ...

    @property
    def content(self) -> bytes: ...


class BatchBackend:
    """The Backend port. Made by :func:`connect`.

    Args:
        reads: The SDK's client for what may be repeated.
        writes: The SDK's client for what goes once; it keeps no idle connections.
        surface: Where the provider is.
        scrub: Cleans messages.
        now: Unix seconds.
        timeouts: How long to wait.
        read_retries: How often the SDK repeats a failed read.
        tokens: The Entra sign-in, if one is used.
        account: Azure's management API, if it may be asked.
    """

    def __init__(
        self, *, reads: AsyncOpenAI, writes: AsyncOpenAI, surface: Surface, scrub: Scrubber, now: Callable[[], float],
        timeouts: Timeouts, read_retries: int = READ_RETRIES, tokens: TokenSource | None = None,
        account: AzureAccount | None = None,
    ) -> None:  # fmt: skip
        self._reads = reads
        self._writes = writes
        self._surface = surface
        self._scrub = scrub
        self._now = now
        self._timeouts = timeouts
        self._read_total_s = (timeouts.connect_s + timeouts.read_s + 4 * RETRY_WITHIN_S) * (read_retries + 1)
        self._tokens = tokens
        self._renewed_for: set[Kind] = set()
        self._account = account

    @property
    def resource(self) -> str:
        """The same for both of Azure's surfaces; OpenAI's carries organisation and project, if they are set."""
        return self._surface.resource

    @property
    def dialect(self) -> Dialect:
        """From the address, or as told."""
        return self._surface.dialect

    @property
    def limit_unknown_because(self) -> str | None:
        """Why :meth:`deployment_limit` last gave None, a sentence; None if it gave a number."""
        return self._account.reason if self._account else "only Azure's management API tells a deployment's limit"

    async def upload(self, source: Path, *, filename: str, expires_after_s: int | None = None) -> RemoteFile:
        """Stream ``source`` from disk, 64 KiB at a time; an expiry is brought within what the provider allows."""
        call = self._call(Kind.UPLOAD, f"upload {filename}", "POST /files")
        extra: dict[str, object] | None = None
        if expires_after_s is not None:
            least, most = FILE_EXPIRY_S[self.dialect]
            # The SDK writes expires_after[anchor] and expires_after[seconds], as in both providers' Python samples.
            extra = {"expires_after": {"anchor": "created_at", "seconds": min(max(expires_after_s, least), most)}}
        with _Watched(source, self._timeouts.stall_s) as file:
            opened: Any = file  # the SDK hands on any open binary file, its type says BufferedReader
            reply = await self._send(
                call,
                lambda: self._writes.files.with_raw_response.create(
                    file=(filename, opened), purpose="batch", extra_body=extra
                ),
                file.deadline,
            )
        uploaded = wire.file(wire.decode(reply.content))
        if uploaded is None:
            raise OutcomeUnknown(f"cannot {call.what}: HTTP {reply.status} without a file object", status=reply.status)
        return uploaded

    async def find_files(self, filenames: frozenset[str]) -> tuple[RemoteFile, ...]:
        """Read all pages, also where paging is ignored."""
        call = self._call(Kind.LIST, "list the files", "GET /files")
        # Azure documents no paging here and may ignore it; what it does not document is not sent.
        limit = OPENAI_FILES_PER_PAGE if self.dialect is Dialect.OPENAI else None
        found: dict[str, RemoteFile] = {}
        seen: set[str] = set()
        after: str | None = None
        for _ in range(FILE_PAGES_MAX):
            page_after = after
            reply = await self._read(
                call,
                lambda: self._reads.files.with_raw_response.list(
                    purpose="batch",
                    limit=omit if limit is None else limit,
                    after=omit if page_after is None else page_after,  # noqa: B023 - awaited within the turn
                ),
            )
            value = wire.decode(reply.content)
            files = wire.files(value)
            if files is None:
                raise self._unreadable(call, reply)
            ids = wire.ids(value)
            found.update((f.id, f) for f in files if f.filename in filenames)
            after = wire.cursor(value, ids, after=page_after, limit=limit)
            if after is None or not seen.isdisjoint(ids):
                return tuple(found.values())
            seen.update(ids)
        raise Unavailable(f"cannot {call.what}: the list does not end after {FILE_PAGES_MAX} pages")

    async def file(self, file_id: str) -> RemoteFile:
        """One file. Raises NotFound only on the provider's word about this very file."""
        call = self._call(Kind.ITEM, f"look at file {file_id}", f"GET /files/{file_id}", file_id)
        reply = await self._read(call, lambda: self._reads.files.with_raw_response.retrieve(file_id))
        found = wire.file(wire.decode(reply.content))
        if found is None:
            raise self._unreadable(call, reply)
        return found

    async def delete_file(self, file_id: str) -> None:
        """Delete a file; 404 is as good."""
        call = self._call(Kind.ITEM, f"delete file {file_id}", f"DELETE /files/{file_id}", file_id)
        try:
            await self._read(call, lambda: self._writes.files.with_raw_response.delete(file_id))
        except NotFound:
            return

    async def create(self, *, input_file_id: str, endpoint: str, metadata: dict[str, str]) -> Accepted:
        """One POST, on a connection of its own; see the port for what it raises."""
        call = self._call(Kind.CREATE, "create a batch", "POST /batches")
        path: Any = endpoint  # the SDK's Literal is a snapshot; which paths a provider serves is the check's business
        reply = await self._send(
            call,
            lambda: self._writes.batches.with_raw_response.create(
                input_file_id=input_file_id,
                endpoint=path,
                completion_window="24h",
                metadata=metadata or omit,
            ),
            lambda: asyncio.timeout(self._timeouts.create_s),
        )
        created = wire.batch(wire.decode(reply.content))
        if created is None:
            raise OutcomeUnknown(f"cannot {call.what}: HTTP {reply.status} without a batch object", status=reply.status)
        return Accepted(batch=created, headers=wire.quota_headers(reply.headers))

    async def list_batches(self, *, after: str | None = None, limit: int = 100) -> BatchPage:
        """One page; ``next_after`` is None too where the provider's cursor does not move."""
        call = self._call(Kind.LIST, "list the batches", "GET /batches")
        reply = await self._read(
            call,
            lambda: self._reads.batches.with_raw_response.list(after=omit if after is None else after, limit=limit),
        )
        page = wire.batch_page(wire.decode(reply.content), after=after, limit=limit)
        if page is None:
            raise self._unreadable(call, reply)
        return page

    async def batch(self, batch_id: str) -> ProviderBatch:
        """One batch. Raises NotFound only on the provider's word about this very batch (D3)."""
        call = self._call(Kind.ITEM, f"look at batch {batch_id}", f"GET /batches/{batch_id}", batch_id)
        reply = await self._read(call, lambda: self._reads.batches.with_raw_response.retrieve(batch_id))
        return self._one_batch(call, reply)

    async def cancel(self, batch_id: str) -> ProviderBatch:
        """Ask for a cancel, once."""
        call = self._call(Kind.CANCEL, f"cancel batch {batch_id}", f"POST /batches/{batch_id}/cancel", batch_id)
        reply = await self._read(call, lambda: self._writes.batches.with_raw_response.cancel(batch_id))
        return self._one_batch(call, reply)

    async def download(self, file_id: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """Pieces of at most 256 KiB from ``offset``; servers that know no ranges are read from the start."""
        call = self._call(Kind.ITEM, f"download file {file_id}", f"GET /files/{file_id}/content", file_id)
        # Offsets count the file's own bytes, so nothing on the way may compress them.
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        while True:
            generation = self._tokens.generation if self._tokens else 0
            try:
                async with self._reads.files.with_streaming_response.content(file_id, extra_headers=headers) as raw:
                    self._renewed_for.discard(call.kind)
                    skip = _to_skip(call, raw.status_code, raw.headers, offset)
                    async for chunk in raw.iter_bytes(DOWNLOAD_CHUNK_BYTES):
                        if skip >= len(chunk):
                            skip -= len(chunk)
                            continue
                        yield chunk[skip:] if skip else chunk
                        skip = 0
                if skip:
                    raise CallRefused(f"cannot {call.what}: it is shorter than the {offset:,} bytes read before")
                return
            except openai.APIStatusError as error:
                reply = _reply(error)
            except _NETWORK as error:
                raise self._lost(call, error) from error
            if reply.status == 416 and "Range" in headers:
                if _size(reply.headers) == offset:
                    return
                # It cannot serve ranges after all: read from the start and skip.
                del headers["Range"]
            elif not await self._renewed(call, reply.status, generation):
                raise wire.refused(call, reply, scrub=self._scrub, now=self._now)

    async def deployment_limit(self, deployment: str) -> int | None:
        """From Azure's management API, where it may be read; raises nothing."""
        return await self._account.deployment_limit(deployment) if self._account else None

    async def close(self) -> None:
        """Close both clients, the sign-in and the management API's client."""
        await self._reads.close()
        await self._writes.close()
        if self._account is not None:
            await self._account.close()
        if self._tokens is not None:
            await self._tokens.close()

    def _call(self, kind: Kind, what: str, path: str, item: str | None = None) -> Call:
        method, _, rest = path.partition(" ")
        return Call(kind=kind, what=what, path=f"{method} {self._surface.path}{rest}", item=item)

    async def _read(self, call: Call, send: Callable[[], Awaitable[_Raw]]) -> Reply:
        return await self._send(call, send, lambda: asyncio.timeout(self._read_total_s))

    async def _send(
        self, call: Call, send: Callable[[], Awaitable[_Raw]], deadline: Callable[[], asyncio.Timeout]
    ) -> Reply:
        """Send once, and once more only for a renewed sign-in and only what may be repeated."""
        while True:
            generation = self._tokens.generation if self._tokens else 0
            try:
                async with deadline():
                    raw = await send()
            except openai.APIStatusError as error:
                reply = _reply(error)
            except _NETWORK as error:
                raise self._lost(call, error) from error
            else:
                self._renewed_for.discard(call.kind)
                return Reply(status=raw.status_code, headers=raw.headers, content=raw.content)
            if not await self._renewed(call, reply.status, generation):
                raise wire.refused(call, reply, scrub=self._scrub, now=self._now)
            if call.kind.once:
                raise Unavailable(f"cannot {call.what}: HTTP {reply.status}; the sign-in is renewed for the next try")

    async def _renewed(self, call: Call, status: int, generation: int) -> bool:
        """Renew the Entra token after a 401 or 403: once between two successes of the same kind of call."""
        if self._tokens is None or status not in (401, 403):
            return False
        if generation != self._tokens.generation:
            # Another call has renewed it while this one was under way with the old token.
            return True
        if call.kind in self._renewed_for:
            return False
        self._renewed_for.add(call.kind)
        await self._tokens.renew(generation)
        return True

    def _lost(self, call: Call, error: BaseException) -> SluicegateError:
        why = self._scrub(_why(error, urlsplit(self._surface.base_url).hostname or "the provider"))
        if call.kind.once and not never_sent(error):
            return OutcomeUnknown(f"cannot tell whether it happened to {call.what}: {why}")
        return Unavailable(f"cannot {call.what}: {why}")

    def _unreadable(self, call: Call, reply: Reply) -> Unavailable:
        return Unavailable(
            f"cannot {call.what}: HTTP {reply.status} with a body that is no answer", status=reply.status
        )

    def _one_batch(self, call: Call, reply: Reply) -> ProviderBatch:
        found = wire.batch(wire.decode(reply.content))
        if found is None:
            raise self._unreadable(call, reply)
        return found


class _Watched(io.FileIO):
    """An input file under upload: each piece that is taken puts off the deadline, so slow is fine and stuck is not."""

    def __init__(self, source: Path, stall_s: float) -> None:
        super().__init__(source, "rb")
        self._stall_s = stall_s
        self._deadline: asyncio.Timeout | None = None

    def deadline(self) -> asyncio.Timeout:
        """The upload's deadline, to be entered."""
        self._deadline = asyncio.timeout(self._stall_s)
        return self._deadline

    def read(self, size: int | None = -1, /) -> bytes:
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._stall_s)
        return super().read(-1 if size is None else size) or b""

    def close(self) -> None:
        self._deadline = None
        super().close()


def _reply(error: openai.APIStatusError) -> Reply:
    return Reply(status=error.status_code, headers=error.response.headers, content=error.response.content)


def _to_skip(call: Call, status: int, headers: httpx2.Headers, offset: int) -> int:
    """How many bytes of a reply come before ``offset``: all of them where the server ignores ranges."""
    if status != 206:
        return offset
    found = re.match(r"bytes (\d+)-", headers.get("content-range", ""))
    start = int(found[1]) if found else offset
    if start > offset:
        raise Unavailable(f"cannot {call.what}: asked for byte {offset:,} on, it answers from byte {start:,}")
    return offset - start


def _size(headers: wire.Headers) -> int | None:
    """A file's bytes, from the ``Content-Range`` of a 416."""
    found = re.match(r"bytes \*/(\d+)", headers.get("content-range", ""))
    return int(found[1]) if found else None


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


def _why(error: BaseException, host: str) -> str:
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


def connect(
    *, now: Callable[[], float], base_url: str | None = None, api_key: str | None = None,
    azure_endpoint: str | None = None, azure_api_key: str | None = None, azure_ad_token: str | None = None,
    api_version: str | None = None, organization: str | None = None, project: str | None = None,
    use_entra: bool = False, dialect: Dialect | None = None, timeouts: Timeouts | None = None,
    read_retries: int = READ_RETRIES, azure_subscription: str | None = None, azure_resource_group: str | None = None,
    management_url: str = MANAGEMENT_URL, credential: Callable[[], Credential] = default_credential,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> BatchBackend:  # fmt: skip
    """A backend for one resource. No call is made, and no environment variable is read.

    Args:
        now: Unix seconds; the clock's.
        base_url: OpenAI's address, or Azure's ``…/openai/v1``; None for api.openai.com.
        api_key: OpenAI's key; for Azure's v1 surface too, if ``azure_api_key`` is None.
        azure_endpoint: ``https://NAME.openai.azure.com``.
        azure_api_key: Azure's key.
        azure_ad_token: An Entra token got elsewhere; wins over the key.
        api_version: Azure's, for the dated surface.
        organization: OpenAI's organisation.
        project: OpenAI's project.
        use_entra: Sign in with azure-identity's default chain; wins over token and key.
        dialect: Overrides what the address suggests.
        timeouts: How long to wait.
        read_retries: How often a failed read is repeated.
        azure_subscription: Where the account is looked up to read deployment limits.
        azure_resource_group: Narrows that search.
        management_url: Azure's management API.
        credential: Makes an Entra credential.
        transport: In place of the network, for a simulation.

    Raises:
        UsageError: no credentials, or a setting that cannot be.
    """
    surface = surface_of(
        base_url=base_url, azure_endpoint=azure_endpoint, api_version=api_version, dialect=dialect,
        organization=organization, project=project,
    )  # fmt: skip
    azure = surface.dialect is Dialect.AZURE
    tokens: TokenSource | None = None
    key: str | None = None
    token: str | None = None
    if use_entra:
        if not azure:
            raise UsageError("signing in with Entra is for Azure; this address is OpenAI's, set OPENAI_API_KEY")
        tokens = TokenSource(credential, scope=COGNITIVE_SCOPE, now=now)
    elif azure and azure_ad_token:
        token = header_safe(azure_ad_token, "AZURE_OPENAI_AD_TOKEN")
    elif azure:
        key = azure_api_key or (api_key if not surface.dated else None)
        if not key:
            raise UsageError("no credentials for Azure: set AZURE_OPENAI_API_KEY, or sign in with Entra (use_entra)")
        key = header_safe(key, "AZURE_OPENAI_API_KEY")
    else:
        if not api_key:
            raise UsageError("no credentials: set OPENAI_API_KEY")
        key = header_safe(api_key, "OPENAI_API_KEY")
    timeouts = timeouts or Timeouts()
    scrub = Scrubber(secrets=tuple(s for s in (key, token) if s), base=surface.host)

    def client(*, once: bool) -> AsyncOpenAI:
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

    account = None
    if azure and (azure_subscription or use_entra):
        scope = f"{management_url.rstrip('/')}/.default"
        account = AzureAccount(
            endpoint=surface.host, subscription=azure_subscription, resource_group=azure_resource_group,
            tokens=TokenSource(credential, scope=scope, now=now), management_url=management_url,
        )  # fmt: skip
    return BatchBackend(
        reads=client(once=False), writes=client(once=True), surface=surface, scrub=scrub, now=now, timeouts=timeouts,
        read_retries=read_retries, tokens=tokens, account=account,
    )  # fmt: skip


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
