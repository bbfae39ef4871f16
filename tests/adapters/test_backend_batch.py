"""The batch backend over real sockets: a scripted server answers as providers, proxies and broken networks do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sluicegate.adapters.backend_batch import BatchBackend, Timeouts
from sluicegate.adapters.connect import connect
from sluicegate.adapters.credentials import COGNITIVE_SCOPE, TokenSource
from sluicegate.core.types import BatchStatus, Dialect
from sluicegate.errors import (
    AuthenticationFailed,
    CallRefused,
    Conflict,
    DeploymentNotFound,
    FileNotReady,
    FileQuotaExceeded,
    NotFound,
    OutcomeUnknown,
    ProviderRefused,
    SluicegateError,
    Throttled,
    TokenLimitExceeded,
    Unavailable,
)
from sluicegate.ports import Backend

NOW = 1_790_000_000.0
BATCH = {
    "id": "batch_1",
    "object": "batch",
    "status": "validating",
    "input_file_id": "file-1",
    "created_at": 1_789_999_000,
}
FILE = {"id": "file-1", "object": "file", "bytes": 3, "filename": "a.jsonl", "purpose": "batch", "status": "pending"}
AZURE_LIMIT = (
    "The number of enqueued tokens has surpassed the configured limit of 30K for the deployment 'gpt-4.1-batch'. "
    "Please either increase the limit or try again once the current jobs have finished."
)


@dataclass
class Request:
    """One request as the server read it."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


Answer = bytes | Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Answers requests one after the other from a script; the last answer serves all that follow."""

    script: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    connections: set[asyncio.Task[None]] = field(default_factory=set)

    def count(self, method: str) -> int:
        return sum(r.method == method for r in self.requests)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield self
        server.close()
        for task in self.connections:
            task.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self.converse(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            line, *fields = head.decode("latin-1").split("\r\n")
            method, target, _ = line.split(" ")
            headers = {k.lower(): v for k, _, v in (f.partition(": ") for f in fields if f)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            path, _, query = target.partition("?")
            request = Request(method, path, query, headers, body)
            self.requests.append(request)
            answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(request, writer)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().listening() as scripted:
        yield scripted


@contextlib.asynccontextmanager
async def connected(url: str, **settings: Any) -> AsyncIterator[BatchBackend]:
    chosen: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": "sk-test-0123456789", "read_retries": 0}
    chosen.update(settings)
    chosen = {k: v for k, v in chosen.items() if v is not None}
    backend = connect(now=lambda: NOW, timeouts=chosen.pop("timeouts", Timeouts(read_s=5, create_s=5)), **chosen)
    try:
        yield backend
    finally:
        await backend.close()


def azure(url: str, **more: Any) -> dict[str, Any]:
    return {"base_url": None, "api_key": None, "azure_endpoint": url, "azure_api_key": "azure-key", **more}


def reply(status: int, body: object = b"", /, **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def error(code: str | None, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "type": "invalid_request_error", "param": None}}


async def drop(request: Request, writer: asyncio.StreamWriter) -> None:
    """Close without an answer, after the request was read: what the client sees when a reply is lost."""
    writer.close()


async def reset(request: Request, writer: asyncio.StreamWriter) -> None:
    """Reset the connection after the request was read."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()


async def silence(request: Request, writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.sleep(30)


async def half(request: Request, writer: asyncio.StreamWriter) -> None:
    """Half a reply, then the end."""
    whole = reply(200, BATCH)
    writer.write(whole[: len(whole) - 20])
    await writer.drain()
    writer.close()


async def create(backend: BatchBackend) -> Any:
    return await backend.create(
        input_file_id="file-1", endpoint="/v1/chat/completions", metadata={"sluicegate": "a:b:1"}
    )


def test_it_is_a_backend() -> None:
    """The port's protocol holds, as far as types tell."""
    kind: type[Backend] = BatchBackend

    assert {name for name in vars(Backend) if not name.startswith("_")} <= set(dir(kind))


# Create


async def test_a_create_carries_what_the_provider_needs_and_both_headers_come_back(server: Server) -> None:
    """One POST with file, endpoint, window and metadata; the batch and Azure's two numbers are read."""
    server.script = [reply(201, BATCH, deployment_enqueued_tokens="139", deployment_maximum_enqueued_tokens="740000")]
    async with connected(server.url, **azure(server.url)) as backend:
        accepted = await create(backend)

    assert accepted.batch.id == "batch_1"
    assert (accepted.headers.enqueued, accepted.headers.maximum) == (139, 740_000)
    [sent] = server.requests
    assert (sent.method, sent.path, sent.query) == ("POST", "/openai/batches", "api-version=2024-10-21")
    assert sent.headers["api-key"] == "azure-key"
    assert json.loads(sent.body) == {
        "input_file_id": "file-1",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"sluicegate": "a:b:1"},
    }


