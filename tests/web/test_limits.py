"""Limits of tenants: what the answer says, and what the official SDK does with it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from sluicegate.web.limits import UPLOADS_MOST
from tests.web.conftest import Served, until_ended
from tests.web.test_tenants import keys


class Counting:
    """Counts the requests that an SDK really sends."""

    def __init__(self, served: Served, key: str) -> None:
        import httpx2

        self.sent = 0
        http = httpx2.Client(event_hooks={"request": [self._count]})
        self.client = openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=1, http_client=http)
        served.clients.append(self.client)

    def _count(self, request: Any) -> None:
        self.sent += request.url.path.endswith("/batches")


def made(served: Served, tenant: str) -> Counting:
    return Counting(served, keys(served, "create", "--tenant", tenant)["key"])


def refused(one: Counting, path: Path, creates: int) -> Any:
    """Upload once, create so often; the error of the last create."""
    file = one.client.files.create(file=path, purpose="batch")
    wanted: Any = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    for _ in range(creates - 1):
        one.client.batches.create(**wanted)
    one.sent = 0
    with pytest.raises(openai.APIStatusError) as error:
        one.client.batches.create(**wanted)
    return error.value


@pytest.fixture(scope="module")
def limited(provider: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Everybody may have little, and some tenants have limits of their own."""
    tenants = {
        "batches": {"batches": 2}, "requests": {"requests": 50}, "tokens": {"tokens": "10K"},
        "creates": {"creates_per_minute": 3}, "spend": {"spend": 0.01}, "bytes": {"file_bytes": 1_000},
        "failing": {"creates_per_minute": 3}, "parts": {"file_bytes": 1_000}, "together": {"file_bytes": 1_000},
    }  # fmt: skip
    options = ("--limit", "5K", "--set", f"gateway_tenants={json.dumps(tenants)}", "--set", "gateway_tenant_batches=4")
    served = Served(provider.url, tmp_path_factory.mktemp("limited"), options).start()
    yield served
    served.end()


@pytest.mark.parametrize(
    ("tenant", "count", "creates", "status", "code"),
    [
        ("batches", 30, 3, 429, "too_many_batches"), ("nobody", 30, 5, 429, "too_many_batches"),
        ("requests", 20, 3, 429, "too_many_requests_waiting"), ("requests-no", 20, 5, 429, "too_many_batches"),
        ("tokens", 18, 3, 429, "too_many_tokens_waiting"),
    ],
)  # fmt: skip
def test_what_is_open_is_bounded_and_a_repeat_would_not_help(
    limited: Served, requests_file: Callable[..., Path], tenant: str, count: int, creates: int, status: int, code: str
) -> None:
    """429 with the numbers and when to come back; the SDK does not repeat it."""
    one = made(limited, tenant)
    error = refused(one, requests_file(count, words=180), creates)

    assert (error.status_code, error.code) == (status, code)
    assert error.response.headers["x-should-retry"] == "false" and error.response.headers["retry-after"] == "60"
    assert one.sent == 1 and any(digit in error.message for digit in "123456789")
    for batch in one.client.batches.list():
        if batch.status in ("validating", "in_progress"):
            one.client.batches.cancel(batch.id)


@pytest.mark.parametrize(("tenant", "count"), [("requests", 51), ("tokens", 60)])
def test_a_file_that_can_never_be_opened_is_403(
    limited: Served, requests_file: Callable[..., Path], tenant: str, count: int
) -> None:
    """However long the client waits."""
    one = made(limited, tenant)
    error = refused(one, requests_file(count, words=180), 1)

    assert error.status_code == 403 and one.sent == 1


def test_creates_per_minute_say_when_to_come_back_and_the_sdk_does(
    limited: Served, requests_file: Callable[..., Path]
) -> None:
    """The fourth within a minute: 429, ``retry-after`` below a minute, repeated by the SDK."""
    one = made(limited, "creates")
    one.client = one.client.with_options(max_retries=0)
    error = refused(one, requests_file(1), 4)

    assert (error.status_code, error.code) == (429, "rate_limit_exceeded")
    assert 0 < int(error.response.headers["retry-after"]) <= 60
    assert error.response.headers["x-should-retry"] == "true"


def test_spent_money_ends_creates_but_not_what_is_open(limited: Served, requests_file: Callable[..., Path]) -> None:
    """By the price table: about 0.02 USD are answered, 0.01 are allowed."""
    one = made(limited, "spend")
    file = one.client.files.create(file=requests_file(100, words=180), purpose="batch")
    wanted: Any = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = one.client.batches.create(**wanted)
    ended, _ = until_ended(one.client, batch, 120)
    one.sent = 0

    with pytest.raises(openai.PermissionDeniedError) as error:
        one.client.batches.create(**wanted)
    assert ended.status == "completed" and error.value.code == "spend_limit_reached" and one.sent == 1


