"""Start the emulator's server: in the foreground until it is told to stop, or in a thread."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from sluicegate.emulator.config import Account
from sluicegate.emulator.server import Emulator
from sluicegate.emulator.wire import with_transport
from sluicegate.errors import UsageError
from sluicegate.server import Server


def serve(
    account: Account, *, host: str, port: int, data: Path | None, ready: Callable[[str], None],
    stopped: Callable[[dict[str, Any]], None] | None = None,
) -> None:  # fmt: skip
    """Serve until SIGINT or SIGTERM.

    Args:
        port: 0 takes a free one.
        data: Folder for files; None is a temporary one, removed at the end.
        ready: Called with the URL once connections are accepted.
        stopped: Called with the report at the end.

    Raises:
        UsageError: the address cannot be listened on.
    """
    listener = _listen(host, port)
    url = f"http://{host}:{listener.getsockname()[1]}"
    with listener, tempfile.TemporaryDirectory(prefix="sluicegate-emulator-") as folder:
        asyncio.run(_serve(account, data or Path(folder), listener, lambda server: ready(url), None, stopped))


@contextmanager
def in_thread(account: Account, function: Callable[[dict[str, Any]], Any] | None = None) -> Iterator[str]:
    """Serve in a thread of this process while the block runs; gives the URL.

    Args:
        function: Answers the requests (:class:`sluicegate.emulator.answers.FunctionAnswers`).

    Raises:
        RuntimeError: it did not start.
    """
    listener = _listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    up, servers, failures = threading.Event(), list[uvicorn.Server](), list[BaseException]()

    def ready(server: uvicorn.Server) -> None:
        servers.append(server)
        up.set()

    with listener, tempfile.TemporaryDirectory(prefix="sluicegate-emulator-") as folder:

        def run() -> None:
            try:
                asyncio.run(_serve(account, Path(folder), listener, ready, function, None))
            except BaseException as error:  # noqa: BLE001  (told to who waits below)
                failures.append(error)
            finally:
                up.set()

        thread = threading.Thread(target=run, name="sluicegate-emulator", daemon=True)
        thread.start()
        up.wait()
        if failures:
            raise RuntimeError(f"the emulator did not start: {failures[0]}") from failures[0]
        try:
            yield url
        finally:
            servers[0].should_exit = True
            thread.join()


def _listen(host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port), backlog=512)
        # asyncio sets this only for sockets whose protocol number is given; without it every answer waits 40 ms for the
        # acknowledgement of its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be listened on: {error.strerror}; choose another --port") from error


async def _serve(
    account: Account, folder: Path, listener: socket.socket, ready: Callable[[uvicorn.Server], None],
    function: Callable[[dict[str, Any]], Any] | None, stopped: Callable[[dict[str, Any]], None] | None,
) -> None:  # fmt: skip
    emulator = Emulator(account, folder, function)
    config = uvicorn.Config(
        with_transport(emulator.app()), log_level="critical", access_log=False, proxy_headers=False, lifespan="off",
        timeout_graceful_shutdown=2, server_header=False,
    )  # fmt: skip
    emulator.start()
    try:
        await Server(config, ready).serve(sockets=[listener])
    finally:
        await emulator.close()
    if stopped is not None:
        stopped(emulator.report())