@pytest.mark.parametrize(
    "answer",
    [drop, reset, silence, half, reply(500), reply(502, b"<html><title>Bad Gateway</title></html>"), reply(503),
     reply(408), reply(200, b"not json"), reply(200, {"status": "validating"}), b"gibberish\r\n\r\n"],
    ids=["dropped", "reset", "silence", "half", "500", "502-html", "503", "408", "no-json", "no-id", "gibberish"],
)  # fmt: skip
async def test_a_create_whose_answer_is_lost_is_unknown_and_was_sent_once(server: Server, answer: Answer) -> None:
    """Whatever happens after the request has left: OutcomeUnknown, and exactly one POST (D4)."""
    server.script = [answer]
    async with connected(server.url, read_retries=3, timeouts=Timeouts(create_s=0.5)) as backend:
        with pytest.raises(OutcomeUnknown):
            await create(backend)

    assert server.count("POST") == 1


@pytest.mark.parametrize("answer", [reply(307, location="/v1/elsewhere"), reply(429), reply(409), reply(400)])
async def test_a_create_is_sent_once_whatever_the_refusal(server: Server, answer: bytes) -> None:
    """No redirect and no refusal makes a second POST."""
    server.script = [answer]
    async with connected(server.url, read_retries=3) as backend:
        with pytest.raises(SluicegateError):
            await create(backend)

    assert server.count("POST") == 1