def test_file_bytes_are_bounded_by_tenant(limited: Served, requests_file: Callable[..., Path]) -> None:
    """The upload after the limit is passed is refused until something is deleted."""
    one = made(limited, "bytes")
    file = one.client.files.create(file=requests_file(3, words=200), purpose="batch")
    with pytest.raises(openai.PermissionDeniedError):
        one.client.files.create(file=requests_file(1), purpose="batch")
    one.client.files.delete(file.id)

    assert one.client.files.create(file=requests_file(1), purpose="batch").id


@pytest.mark.parametrize("given", ['{"a": {"batch": 1}}', '{"a": {"tokens": "many"}}', '{"a": {"batches": 0}}', "[]"])
def test_limits_that_make_no_sense_are_named(tmp_path: Path, given: str) -> None:
    """The gateway does not start."""
    with pytest.raises(RuntimeError, match="gateway_tenants"):
        Served("http://127.0.0.1:1", tmp_path, ("--set", f"gateway_tenants={given}")).start()


def test_creates_that_fail_at_once_count_like_others(limited: Served) -> None:
    """A file that there is not: the batch fails, but it is a batch, and a row."""
    one = made(limited, "failing")
    wanted: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    client = one.client.with_options(max_retries=0)
    for number in range(3):
        assert client.batches.create(input_file_id=f"file-{number}", **wanted).status == "failed"
    with pytest.raises(openai.RateLimitError):
        client.batches.create(input_file_id="file-more", **wanted)

    assert len(client.batches.list(limit=100).data) == 3


def test_pending_uploads_and_their_parts_are_files_of_the_tenant(limited: Served) -> None:
    """What was announced counts at once; what is sent beyond it needs room of its own."""
    client = made(limited, "parts").client
    announced: Any = {"bytes": 900, "filename": "in.jsonl", "mime_type": "text/jsonl", "purpose": "batch"}
    first, second = client.uploads.create(**announced), client.uploads.create(**announced)

    with pytest.raises(openai.PermissionDeniedError):
        client.uploads.create(**announced)
    with pytest.raises(openai.PermissionDeniedError):
        client.files.create(file=("in.jsonl", b"x"), purpose="batch")
    part = client.uploads.parts.create(first.id, data=b"x" * 900)
    with pytest.raises(openai.PermissionDeniedError):
        client.uploads.parts.create(first.id, data=b"x")
    assert client.uploads.complete(first.id, part_ids=[part.id]).status == "completed"
    assert [path.name for path in (limited.state / "inputs").glob("*.upload")] == []
    client.uploads.cancel(second.id)
    assert client.files.create(file=("in.jsonl", b"x"), purpose="batch").bytes == 1


def test_uploads_that_arrive_together_pass_the_limit_by_one_at_most(
    limited: Served, requests_file: Callable[..., Path]
) -> None:
    """Each finds room when it begins; only the first is kept."""
    key = keys(limited, "create", "--tenant", "together")["key"]
    place = urlsplit(limited.url)
    client = openai.OpenAI(base_url=f"{limited.url}/v1", api_key=key, max_retries=0)
    limited.clients.append(client)
    form = (
        b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + b"x" * 1_500
    )
    end = b"\r\n--x--\r\n"
    head = (
        f"POST /v1/files HTTP/1.1\r\nhost: x\r\napi-key: {key}\r\ncontent-length: {len(form + end)}\r\n"
        "content-type: multipart/form-data; boundary=x\r\nconnection: close\r\n\r\n"
    )
    wires = [socket.create_connection((place.hostname, place.port)) for _ in range(4)]
    for wire in wires:
        wire.sendall(head.encode() + form)
    limit = time.monotonic() + 30
    while len(list((limited.state / "inputs").glob("upload_*"))) < 4 and time.monotonic() < limit:
        time.sleep(0.02)
    answers = []
    for wire in wires:
        wire.sendall(end)
        with wire, wire.makefile("rb") as answer:
            answers.append(answer.read())

    assert sorted(answer.split()[1] for answer in answers) == [b"200", b"403", b"403", b"403"]
    assert [file.bytes for file in client.files.list()] == [1_500]


def test_uploads_begun_and_not_ended_are_bounded(limited: Served) -> None:
    """Each is a row, and a place for parts."""
    client = made(limited, "uploads").client
    announced: Any = {"bytes": 0, "filename": "in.jsonl", "mime_type": "text/jsonl", "purpose": "batch"}
    begun = [client.uploads.create(**announced).id for _ in range(UPLOADS_MOST)]

    with pytest.raises(openai.RateLimitError) as refused:
        client.uploads.create(**announced)
    assert refused.value.response.headers["x-should-retry"] == "false"
    client.uploads.cancel(begun[0])
    assert client.uploads.create(**announced).status == "pending"
