"""uvicorn as a part of a program: it tells when it is up, and a signal ends it in order."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn


class Server(uvicorn.Server):
    """Serves until SIGINT or SIGTERM; the signal is not raised again, so that what comes after it is done.

    Args:
        ready: Called once connections are accepted.
    """

    def __init__(self, config: uvicorn.Config, ready: Callable[[Server], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready(self)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
