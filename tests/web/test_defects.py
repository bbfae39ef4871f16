"""What goes wrong within a handler: the answer is as helpful as any other."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
import uvicorn
from starlette.responses import StreamingResponse

from sluicegate.web import logs
from sluicegate.web.app import make_app
from sluicegate.web.metrics import Metrics
from sluicegate.web.state import Gateway


async def full() -> None:
    """A real full device."""
    with open("/dev/full", "wb", 0) as device:
        device.write(b"x")


async def crowded() -> None:
    raise OSError(errno.EMFILE, "Too many open files")


async def defect() -> None:
    raise ValueError("secret")


async def other() -> None:
    raise OSError(errno.EIO, "Input/output error")


async def broken() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"half"
        raise ValueError("secret")

    return StreamingResponse(pieces(), headers={"content-length": "8"})


@pytest.fixture
async def served() -> AsyncIterator[tuple[str, Metrics]]:
    """The gateway's application with handlers that fail, on a real socket."""
    metrics = Metrics()
    app = make_app(cast(Gateway, SimpleNamespace(metrics=metrics)))
    for handler in (full, crowded, defect, other, broken):
        for prefix in ("/v1/x", "/openai/x"):
            app.add_api_route(f"{prefix}/{handler.__name__}", handler, response_model=None)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve([listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", metrics
    server.should_exit = True
    await serving
    listener.close()


@pytest.mark.parametrize(
    ("path", "status", "code", "after"),
    [
        ("/v1/x/full", 507, "insufficient_storage", "60"), ("/v1/x/crowded", 503, "unavailable", "10"),
        ("/v1/x/defect", 500, "server_error", None), ("/v1/x/other", 500, "server_error", None),
        ("/openai/x/defect", 500, "server_error", None), ("/openai/x/full", 507, "insufficient_storage", "60"),
    ],
)  # fmt: skip
async def test_failures_of_any_handler_have_the_familys_envelope_an_id_and_safe_headers(
    served: tuple[str, Metrics], caplog: pytest.LogCaptureFixture, path: str, status: int, code: str, after: str | None
) -> None:
    """Also those that nobody foresaw; the text of an exception stays in the log, under the answer's id."""
    url, metrics = served
    with caplog.at_level(logging.INFO, "sluicegate"):
        async with httpx2.AsyncClient() as client:
            answer = await client.get(url + path, headers={"x-request-id": "mine-7"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["x-request-id"] == "mine-7" and answer.headers.get("retry-after") == after
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    assert "secret" not in answer.text
    said: Any = caplog.records
    requests = [one for one in said if one.name == "sluicegate.requests"]
    assert requests[0].getMessage() == f"GET {path} {status}"
    failures = [one for one in said if one.levelno >= logging.ERROR]
    assert len(failures) == 1 and failures[0].name == "sluicegate.gateway"
    assert code != "server_error" or getattr(failures[0], logs.FIELDS)["request"] == "mine-7"
    sample = {"method": "GET", "route": path, "status": "5xx"}
    assert metrics._registry.get_sample_value("sluicegate_http_requests_total", sample) == 1


async def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(
    served: tuple[str, Metrics], caplog: pytest.LogCaptureFixture
) -> None:
    """The connection ends; one traceback is logged."""
    async with httpx2.AsyncClient() as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get(f"{served[0]}/v1/x/broken")

    assert len([one for one in caplog.records if one.exc_info]) == 1
