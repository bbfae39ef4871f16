"""Connections that only sit there."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from sluicegate.testing import local_emulator
from sluicegate.web.protocol import TimedProtocol
from tests.web.conftest import Served


class Hasty(TimedProtocol):
    """The same with less patience."""

    head_s = 0.3


async def slow(request: Request) -> PlainTextResponse:
    await asyncio.sleep(1.0)
    return PlainTextResponse(str(len(await request.body())))


GOOD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"POST / HT", b"POST / HTTP/1.1\r\nhost: x\r\n", GOOD + b"abc", GOOD])
async def test_heads_that_do_not_come_end_the_connection(sent: bytes) -> None:
    """Nothing, half a line, half a head, also after a good request; but a slow answer or body is no slow head."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/", slow, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, http=Hasty, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve([listener]))
    try:
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(sent)
        if sent.startswith(GOOD):
            if sent == GOOD:
                await asyncio.sleep(0.6)
                writer.write(b"abc")
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n3"), 5)
            assert answer.startswith(b"HTTP/1.1 200")
            writer.write(b"POST / HT")
        assert await asyncio.wait_for(reader.read(), 2.0) == b""
        writer.close()
    finally:
        server.should_exit = True
        await serving
        listener.close()


def test_one_connection_too_many_is_told_to_come_back(tmp_path: Path) -> None:
    """503, which SDKs repeat; and when others have gone it is served."""
    with local_emulator() as provider:
        served = Served(provider.url, tmp_path, ("--set", "gateway_connections_max=3")).start()
        try:
            address = urlsplit(served.url)
            assert address.hostname and address.port
            idle = [socket.create_connection((address.hostname, address.port)) for _ in range(3)]
            assert httpx2.get(f"{served.url}/healthz").status_code == 503
            for one in idle:
                one.close()
            client = served.client(max_retries=5)
            assert client.batches.list().data == []
        finally:
            served.end()


def test_idle_connections_of_strangers_use_up_neither_the_files_nor_the_log(tmp_path: Path) -> None:
    """With 128 files and 200 connections that say nothing, answers come at once, and again when the others are gone."""
    limited = ("sh", "-c", 'ulimit -n 128 && exec "$@"', "sh")
    with local_emulator() as provider:
        served = Served(provider.url, tmp_path, prefix=limited).start()
        try:
            address = urlsplit(served.url)
            assert address.hostname and address.port
            place = address.hostname, address.port
            idle = [socket.create_connection(place) for _ in range(200)]
            with pytest.raises(httpx2.HTTPError) as refused, httpx2.Client() as client:
                client.get(f"{served.url}/healthz", timeout=15).raise_for_status()
            assert not isinstance(refused.value, httpx2.TimeoutException)
            for one in idle:
                one.close()

            assert served.client(max_retries=8).batches.list().data == []
            assert any("gateway_connections_max is 5000, but" in line for line in served.said)
            assert len(served.said) < 100
        finally:
            served.end()


def test_as_many_connections_are_affordable_as_files_allow() -> None:
    """Two files each and some for the gateway itself, the soft limit raised within the hard one."""
    script = """
import resource, sys
from sluicegate.web.protocol import affordable
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(affordable(wanted), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    for given, expected in (
        ((64, 64, 5_000), "12 64"), ((128, 128, 5_000), "24 128"), ((128, 1_024, 5_000), "320 1024"),
        ((128, 1_024, 100), "100 584"), ((800, 1_024, 100), "100 800"),
    ):  # fmt: skip
        ran = subprocess.run([sys.executable, "-c", script, *map(str, given)], capture_output=True, text=True)
        assert ran.stdout.strip() == expected, (given, ran.stderr)