async def test_a_create_that_found_no_server_did_not_happen() -> None:
    """Connection refused and unknown names prove that nothing was sent: Unavailable, not OutcomeUnknown."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        async with connected(f"http://127.0.0.1:{port}") as backend:
            with pytest.raises(Unavailable, match=r"no connection to 127\.0\.0\.1"):
                await create(backend)
    async with connected("http://no-such-host.invalid") as backend:
        with pytest.raises(Unavailable, match=r"no-such-host\.invalid cannot be resolved"):
            await create(backend)


async def test_creates_do_not_share_a_connection(server: Server) -> None:
    """A connection that the provider closes while idle never carries a create."""
    server.script = [reply(200, BATCH)]
    async with connected(server.url) as backend:
        peers = []

        async def note(request: Request, writer: asyncio.StreamWriter) -> None:
            peers.append(writer.get_extra_info("peername"))
            writer.write(reply(200, BATCH))

        server.script = [note]
        await create(backend)
        await create(backend)

    assert len(set(peers)) == 2


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, error("token_limit_exceeded", AZURE_LIMIT), TokenLimitExceeded),
        (400, {"error": {"code": "400", "message": f"token_limit_exceeded: {AZURE_LIMIT}"}}, TokenLimitExceeded),
        (429, error("token_limit_exceeded", AZURE_LIMIT), TokenLimitExceeded),
        (400, error("BadRequest", "The input file 'file-1' is in 'pending' state. Only files with status 'Processed' "
                    "are accepted for batch inferencing."), FileNotReady),
        (400, error("invalid_request", "Cannot find file file-1, or organization org-x does not have access to it."),
         FileNotReady),
        (404, error("DeploymentNotFound", "The API deployment for this resource does not exist."),
         DeploymentNotFound),
        (400, error("model_not_found", "The provided model 'x' is not supported by the Batch API."),
         DeploymentNotFound),
        (404, error("404", "Resource not found"), ProviderRefused),
        (404, error("notFound", "File 'file-1' does not exist."), NotFound),
        (404, error(None, "No such File object: file-1"), FileNotReady),
        (400, error("invalid_value", "Invalid value: '/v1/x'. Supported values are: …"), CallRefused),
        (429, error("insufficient_quota", "You exceeded your current quota."), ProviderRefused),
        (401, error("unauthorized", "Access denied due to invalid subscription key."), AuthenticationFailed),
        (403, error("forbidden", "Public access is disabled."), AuthenticationFailed),
        (409, error("conflict", "Busy"), Conflict),
    ],
)  # fmt: skip
async def test_refusals_at_create_are_told_apart(server: Server, status: int, body: object, kind: type) -> None:
    """Each refusal becomes the error that the submitter acts on."""
    server.script = [reply(status, body)]
    async with connected(server.url) as backend:
        with pytest.raises(SluicegateError) as caught:
            await create(backend)

    assert type(caught.value) is kind
    if isinstance(caught.value, TokenLimitExceeded):
        assert (caught.value.limit, caught.value.dimension) == (30_000, "tokens")


async def test_a_refusal_of_enqueued_requests_at_create_names_their_limit(server: Server) -> None:
    """OpenAI's second dimension: its number is none of tokens."""
    text = "Enqueued request limit reached for m in organization org-x. Limit: 1,000,000 enqueued requests."
    server.script = [reply(400, error("token_limit_exceeded", text))]
    async with connected(server.url) as backend:
        with pytest.raises(TokenLimitExceeded) as caught:
            await create(backend)

    assert (caught.value.limit, caught.value.dimension) == (1_000_000, "requests")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "Mon, 23 Nov 2026 10:00:30 GMT", "date": "Mon, 23 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry_after": "Mon, 21 Sep 2026 14:13:25 GMT"}, 5.0),
        ({"retry_after": "Mon, 21 Sep 2020 00:00:00 GMT"}, 0.0),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "nan"}, None),
        ({}, None),
    ],
)  # fmt: skip
async def test_a_wait_that_is_asked_for_is_passed_on(
    server: Server, headers: dict[str, str], seconds: float | None
) -> None:
    """Retry-After in milliseconds, seconds or as a date, against the provider's own clock where it shows it."""
    server.script = [reply(429, error("429", "Slow down"), **headers)]
    async with connected(server.url, read_retries=3) as backend:
        with pytest.raises(Throttled) as caught:
            await backend.list_batches()

    assert caught.value.retry_after_s == seconds
    assert len(server.requests) == 1


async def test_keys_and_addresses_stay_out_of_messages(server: Server) -> None:
    """Whatever the provider echoes, a message shows neither key nor token nor address."""
    said = (
        f"Incorrect API key provided: sk-test-0123456789; Bearer abcdefghijkl; see {server.url}/v1/batches?sig=secret"
    )
    server.script = [reply(400, error(None, said))]
    async with connected(server.url) as backend:
        with pytest.raises(CallRefused) as caught:
            await create(backend)

    shown = str(caught.value)
    assert "0123456789" not in shown
    assert "abcdefghijkl" not in shown
    assert "127.0.0.1" not in shown
    assert "file-1" not in shown


# Reads


async def test_reads_are_repeated_a_few_times(server: Server) -> None:
    """A list survives a 502, a reset and half a reply, without the caller's help."""
    server.script = [reply(502, retry_after="0.01"), reset, reply(200, {"data": [BATCH], "has_more": False})]
    async with connected(server.url, read_retries=2) as backend:
        page = await backend.list_batches()

    assert [b.id for b in page.batches] == ["batch_1"]
    assert server.count("GET") == 3


@pytest.mark.parametrize("answer", [drop, reset, silence, reply(500), reply(200, b"<html>"), reply(200, [])])
async def test_a_read_that_fails_is_unavailable(server: Server, answer: Answer) -> None:
    """A list that cannot be read says nothing about any batch."""
    server.script = [answer]
    async with connected(server.url, timeouts=Timeouts(read_s=0.3)) as backend:
        with pytest.raises(Unavailable):
            await backend.list_batches()


