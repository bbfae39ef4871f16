"""What goes wrong: due times, uploads that are too large, broken or broken off."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from sluicegate.testing import emulator
from tests.web.conftest import Served, until_ended


def test_at_its_due_time_a_batch_expires_and_keeps_what_was_answered(
    tmp_path: Path, requests_file: Callable[..., Path]
) -> None:
    """OpenAI's way: the rest ends in the error file with ``batch_expired``."""
    with emulator(limit="30K", rate=8_000, validating="0.1s", start="0.1s", finalizing="0.1s") as provider:
        served = Served(provider.url, tmp_path / "state", ("--limit", "30K")).start()
        try:
            client = served.client()
            file = client.files.create(file=requests_file(500, words=220), purpose="batch")
            batch: Any = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="1h",  # type: ignore[arg-type]
            )  # fmt: skip
            assert batch.expires_at == batch.created_at + 3_600
            limit = time.monotonic() + 60
            while client.batches.retrieve(batch.id).request_counts.completed == 0 and time.monotonic() < limit:
                time.sleep(0.1)
            with sqlite3.connect(served.state / "sluicegate.sqlite3", timeout=30) as rows:
                rows.execute("UPDATE client_batches SET due_at = 1")
            rows.close()

            ended, _ = until_ended(client, batch)

            assert ended.status == "expired" and ended.expired_at is not None
            answered = client.files.content(ended.output_file_id).text.splitlines()
            rest = [json.loads(line) for line in client.files.content(ended.error_file_id).text.splitlines()]
            assert len(answered) + len(rest) == 500 and answered and rest
            assert {line["error"]["code"] for line in rest} == {"batch_expired"}
        finally:
            served.end()


@pytest.fixture(scope="module")
def small(provider: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A gateway that takes files of 100 KB at most."""
    served = Served(provider.url, tmp_path_factory.mktemp("small"), ("--set", "gateway_file_bytes_max=100000")).start()
    yield served
    served.end()


def left_over(served: Served) -> list[str]:
    return [path.name for path in (served.state / "inputs").iterdir()]


def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(small: Served, tmp_path: Path) -> None:
    """In the provider's words (F§5.3), in the middle of the stream."""
    path = tmp_path / "large.jsonl"
    path.write_bytes(b"x" * 100_001)

    with pytest.raises(openai.APIStatusError) as refused:
        small.client(max_retries=0).files.create(file=path, purpose="batch")

    assert refused.value.status_code == 400 and "File is too large." in refused.value.message
    assert left_over(small) == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain", b"hello"),
        ("multipart/form-data", b"hello"),
        ("multipart/form-data; boundary=x", b"hello"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nabc"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--x--\r\n"),
        ("multipart/form-data; boundary=" + "y" * 500, b""),
    ],
)  # fmt: skip
def test_a_broken_form_is_a_400_and_leaves_nothing(small: Served, kind: str, body: bytes) -> None:
    """Never a 500, and no rubbish in the data folder."""
    answer = small.client()._client.post(
        f"{small.url}/v1/files", content=body, headers={"content-type": kind, "api-key": small.key}
    )

    assert answer.status_code == 400 and answer.json()["error"]["message"]
    assert left_over(small) == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"input_file_id": 7}', b"x" * 1_000_001]
)
def test_a_broken_create_is_a_4xx(small: Served, body: bytes) -> None:
    """Whatever the body is."""
    answer = small.client()._client.post(f"{small.url}/v1/batches", content=body, headers={"api-key": small.key})

    assert answer.status_code in (400, 413) and answer.json()["error"]["message"]


def test_a_client_that_hangs_up_leaves_nothing(small: Served) -> None:
    """The connection breaks in the middle of the file."""
    place = urlsplit(small.url)
    with socket.create_connection((place.hostname, place.port)) as wire:
        head = (
            f"POST /v1/files HTTP/1.1\r\nhost: x\r\napi-key: {small.key}\r\ncontent-length: 50000\r\n"
            "content-type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            'content-disposition: form-data; name="file"; filename="../../a"\r\n\r\nabc'
        )
        wire.sendall(head.encode())
        time.sleep(0.3)
    limit = time.monotonic() + 10
    while left_over(small) and time.monotonic() < limit:
        time.sleep(0.05)

    assert left_over(small) == []
    assert small.client()._client.get(f"{small.url}/readyz").json() == {"status": "ok", "wrong": []}


def test_no_path_from_a_client_reaches_the_disk(small: Served) -> None:
    """A file name is text to show."""
    content = b'{"custom_id": "a"}\n'

    file = small.client().files.create(file=("../../etc/passwd\n", content), purpose="batch")

    assert "/" not in file.filename and file.bytes == len(content)
    assert all(len(name.removesuffix(".jsonl")) == 64 for name in left_over(small))
    small.client().files.delete(file.id)
    assert left_over(small) == []


def test_ended_batches_are_forgotten_after_their_time(tmp_path: Path, requests_file: Callable[..., Path]) -> None:
    """Rows, results, copies and unused inputs go, here and at the provider; what has an expiry of its own stays till then."""
    with emulator(validating="0.1s", start="0.1s", finalizing="0.1s") as provider:
        served = Served(provider.url, tmp_path / "state", ("--set", "gateway_keep=1s")).start()
        try:
            client = served.client()
            file = client.files.create(file=requests_file(3), purpose="batch")
            batch = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            hour: Any = {"anchor": "created_at", "seconds": 3_600}
            kept = client.files.create(file=requests_file(1), purpose="batch", expires_after=hour)
            ended, _ = until_ended(client, batch)
            limit = time.monotonic() + 40
            while (client.batches.list().data or len(client.files.list().data) > 1) and time.monotonic() < limit:
                time.sleep(0.3)

            assert client.batches.list().data == []
            assert [one.id for one in client.files.list().data] == [kept.id]
            with pytest.raises(openai.NotFoundError):
                client.files.content(ended.output_file_id)
            assert [
                p.name for name in ("files", "results", "indexes", "parts") for p in (served.state / name).iterdir()
            ] == []
            assert client.files.delete(kept.id).deleted and left_over(served) == []
            at_provider = openai.OpenAI(base_url=f"{provider.url}/v1", api_key="x")
            assert at_provider.files.list().data == []
        finally:
            served.end()


@pytest.mark.parametrize("window", ["24h\n", " 24h", "24h ", "24\nh", "٢٤h", "24", "8d", "59m"])
def test_a_completion_window_is_taken_as_it_is_documented_or_not_at_all(small: Served, window: str) -> None:
    """From ``1h`` to ``7d``: nothing around it, no other digits."""
    body = {"input_file_id": "file-x", "endpoint": "/v1/chat/completions", "completion_window": window}
    answer = small.client()._client.post(f"{small.url}/v1/batches", json=body, headers={"api-key": small.key})

    assert answer.status_code == 400 and answer.json()["error"]["param"] == "completion_window"
