"""HTTP/1.1 as uvicorn speaks it with h11, with bounds: connections that are open, and the time for a request's head."""

from __future__ import annotations

import asyncio
import resource
import socket
from contextlib import suppress
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S: Final = 20.0
"""From a connection's start, or the first byte of a later request, to the end of the request's head."""

BACKLOG: Final = 512
TOLD_MOST: Final = 64
"""Connections beyond the most that are served which are still told so (503); the rest is closed at once."""

OWN_FILES: Final = 256
"""File descriptors for the database, the workers, the provider."""


def affordable(wanted: int) -> int:
    """How many connections may be open at once, at most ``wanted``; raises the soft limit of open files as far as needed.

    Each connection may have a file open beside it. Where descriptors run out nothing works any more, neither clients'
    calls nor our own, so fewer are accepted where fewer are allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * (wanted + TOLD_MOST) + OWN_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        with suppress(ValueError, OSError):
            most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    room = (soft - min(OWN_FILES, soft // 2)) // 2
    return max(1, min(wanted, room - min(TOLD_MOST, room // 4)))


class Listener(socket.socket):
    """A listening socket that closes connections beyond the most that may be open, before anything is spent on them.

    uvicorn's own limit refuses requests; an idle connection sends none, and one in a TLS handshake is not seen by it.
    """

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(listening.family, listening.type, listening.proto, listening.detach())
        self._open: set[socket.socket] = set()
        self.connections_max = BACKLOG

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; one too many is closed, and BlockingIOError says that there is none for now."""
        accepted, address = super().accept()
        if len(self._open) >= self.connections_max:
            self._open = {one for one in self._open if one.fileno() >= 0}  # those of ended connections are closed
        if len(self._open) >= self.connections_max:
            accepted.close()
            raise BlockingIOError
        self._open.add(accepted)
        return accepted, address


class TimedProtocol(H11Protocol):
    """Closes connections whose request line and headers do not come: thousands of them would be cheap to hold open."""

    head_s = HEAD_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take what came; a head that is complete ends the wait."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._end_wait()
        elif self._head is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._end_wait()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head = self.loop.call_later(self.head_s, self._give_up)

    def _end_wait(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _give_up(self) -> None:
        self._head = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()
