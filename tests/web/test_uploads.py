"""Uploads in parts through the gateway, with the official SDK and by hand."""

from __future__ import annotations

import hashlib
import io
import json
import signal
from typing import Any

import httpx2 as httpx
import openai
import pytest

from tests.web.conftest import Served


def line(i: int) -> bytes:
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": f"ü {i}"}]}
    return (
        json.dumps({"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions", "body": body}).encode()
        + b"\n"
    )


CONTENT = b"".join(line(i) for i in range(400))


def begin(client: openai.OpenAI, size: int = len(CONTENT)) -> Any:
    return client.uploads.create(bytes=size, filename="in.jsonl", mime_type="application/jsonl", purpose="batch")


def test_the_sdk_uploads_in_chunks_and_the_file_is_as_any_other(gateway: Served) -> None:
    """``upload_file_chunked``: what comes back byte for byte is what was sent, and a batch of it completes."""
    client = gateway.client()
    upload = client.uploads.upload_file_chunked(
        file=CONTENT, filename="in.jsonl", bytes=len(CONTENT), mime_type="application/jsonl", purpose="batch",
        part_size=10_000, md5=hashlib.md5(CONTENT, usedforsecurity=False).hexdigest(),
    )  # fmt: skip

    assert upload.status == "completed"
    assert upload.file and upload.file.filename == "in.jsonl"
    assert client.files.content(upload.file.id).read() == CONTENT
    assert not list((gateway.state / "inputs").glob("*.upload"))


def test_parts_are_joined_in_the_order_that_complete_names(gateway: Served) -> None:
    """Sent in another order, and with one part that is left out."""
    client = gateway.client()
    half = len(CONTENT) // 2
    upload = begin(client)
    last = client.uploads.parts.create(upload.id, data=io.BytesIO(CONTENT[half:]))
    client.uploads.parts.create(upload.id, data=io.BytesIO(b"left out"))
    first = client.uploads.parts.create(upload.id, data=io.BytesIO(CONTENT[:half]))

    done = client.uploads.complete(upload.id, part_ids=[first.id, last.id])
    assert done.file and client.files.content(done.file.id).read() == CONTENT
    again = client.uploads.complete(
        upload.id, part_ids=[first.id, last.id]
    )  # the answer to the first may have been lost
    assert again.file and again.file.id == done.file.id
    with pytest.raises(openai.BadRequestError, match="completed already"):
        client.uploads.parts.create(upload.id, data=io.BytesIO(b"late"))
    with pytest.raises(openai.BadRequestError, match="completed already"):
        client.uploads.cancel(upload.id)


def test_a_wrong_size_sum_or_part_is_an_error_and_the_upload_goes_on(gateway: Served) -> None:
    """Nothing is made of it, and the right call afterwards works."""
    client = gateway.client()
    upload = begin(client)
    part = client.uploads.parts.create(upload.id, data=io.BytesIO(CONTENT))

    for wrong in ({"part_ids": []}, {"part_ids": [part.id, part.id]}, {"part_ids": ["part_x"]},
                  {"part_ids": [part.id], "md5": "0" * 32}):  # fmt: skip
        with pytest.raises(openai.BadRequestError):
            client.uploads.complete(upload.id, **wrong)
    with pytest.raises(openai.BadRequestError, match="more parts or bytes"):
        client.uploads.parts.create(upload.id, data=io.BytesIO(4 * CONTENT))
    assert client.uploads.complete(upload.id, part_ids=[part.id]).status == "completed"


def test_a_cancelled_upload_leaves_nothing_and_takes_nothing(gateway: Served) -> None:
    """Its parts are off the disk."""
    client = gateway.client()
    upload = begin(client)
    client.uploads.parts.create(upload.id, data=io.BytesIO(CONTENT))

    assert client.uploads.cancel(upload.id).status == "cancelled"
    assert not list((gateway.state / "inputs").glob("*.upload"))
    with pytest.raises(openai.BadRequestError, match="cancelled already"):
        client.uploads.parts.create(upload.id, data=io.BytesIO(b"x"))


def test_parts_survive_the_death_of_the_gateway(gateway: Served) -> None:
    """kill -9 between two parts."""
    half = len(CONTENT) // 2
    with gateway.client() as client:
        upload = begin(client)
        first = client.uploads.parts.create(upload.id, data=io.BytesIO(CONTENT[:half]))
    key = gateway.key
    gateway.end(signal.SIGKILL)
    gateway.start()
    gateway.key = key
    with gateway.client() as client:
        last = client.uploads.parts.create(upload.id, data=io.BytesIO(CONTENT[half:]))
        done = client.uploads.complete(upload.id, part_ids=[first.id, last.id])
        assert done.file and client.files.content(done.file.id).read() == CONTENT


@pytest.mark.parametrize("call", ["parts", "complete", "cancel"])
def test_an_upload_that_is_not_there_is_404(gateway: Served, call: str) -> None:
    """Also for one of another tenant: the row is looked up with the tenant."""
    answer = httpx.post(
        f"{gateway.url}/v1/uploads/upload_x/{call}",
        json={"part_ids": []},
        headers={"authorization": f"Bearer {gateway.key}"},
    )
    assert answer.status_code == 404