async def test_a_page_leads_to_the_next(server: Server) -> None:
    """The cursor is last_id, or the last item's id; the query carries it on."""
    server.script = [
        reply(200, {"data": [BATCH], "has_more": True, "last_id": "cursor_9"}),
        reply(200, {"data": [BATCH], "has_more": True}),
        reply(200, {"data": [BATCH], "has_more": False, "last_id": "batch_1"}),
    ]
    async with connected(server.url) as backend:
        first = await backend.list_batches(limit=1)
        second = await backend.list_batches(after=first.next_after, limit=1)
        third = await backend.list_batches(after=second.next_after, limit=1)

    assert (first.next_after, second.next_after, third.next_after) == ("cursor_9", "batch_1", None)
    assert [r.query for r in server.requests] == ["limit=1", "after=cursor_9&limit=1", "after=batch_1&limit=1"]


async def test_a_first_page_of_nothing_that_has_more_is_no_list(server: Server) -> None:
    """It would say that a lost create was never made; behind other pages an empty one ends the list."""
    server.script = [reply(200, {"data": [], "has_more": True})]
    async with connected(server.url) as backend:
        with pytest.raises(Unavailable):
            await backend.list_batches()
        page = await backend.list_batches(after="batch_1")

    assert page.next_after is None


async def test_a_wrong_address_is_named_by_its_path(server: Server) -> None:
    """A 404 of the list is a wrong base URL: the message shows the path and the usual causes."""
    server.script = [reply(404, error("404", "Resource not found"))]
    wrong = f"{server.url}/openai/deployments/gpt"
    async with connected(server.url, **azure(server.url, azure_endpoint=None, base_url=wrong)) as backend:
        with pytest.raises(ProviderRefused, match=r"GET /openai/deployments/gpt/batches .*/deployments/"):
            await backend.list_batches()
        with pytest.raises(ProviderRefused, match="GET /openai/deployments/gpt/files"):
            await backend.find_files(frozenset({"x"}))


async def test_a_batch_is_gone_only_if_the_provider_says_so(server: Server) -> None:
    """A 404 about the batch is NotFound; a proxy's or a router's 404 proves nothing (D3)."""
    server.script = [
        reply(404, error(None, "No batch found with id 'batch_1'.")),
        reply(404, error("notFound", "The specified item does not exist.")),
        reply(404, b"<html><title>Not Found</title></html>"),
        reply(404, error("404", "Resource not found")),
        reply(404, error(None, "Invalid URL (GET /v1/v1/batches/batch_9)")),
    ]
    async with connected(server.url) as backend:
        for kind in (NotFound, NotFound, Unavailable, Unavailable, Unavailable):
            with pytest.raises(kind):
                await backend.batch("batch_1")


async def test_a_cancel_of_an_ended_batch_is_a_conflict(server: Server) -> None:
    """409 is not repeated, and Azure's 400 means the same."""
    server.script = [reply(409, error(None, "Cannot cancel a batch with status 'completed'."))]
    async with connected(server.url, read_retries=3) as backend:
        with pytest.raises(Conflict):
            await backend.cancel("batch_1")
        server.script = [reply(400, error("conflict", "Batch cannot be cancelled in state completed"))]
        with pytest.raises(Conflict):
            await backend.cancel("batch_1")

    assert server.count("POST") == 2


async def test_cancel_gives_the_batch(server: Server) -> None:
    """The reply to a cancel is read as a batch."""
    server.script = [reply(200, {**BATCH, "status": "Cancelling"})]
    async with connected(server.url) as backend:
        batch = await backend.cancel("batch_1")

    assert batch.status is BatchStatus.CANCELLING


# Files


