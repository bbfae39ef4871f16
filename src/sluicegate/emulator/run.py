"""Start the emulator's server and keep it up until it is told to stop."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import uvicorn

from sluicegate.emulator.config import Account
from sluicegate.emulator.server import Emulator
from sluicegate.emulator.wire import with_transport
from sluicegate.errors import UsageError


def serve(account: Account, *, host: str, port: int, data: Path | None, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        port: 0 takes a free one.
        data: Folder for files; None is a temporary one, removed at the end.
        ready: Called with the URL once connections are accepted.

    Raises:
        UsageError: the address cannot be listened on.
    """
    try:
        listener = socket.create_server((host, port), backlog=512)
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be listened on: {error.strerror}; choose another --port") from error
    url = f"http://{host}:{listener.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="sluicegate-emulator-") as folder:
        place = data or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        emulator = Emulator(account, place)
        config = uvicorn.Config(
            with_transport(emulator.app()), log_level="critical", access_log=False, proxy_headers=False, lifespan="off",
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        server = _Server(config, lambda: ready(url))
        asyncio.run(server.serve(sockets=[listener]))


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()
