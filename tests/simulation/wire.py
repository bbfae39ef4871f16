"""The provider behind its HTTP surface, and the real adapter and SDK in front of it, without sockets or threads."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

import httpx2
from starlette.requests import ClientDisconnect

from sluicegate.adapters.backend_batch import BatchBackend
from sluicegate.adapters.connect import connect
from sluicegate.emulator.answers import Answers
from sluicegate.emulator.config import Account
from sluicegate.emulator.server import Emulator
from sluicegate.emulator.wire import TRANSPORT
from tests.simulation.world import VirtualClock

CALL_S: Final = 0.05
FAULTS_HERE: Final = {
    "create": "create", "upload": "upload", "list_batches": "list", "delete_file": "delete", "download": "download",
}  # fmt: skip
"""Calls whose faults the emulator makes, by its own name for them."""

KINDS_HERE: Final = {
    "lost": "lost",
    "reset": "reset",
    "429": "429",
    "503": "503",
    "broken": "broken",
    "truncated": "truncated",
    "corrupt": "corrupt",
}


class _Clock:
    """The emulator's clock, virtual."""

    by_hand, speed = False, 1.0

    def now(self) -> float:
        return VirtualClock().now()


class WireWorld:
    """The emulator as other programs meet it. It outlives every process."""

    def __init__(self, account: Account, folder: Path) -> None:
        self.emulator = Emulator(account, folder)
        self.emulator.provider.clock = _Clock()  # type: ignore[assignment]
        self.model = self.emulator.provider.model
        self._app = self.emulator.app()

    @property
    def answers(self) -> Answers:
        """Who answers."""
        return self.emulator.provider.answers

    @answers.setter
    def answers(self, answers: Answers) -> None:
        self.emulator.provider.answers = answers

    def advance(self, now: float) -> None:
        """Let everything happen that is due."""
        self.model.advance(now)

    def backend(self) -> BatchBackend:
        """The adapter of one process."""
        made = connect(
            now=VirtualClock().now, azure_endpoint="http://emulated", azure_api_key="key", api_version="2024-10-21",
            transport=Transport(self._app),
        )  # fmt: skip
        return made


class _Cut(Exception):
    """The connection was closed from the other side."""


class _Wires:
    """What the emulator's faults close."""

    def abort(self) -> None:
        raise _Cut


class Transport(httpx2.AsyncBaseTransport):
    """Calls the application in this very loop."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(CALL_S)
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        body = b"".join([chunk async for chunk in request.stream])
        start: dict[str, Any] = {}
        content: list[bytes] = []
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> MutableMapping[str, Any]:
            return given.pop() if given else {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                content.append(message.get("body", b""))

        url = request.url
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": request.method,
            "scheme": url.scheme, "path": url.path, "raw_path": url.raw_path.split(b"?")[0], "query_string": url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw], "root_path": "",
            "server": ("emulated", 80), "client": ("simulation", 1), "extensions": {TRANSPORT: _Wires()},
        }  # fmt: skip
        whole = True
        try:
            await self._app(scope, receive, send)
        except (_Cut, ConnectionResetError, ClientDisconnect):
            whole = False
        if not start:
            raise httpx2.ReadError("the connection was closed")
        stream = _Stream(content, whole=whole)
        return httpx2.Response(start["status"], headers=start["headers"], stream=stream)


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, content: list[bytes], *, whole: bool) -> None:
        self._content, self._whole = content, whole

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._content:
            yield chunk
        if not self._whole:
            raise httpx2.ReadError("the connection was closed")


async def _inline(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    kwargs.pop("limiter", None)
    kwargs.pop("abandon_on_cancel", None)
    return function(*args, **kwargs)


@contextmanager
def one_thread(seed: int) -> Iterator[None]:
    """No threads, and nothing that is random by itself, in the emulator and the SDK."""
    dice = random.Random(f"wire-{seed}")
    patches: dict[str, Any] = {
        "asyncio.to_thread": _inline,
        "anyio.to_thread.run_sync": _inline,
        "openai._base_client.asyncify": lambda function: partial(_inline, function),
        "openai._base_client.random": dice.random,
        "secrets.token_hex": lambda size=16: dice.randbytes(size).hex(),
        "secrets.token_bytes": lambda size=16: dice.randbytes(size),
    }
    with ExitStack() as stack:
        for name, value in patches.items():
            stack.enter_context(mock.patch(name, value))
        yield