async def test_an_upload_is_multipart_with_its_length(server: Server, tmp_path: Path) -> None:
    """Purpose, name, expiry and bytes arrive as the SDKs send them; Azure's expiry is at least 14 days."""
    path = tmp_path / "part.jsonl"
    path.write_bytes(b'{"custom_id":"\xc3\xa4"}\n')
    server.script = [reply(201, FILE)]
    async with connected(server.url, **azure(server.url)) as backend:
        remote = await backend.upload(path, filename="a:b:1.jsonl", expires_after_s=3_600)

    assert (remote.id, remote.status, remote.filename) == ("file-1", "pending", "a.jsonl")
    [sent] = server.requests
    assert sent.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="purpose"\r\n\r\nbatch\r\n' in sent.body
    assert b'name="file"; filename="a:b:1.jsonl"' in sent.body
    assert b'\r\n\r\n{"custom_id":"\xc3\xa4"}\n\r\n' in sent.body
    assert b'name="expires_after[anchor]"\r\n\r\ncreated_at\r\n' in sent.body
    assert b'name="expires_after[seconds]"\r\n\r\n1209600\r\n' in sent.body


@pytest.mark.parametrize("answer", [drop, reset, silence, reply(500), reply(200, b"{}")])
async def test_an_upload_whose_answer_is_lost_is_unknown_and_was_sent_once(
    server: Server, tmp_path: Path, answer: Answer
) -> None:
    """The caller looks for the file by its name; the adapter sends it once."""
    path = tmp_path / "part.jsonl"
    path.write_bytes(b"{}\n")
    server.script = [answer]
    async with connected(server.url, read_retries=3, timeouts=Timeouts(stall_s=0.5)) as backend:
        with pytest.raises(OutcomeUnknown):
            await backend.upload(path, filename="part.jsonl")

    assert server.count("POST") == 1


async def test_an_upload_that_nobody_takes_ends(tmp_path: Path) -> None:
    """A server that stops reading does not hold an upload for ever."""
    path = tmp_path / "big.jsonl"
    path.write_bytes(b"x" * 30_000_000)
    release = asyncio.Event()

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    listening = await asyncio.start_server(stuck, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with connected(url, timeouts=Timeouts(stall_s=0.3)) as backend:
        with pytest.raises(OutcomeUnknown, match="in time"):
            await backend.upload(path, filename="big.jsonl")
    release.set()
    listening.close()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (
            error("quotaExceeded", "The quota for files without expiry is reached. The maximum is 500."),
            FileQuotaExceeded,
        ),
        (error("invalidPayload", "Invalid value for purpose."), ProviderRefused),
        (error(None, "Invalid file format for Batch API. Must be .jsonl"), CallRefused),
    ],
)
async def test_refusals_of_uploads_are_told_apart(server: Server, tmp_path: Path, body: object, kind: type) -> None:
    """A full resource, a resource without batches, and a bad file are three things."""
    path = tmp_path / "part.jsonl"
    path.write_bytes(b"{}\n")
    server.script = [reply(400, body)]
    async with connected(server.url) as backend:
        with pytest.raises(SluicegateError) as caught:
            await backend.upload(path, filename="part.jsonl")

    assert type(caught.value) is kind


async def test_a_refusal_in_the_middle_of_an_upload_is_heard(server: Server, tmp_path: Path) -> None:
    """A server that answers before it has read the file, and closes, is understood."""
    path = tmp_path / "big.jsonl"
    path.write_bytes(b"x" * 8_000_000)

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(413, error(None, "File is too large."), connection="close"))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    listening = await asyncio.start_server(early, "127.0.0.1", 0)
    async with connected(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}") as backend:
        with pytest.raises(CallRefused, match="too large"):
            await backend.upload(path, filename="big.jsonl")
    listening.close()


async def test_files_are_found_on_all_pages(server: Server) -> None:
    """Names are looked up on every page; other purposes are no input files."""
    named = {**FILE, "id": "file-7", "filename": "wanted.jsonl"}
    server.script = [
        reply(200, {"data": [FILE, {**named, "id": "file-8", "purpose": "batch_output"}], "has_more": True}),
        reply(200, {"data": [named], "has_more": False}),
    ]
    async with connected(server.url) as backend:
        found = await backend.find_files(frozenset({"wanted.jsonl"}))

    assert [f.id for f in found] == ["file-7"]
    assert server.requests[1].query == "after=file-8&limit=1000&purpose=batch"


