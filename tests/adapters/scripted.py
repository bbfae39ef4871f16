"""A server over real sockets that answers from a script, as providers, proxies and broken networks do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from sluicegate.adapters.backend_batch import BatchBackend, Timeouts
from sluicegate.adapters.connect import connect

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


async def read(backend: BatchBackend, offset: int = 0) -> bytes:
    """A file's content from an offset on."""
    return b"".join([chunk async for chunk in backend.download("file-1", offset=offset)])
