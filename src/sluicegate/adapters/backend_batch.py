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
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from sluicegate.adapters import wire
from sluicegate.adapters.credentials import Scrubber, Surface, TokenSource
from sluicegate.adapters.wire import Call, Kind, Reply
from sluicegate.core.types import Accepted, BatchPage, Dialect, ProviderBatch, RemoteFile
from sluicegate.errors import CallRefused, NotFound, OutcomeUnknown, SluicegateError, Unavailable

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from sluicegate.adapters.azure_account import AzureAccount

READ_RETRIES: Final = 2
DOWNLOAD_CHUNK_BYTES: Final = 256 * 1024
FILE_PAGES_MAX: Final = 1_000
OPENAI_FILES_PER_PAGE: Final = 1_000
RETRY_WITHIN_S: Final = 2.0
"""The SDK repeats a read by itself only if the provider asks for no longer wait than this; else the caller plans it."""

FILE_EXPIRY_S: Final = {Dialect.OPENAI: (3_600, 2_592_000), Dialect.AZURE: (1_209_600, 2_592_000)}
"""Least and most ``expires_after.seconds`` (OpenAI: 1 hour to 30 days; Azure: 14 to 30 days; their specs of 2025)."""


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


class Clients(NamedTuple):
    """The SDK's clients: for what may be repeated, and for what goes once and keeps no idle connection."""

    reads: AsyncOpenAI
    writes: AsyncOpenAI


class _Raw(Protocol):
    """The part of the SDK's raw response that is used."""

    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> wire.Headers: ...

    @property
    def content(self) -> bytes: ...


class BatchBackend:
    """The Backend port. Made by :func:`sluicegate.adapters.connect.connect`.

    Args:
        clients: Makes the SDK's clients, at the first call.
        surface: Where the provider is.
        scrub: Cleans messages.
        now: Unix seconds.
        timeouts: How long to wait.
        read_retries: How often the SDK repeats a failed read.
        tokens: The Entra sign-in, if one is used.
        account: Azure's management API, if it may be asked.
    """

    def __init__(
        self, *, clients: Callable[[], Clients], surface: Surface, scrub: Scrubber, now: Callable[[], float],
        timeouts: Timeouts, read_retries: int = READ_RETRIES, tokens: TokenSource | None = None,
        account: AzureAccount | None = None,
    ) -> None:  # fmt: skip
        self._make_clients = clients
        self._surface = surface
        self._scrub = scrub
        self._now = now
        self._timeouts = timeouts
        self._read_total_s = (timeouts.connect_s + timeouts.read_s + 4 * RETRY_WITHIN_S) * (read_retries + 1)
        self._tokens = tokens
        self._renewed_for: set[Kind] = set()
        self._account = account
        self.clock_ahead_s: float | None = None
        """Our clock less the provider's at its last reply to a read, or None if no reply had a date."""

    @cached_property
    def _clients(self) -> Clients:
        return self._make_clients()

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
                lambda: self._clients.writes.files.with_raw_response.create(
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
                lambda: self._clients.reads.files.with_raw_response.list(
                    purpose="batch",
                    **_given(limit=limit, after=page_after),  # noqa: B023 - awaited within the turn
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
        reply = await self._read(call, lambda: self._clients.reads.files.with_raw_response.retrieve(file_id))
        found = wire.file(wire.decode(reply.content))
        if found is None:
            raise self._unreadable(call, reply)
        return found

    async def delete_file(self, file_id: str) -> None:
        """Delete a file; 404 is as good."""
        call = self._call(Kind.ITEM, f"delete file {file_id}", f"DELETE /files/{file_id}", file_id)
        try:
            await self._read(call, lambda: self._clients.writes.files.with_raw_response.delete(file_id))
        except NotFound:
            return

    async def create(self, *, input_file_id: str, endpoint: str, metadata: dict[str, str]) -> Accepted:
        """One POST, on a connection of its own; see the port for what it raises."""
        call = self._call(Kind.CREATE, "create a batch", "POST /batches")
        path: Any = endpoint  # the SDK's Literal is a snapshot; which paths a provider serves is the check's business
        reply = await self._send(
            call,
            lambda: self._clients.writes.batches.with_raw_response.create(
                input_file_id=input_file_id,
                endpoint=path,
                completion_window="24h",
                **_given(metadata=metadata or None),
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
            lambda: self._clients.reads.batches.with_raw_response.list(limit=limit, **_given(after=after)),
        )
        page = wire.batch_page(wire.decode(reply.content), after=after, limit=limit)
        if page is None:
            raise self._unreadable(call, reply)
        return page

    async def batch(self, batch_id: str) -> ProviderBatch:
        """One batch. Raises NotFound only on the provider's word about this very batch (D3)."""
        call = self._call(Kind.ITEM, f"look at batch {batch_id}", f"GET /batches/{batch_id}", batch_id)
        reply = await self._read(call, lambda: self._clients.reads.batches.with_raw_response.retrieve(batch_id))
        return self._one_batch(call, reply)

    async def cancel(self, batch_id: str) -> ProviderBatch:
        """Ask for a cancel, once."""
        call = self._call(Kind.CANCEL, f"cancel batch {batch_id}", f"POST /batches/{batch_id}/cancel", batch_id)
        reply = await self._read(call, lambda: self._clients.writes.batches.with_raw_response.cancel(batch_id))
        return self._one_batch(call, reply)

    async def download(self, file_id: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """Pieces of at most 256 KiB from ``offset``; servers that know no ranges are read from the start."""
        from sluicegate.adapters import sdk

        call = self._call(Kind.ITEM, f"download file {file_id}", f"GET /files/{file_id}/content", file_id)
        # Offsets count the file's own bytes, so nothing on the way may compress them.
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        while True:
            generation = self._tokens.generation if self._tokens else 0
            try:
                async with self._clients.reads.files.with_streaming_response.content(
                    file_id, extra_headers=headers
                ) as raw:
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
            except sdk.Refusal as error:
                reply = sdk.reply(error)
            except sdk.NETWORK as error:
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
        if "_clients" in vars(self):
            for client in self._clients:
                await client.close()
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
        from sluicegate.adapters import sdk

        while True:
            generation = self._tokens.generation if self._tokens else 0
            try:
                async with deadline():
                    raw = await send()
            except sdk.Refusal as error:
                reply = sdk.reply(error)
                self._compare_clocks(call, reply.headers)
            except sdk.NETWORK as error:
                raise self._lost(call, error) from error
            else:
                self._compare_clocks(call, raw.headers)
                self._renewed_for.discard(call.kind)
                return Reply(status=raw.status_code, headers=raw.headers, content=raw.content)
            if not await self._renewed(call, reply.status, generation):
                raise wire.refused(call, reply, scrub=self._scrub, now=self._now)
            if call.kind.once:
                raise Unavailable(f"cannot {call.what}: HTTP {reply.status}; the sign-in is renewed for the next try")

    def _compare_clocks(self, call: Call, headers: wire.Headers) -> None:
        sent = wire.sent_at(headers)
        if sent is not None and not call.kind.once:  # an upload's reply may have been begun long before it ended
            self.clock_ahead_s = self._now() - sent

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
        from sluicegate.adapters import sdk

        why = self._scrub(sdk.why(error, urlsplit(self._surface.base_url).hostname or "the provider"))
        if call.kind.once and not sdk.never_sent(error):
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


def _given(**values: Any) -> dict[str, Any]:
    """What is not None: the rest is not sent at all."""
    return {name: value for name, value in values.items() if value is not None}


def _to_skip(call: Call, status: int, headers: wire.Headers, offset: int) -> int:
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