async def test_a_list_that_ignores_paging_ends(server: Server) -> None:
    """Azure may answer every page with the whole list and claim that there is more."""
    server.script = [reply(200, {"data": [FILE, {**FILE, "id": "file-2"}], "has_more": True, "last_id": "x"})]
    async with connected(server.url, **azure(server.url)) as backend:
        found = await backend.find_files(frozenset({"a.jsonl"}))

    assert [f.id for f in found] == ["file-1", "file-2"]
    assert len(server.requests) == 2


async def test_deleting_a_file_that_is_gone_is_no_error(server: Server) -> None:
    """200 with a body, 204 without, and 404 all mean that the file is no more."""
    server.script = [reply(200, {"deleted": True}), reply(204), reply(404, error("notFound", "File not found: file-1"))]
    async with connected(server.url) as backend:
        for _ in range(3):
            await backend.delete_file("file-1")

    assert server.count("DELETE") == 3


# Downloads

CONTENT = bytes(range(256)) * 4_000


async def ranged(request: Request, writer: asyncio.StreamWriter) -> None:
    """Serve CONTENT with ranges."""
    wanted = request.headers.get("range")
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
    if start >= len(CONTENT):
        writer.write(reply(416, content_range=f"bytes */{len(CONTENT)}"))
    elif wanted:
        writer.write(reply(206, CONTENT[start:], content_range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"))
    else:
        writer.write(reply(200, CONTENT))


async def aligned(request: Request, writer: asyncio.StreamWriter) -> None:
    """Serve ranges from the block's beginning, before the byte that was asked for."""
    start = int(request.headers["range"].removeprefix("bytes=").rstrip("-")) // 1_000 * 1_000
    writer.write(reply(206, CONTENT[start:], content_range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"))


async def rangeless(request: Request, writer: asyncio.StreamWriter) -> None:
    """Refuse every range."""
    writer.write(reply(416) if "range" in request.headers else reply(200, CONTENT))


async def read(backend: BatchBackend, offset: int = 0) -> bytes:
    return b"".join([chunk async for chunk in backend.download("file-1", offset=offset)])


@pytest.mark.parametrize(
    "answer", [ranged, aligned, rangeless, reply(200, CONTENT)], ids=["206", "early", "416", "200"]
)
@pytest.mark.parametrize("offset", [1, 12_345, 700_000, len(CONTENT) - 1])
async def test_a_download_goes_on_from_an_offset(server: Server, answer: Answer, offset: int) -> None:
    """With ranges, with ranges that begin early, and from servers that ignore or refuse them."""
    server.script = [answer]
    async with connected(server.url) as backend:
        assert await read(backend, offset) == CONTENT[offset:]


@pytest.mark.parametrize("answer", [ranged, reply(200, CONTENT)], ids=["416", "200"])
async def test_a_download_from_the_end_is_empty(server: Server, answer: Answer) -> None:
    """A file that was read completely before gives nothing more."""
    server.script = [answer]
    async with connected(server.url) as backend:
        assert await read(backend, len(CONTENT)) == b""


async def test_a_download_that_breaks_off_says_so_and_keeps_what_came(server: Server) -> None:
    """The pieces that arrived are given out, then Unavailable: the caller goes on at its offset."""

    async def broken(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(200, CONTENT)[:600_000])
        await writer.drain()
        writer.close()

    server.script = [broken]
    got = bytearray()
    async with connected(server.url) as backend:
        with pytest.raises(Unavailable):  # noqa: PT012 - what came before the error is what is looked at
            async for chunk in backend.download("file-1"):
                got += chunk

    assert CONTENT.startswith(bytes(got))
    assert len(got) > 250_000


async def test_a_file_shorter_than_what_was_read_is_refused(server: Server) -> None:
    """An offset beyond the end is no empty success."""
    server.script = [reply(200, b"short")]
    async with connected(server.url) as backend:
        with pytest.raises(CallRefused):
            await read(backend, 100)


@pytest.mark.parametrize(
    ("answer", "kind"), [(reply(404, error(None, "No such File object: file-1")), NotFound), (reply(502), Unavailable)]
)
async def test_a_download_that_is_refused_says_why(server: Server, answer: bytes, kind: type) -> None:
    """Absent is a finding, 502 is passing."""
    server.script = [answer]
    async with connected(server.url) as backend:
        with pytest.raises(kind):
            await read(backend)


# Signing in


@dataclass
class Token:
    """A token and its end."""

    token: str
    expires_on: int


class FakeCredential:
    """An Entra credential that gives numbered tokens for an hour."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        self.asked = 0

    async def get_token(self, *scopes: str) -> Token:
        assert scopes == ("https://cognitiveservices.azure.com/.default",)
        self.asked += 1
        return Token(f"token-{type(self).made}-{self.asked}", int(NOW) + 3_600)

    async def close(self) -> None:
        return


@pytest.fixture
def entra() -> dict[str, Any]:
    FakeCredential.made = 0
    return {"azure_api_key": None, "use_entra": True, "credential": FakeCredential}


async def test_a_read_refused_with_403_goes_again_with_a_new_token(server: Server, entra: dict[str, Any]) -> None:
    """Entra's tokens live about an hour: one forced renewal, then the read succeeds."""
    empty = reply(200, {"data": [], "has_more": False})
    server.script = [reply(403, error("forbidden", "expired")), empty, reply(200, b"content")]
    async with connected(server.url, **azure(server.url, **entra)) as backend:
        await backend.list_batches()
        server.script = [reply(401), reply(200, b"content")]
        assert await read(backend) == b"content"

    assert [r.headers["authorization"] for r in server.requests] == [
        "Bearer token-1-1", "Bearer token-2-1", "Bearer token-2-1", "Bearer token-3-1",
    ]  # fmt: skip


async def test_calls_that_are_refused_together_share_one_renewal(server: Server, entra: dict[str, Any]) -> None:
    """A token that runs out under several calls at once ends none of them."""
    expired = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.headers["authorization"] == "Bearer token-1-1":
            if sum(r.headers["authorization"] == "Bearer token-1-1" for r in server.requests) == 3:
                expired.set()
            await expired.wait()
            writer.write(reply(403, error("forbidden", "expired")))
        else:
            writer.write(reply(200, {"data": [], "has_more": False}))

    server.script = [answer]
    async with connected(server.url, **azure(server.url, **entra)) as backend:
        pages = await asyncio.gather(*(backend.list_batches() for _ in range(3)))

    assert len(pages) == 3
    assert FakeCredential.made == 2


async def test_a_lasting_403_is_the_end_after_one_renewal(server: Server, entra: dict[str, Any]) -> None:
    """A role that is missing is not cured by new tokens."""
    server.script = [reply(403, error("PermissionDenied", "The principal lacks the required data action"))]
    async with connected(server.url, **azure(server.url, **entra)) as backend:
        with pytest.raises(AuthenticationFailed, match="role"):
            await backend.list_batches()

    assert len(server.requests) == 2


async def test_a_create_refused_with_403_is_not_sent_again_by_the_adapter(
    server: Server, entra: dict[str, Any]
) -> None:
    """The token is renewed, and it is the caller's next create that uses it; a second refusal is final."""
    server.script = [reply(403), reply(200, {"data": [], "has_more": False}), reply(403)]
    async with connected(server.url, **azure(f"{server.url}/openai/v1", **entra)) as backend:
        with pytest.raises(Unavailable):
            await create(backend)
        await backend.list_batches()
        with pytest.raises(AuthenticationFailed):
            await create(backend)

    assert server.count("POST") == 2
    assert server.requests[-1].headers["authorization"] == "Bearer token-2-1"


async def test_a_token_serves_to_its_end_if_no_new_one_is_to_be_had() -> None:
    """A sign-in that fails before the old token has ended is no failure yet."""
    clock = [NOW]

    class Failing(FakeCredential):
        async def get_token(self, *scopes: str) -> Token:
            if self.asked:
                raise OSError("no network")
            return await super().get_token(*scopes)

    tokens = TokenSource(Failing, scope=COGNITIVE_SCOPE, now=lambda: clock[0])
    first = await tokens()
    clock[0] += 3_590
    late = await tokens()
    clock[0] += 20

    assert late == first
    with pytest.raises(Unavailable, match="no network"):
        await tokens()


async def test_the_three_surfaces_have_their_paths_and_credentials(server: Server) -> None:
    """OpenAI, Azure with a version, Azure v1: address, query and headers; both of Azure's are one resource."""
    server.script = [reply(200, {"data": [], "has_more": False})]
    async with connected(server.url, organization="org-1") as backend:
        await backend.list_batches()
        assert (backend.dialect, backend.resource) == (Dialect.OPENAI, f"{server.url}/v1#org-1")
    async with connected(server.url, **azure(server.url, api_version="2025-04-01-preview")) as backend:
        await backend.list_batches()
        assert (backend.dialect, backend.resource) == (Dialect.AZURE, server.url)
    v1 = {"base_url": f"{server.url}/openai/v1/", "api_key": None, "azure_api_key": "azure-key"}
    async with connected(server.url, **v1, api_version="2024-10-21") as backend:
        await backend.list_batches()
        assert (backend.dialect, backend.resource) == (Dialect.AZURE, server.url)

    openai, dated, plain = server.requests
    assert (openai.path, openai.query, openai.headers["openai-organization"]) == ("/v1/batches", "limit=100", "org-1")
    assert openai.headers["authorization"] == "Bearer sk-test-0123456789"
    assert (dated.path, dated.query) == ("/openai/batches", "api-version=2025-04-01-preview&limit=100")
    assert dated.headers["api-key"] == "azure-key"
    assert (plain.path, plain.query, plain.headers["api-key"]) == ("/openai/v1/batches", "limit=100", "azure-key")


async def test_credentials_do_not_follow_a_redirect_to_another_host(server: Server) -> None:
    """A read may be redirected, its key may not."""
    v1 = {"base_url": f"{server.url}/openai/v1", "api_key": None, "azure_api_key": "azure-key"}
    async with Server([reply(200, {"data": [], "has_more": False})]).listening() as other:
        server.script = [reply(307, location=f"{other.url}/batches")]
        async with connected(server.url, **v1) as backend:
            await backend.list_batches()

    [arrived] = other.requests
    assert "authorization" not in arrived.headers
    assert "api-key" not in arrived.headers


# Memory

MEASURE = """
import asyncio, resource, sys, pathlib
from sluicegate.adapters.connect import connect
CHUNK = b"x" * 65536
async def serve(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    length = next((int(l.split(b":")[1]) for l in head.split(b"\\r\\n") if l.lower().startswith(b"content-length")), 0)
    while length:
        length -= len(await reader.read(min(length, 65536)))
    size = int(sys.argv[2])
    if head.startswith(b"POST"):
        writer.write(b'HTTP/1.1 200 OK\\r\\ncontent-length: 15\\r\\n\\r\\n{"id":"file-1"}')
    else:
        writer.write(f"HTTP/1.1 200 OK\\r\\ncontent-length: {size}\\r\\n\\r\\n".encode())
        for _ in range(size // 65536):
            writer.write(CHUNK)
            await writer.drain()
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    backend = connect(now=lambda: 0.0, base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-key")
    small = pathlib.Path(sys.argv[1] + ".small")
    small.write_bytes(b"{}")
    await backend.upload(small, filename="warm.jsonl")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loop = asyncio.get_running_loop()
    began = loop.time()
    await backend.upload(pathlib.Path(sys.argv[1]), filename="big.jsonl")
    uploaded = loop.time() - began
    middle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, read = loop.time(), 0
    async for chunk in backend.download("file-1"):
        read += len(chunk)
    downloaded = loop.time() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await backend.close()
    server.close()
    print(read, middle - before, after - middle, before, uploaded, downloaded)
asyncio.run(main())
"""


async def test_uploads_and_downloads_do_not_live_in_memory(tmp_path: Path) -> None:
    """64 MB up and down grow the process by less than 16 MB, server included."""
    size = 64 * 1024 * 1024
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.truncate(size)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEASURE, str(path), str(size), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, problems = await process.communicate()

    assert process.returncode == 0, problems.decode()
    read_bytes, up_kb, down_kb, *_ = map(float, output.split())
    assert read_bytes == size
    assert up_kb < 16 * 1024
    assert down_kb < 16 * 1024
