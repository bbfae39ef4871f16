"""The batch backend's creates over real sockets: sent once, and every refusal told apart."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from sluicegate.adapters.backend_batch import Timeouts
from sluicegate.errors import (
    AuthenticationFailed,
    CallRefused,
    Conflict,
    DeploymentNotFound,
    FileNotReady,
    NotFound,
    OutcomeUnknown,
    ProviderRefused,
    SluicegateError,
    Throttled,
    TokenLimitExceeded,
    Unavailable,
)
from tests.adapters.scripted import (
    AZURE_LIMIT,
    BATCH,
    Answer,
    Request,
    Server,
    azure,
    connected,
    create,
    drop,
    error,
    half,
    reply,
    reset,
    silence,
)


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
