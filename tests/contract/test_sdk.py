"""The official Python SDK of this environment, both clients: sync, async, raw and streamed answers, retries, pages."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.contract.conftest import Ordered
from tests.contract.target import Surface

Order = Callable[..., Ordered]
Client = openai.OpenAI | openai.AzureOpenAI
SURFACES = ["openai", "azure", "azure-v1"]
every_surface = pytest.mark.parametrize("name", SURFACES)


def client_of(surface: Surface, *, max_retries: int = 0, asynchronous: bool = False) -> Any:
    """The SDK's client for a surface."""
    target = surface.target
    if surface.dated:
        kind: Any = openai.AsyncAzureOpenAI if asynchronous else openai.AzureOpenAI
        return kind(
            azure_endpoint=target.url, api_key=target.key, api_version=target.api_version, max_retries=max_retries
        )
    plain: Any = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    return plain(base_url=f"{target.url}{surface.prefix}/", api_key=target.key, max_retries=max_retries)


@pytest.fixture
def client(surface: Surface) -> Iterator[Client]:
    """A client for the surface under test."""
    with client_of(surface) as made:
        yield made


def create(client: Any, surface: Surface, content: bytes) -> Any:
    """Upload and create; with the asynchronous client, something to await."""
    file_id = surface.upload(content)
    return client.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")


def test_a_file_is_waited_for_with_the_sdks_own_loop(client: Client, surface: Surface) -> None:
    """``files.wait_for_processing`` ends in ``processed`` (F§1.5)."""
    made = client.files.create(file=("in.jsonl", io.BytesIO(surface.line())), purpose="batch")

    assert client.files.wait_for_processing(made.id, poll_interval=0.05).status == "processed"


def test_an_expiry_goes_with_a_file(client: Client, surface: Surface) -> None:
    """``expires_after`` as the SDK sends it: form fields with brackets."""
    made = client.files.create(
        file=("in.jsonl", io.BytesIO(surface.line())), purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 1_209_600},
    )  # fmt: skip

    assert made.expires_at is not None
    assert abs(made.expires_at - made.created_at - 1_209_600) <= 1


def test_content_is_streamed(client: Client, surface: Surface) -> None:
    """``with_streaming_response``: chunks that make up the file."""
    content = b"".join(surface.line(str(i), "x" * 1_000) for i in range(300))
    file_id = surface.upload(content)
    with client.files.with_streaming_response.content(file_id) as answer:
        pieces = list(answer.iter_bytes(65_536))

    assert b"".join(pieces) == content
    assert len(pieces) > 1


def test_raw_answers_show_their_headers(client: Client, surface: Surface) -> None:
    """``with_raw_response``: a request id of the provider, and the parsed batch."""
    file_id = surface.upload(surface.line())
    answer = client.batches.with_raw_response.create(
        input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    assert answer.headers["x-request-id"]
    assert answer.http_response.status_code == (201 if surface.dated else 200)
    assert answer.parse().input_file_id == file_id


def test_a_list_of_batches_is_seen_once_and_newest_first(client: Client, surface: Surface) -> None:
    """Cursor pages by ``after`` and ``has_more``; every batch once, ours newest first."""
    file_id = surface.upload(surface.line())
    made = [surface.create(file_id)["id"] for _ in range(5)]
    seen = [batch.id for batch in client.batches.list(limit=2)]

    assert len(seen) == len(set(seen))
    assert [one for one in seen if one in made] == made[::-1]


def test_a_list_of_files_is_paged_in_both_orders_and_by_purpose(client: Client, surface: Surface) -> None:
    """``order``, ``limit``, ``after``, ``purpose``."""
    made = [surface.upload(surface.line(str(i))) for i in range(3)]
    down = [file.id for file in client.files.list(limit=2, purpose="batch")]
    up = [file.id for file in client.files.list(limit=2, purpose="batch", order="asc")]

    assert [one for one in down if one in made] == made[::-1]
    assert [one for one in up if one in made] == made
    assert made[0] not in [file.id for file in client.files.list(purpose="vision")]


def test_a_batch_is_run_and_cancelled_too_late(client: Client, surface: Surface) -> None:
    """Create, retrieve, content, cancel: 409 as the SDK's own exception."""
    made = create(client, surface, surface.line("a") + surface.line("b"))
    surface.wait(made.id)
    batch = client.batches.retrieve(made.id)

    assert batch.status == "completed"
    assert batch.output_file_id
    assert {json.loads(one)["custom_id"] for one in client.files.content(batch.output_file_id).text.splitlines()} == {
        "a", "b"
    }  # fmt: skip
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        client.batches.cancel(made.id)


def test_errors_are_the_sdks_own_with_code_and_body(client: Client) -> None:
    """404 for unknown things; the message is the provider's."""
    with pytest.raises(openai.NotFoundError, match="No batch found"):
        client.batches.retrieve("batch_none")
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve("file-none")
    with pytest.raises(openai.NotFoundError):
        client.files.delete("file-none")


def test_a_large_file_goes_up_in_parts(client: Client, surface: Surface) -> None:
    """``uploads.upload_file_chunked``: create, parts, complete in one call (F§1.1)."""
    content = b"".join(surface.line(str(i), "x" * 1_000) for i in range(200))
    upload = client.uploads.upload_file_chunked(
        file=content, filename="in.jsonl", bytes=len(content), mime_type="application/jsonl", purpose="batch",
        part_size=100_000,
    )  # fmt: skip

    assert upload.status == "completed"
    assert upload.file
    assert client.files.content(upload.file.id).content == content


async def test_the_asynchronous_client_does_all_of_it(surface: Surface) -> None:
    """Upload, create, pages, streamed content, delete."""
    async with client_of(surface, asynchronous=True) as client:
        file = await client.files.create(file=("in.jsonl", surface.line("async")), purpose="batch")
        await client.files.wait_for_processing(file.id, poll_interval=0.05)
        made = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        ended = surface.wait(made.id)
        listed = [batch.id async for batch in client.batches.list(limit=1)]
        async with client.files.with_streaming_response.content(ended["output_file_id"]) as answer:
            content = b"".join([piece async for piece in answer.iter_bytes()])
        raw = await client.batches.with_raw_response.retrieve(made.id)
        deleted = await client.files.delete(file.id)

    assert json.loads(content)["custom_id"] == "async"
    assert made.id in listed
    assert raw.headers["x-request-id"]
    assert deleted.deleted


# -- retries (F§1.5) ----------------------------------------------------------------------------------------------------


@pytest.mark.emulator_only
@every_surface
@pytest.mark.parametrize("kind", ["429", "500", "503", "reset"])
def test_a_passing_failure_is_tried_again_by_the_sdk(ordered: Order, name: str, kind: str) -> None:
    """429, 5xx and a broken connection: the second try succeeds, and the caller sees nothing."""
    made = ordered(name)
    made.provider.fault("list", kind)
    with client_of(made.surface, max_retries=2) as client:
        assert list(client.batches.list()) == []


@pytest.mark.emulator_only
@every_surface
def test_a_conflict_is_tried_again_by_the_sdk(ordered: Order, name: str) -> None:
    """409 too, which a cancel may meet."""
    made = ordered(name, start="1h")
    made.provider.fault("cancel", "409")
    with client_of(made.surface, max_retries=1) as client:
        assert client.batches.cancel(create(client, made.surface, made.surface.line()).id).status == "cancelling"


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", ["azure", "azure-v1"])
def test_a_refusal_is_not_tried_again(ordered: Order, name: str) -> None:
    """400 is never tried again: one refusal at create is all there is, and the code is the exception's."""
    made = ordered(name, fail_fast=True, limit="30K")
    with client_of(made.surface, max_retries=2) as client, pytest.raises(openai.BadRequestError) as refused:
        create(client, made.surface, made.surface.line(text="word " * 40_000))

    assert refused.value.code == "token_limit_exceeded"
    assert made.provider.report()["refusals"]["at_create"] == 1


@pytest.mark.emulator_only
@every_surface
def test_a_lost_reply_makes_two_batches(ordered: Order, name: str) -> None:
    """No idempotency key is sent, so a create whose reply is lost is executed twice (F§1.5)."""
    made = ordered(name)
    made.provider.fault("create", "lost")
    with client_of(made.surface, max_retries=1) as client:
        create(client, made.surface, made.surface.line())

        assert len(list(client.batches.list())) == 2


@pytest.mark.emulator_only
@every_surface
def test_an_empty_page_that_says_there_is_more_stops_the_sdk(ordered: Order, name: str) -> None:
    """F§6: auto-paging ends silently; by hand the rest is found."""
    made = ordered(name)
    batch_id = made.surface.create(made.surface.upload(made.surface.line()))["id"]
    made.provider.fault("list", "empty")
    with client_of(made.surface) as client:
        assert list(client.batches.list()) == []
        assert [batch.id for batch in client.batches.list()] == [batch_id]


@pytest.mark.emulator_only
def test_a_projects_address_is_azures_v1_surface(ordered: Order) -> None:
    """``{endpoint}/api/projects/NAME/openai/v1/``, as the Azure AI projects SDK sets it, from upload to answers."""
    order = ordered("azure")
    surface = order.surface
    base = f"{surface.target.url}/api/projects/my-project/openai/v1/"
    with openai.OpenAI(base_url=base, api_key=surface.target.key, max_retries=0) as client:
        made = client.files.create(file=("in.jsonl", io.BytesIO(surface.line())), purpose="batch")
        client.files.wait_for_processing(made.id, poll_interval=0.01)
        batch = create(client, surface, surface.line())
        ended = surface.wait(batch.id)
        with pytest.raises(openai.NotFoundError) as missing:
            client.batches.retrieve("batch_never")

        assert ended["status"] == "completed" and client.batches.retrieve(batch.id).output_file_id
        assert client.files.content(ended["output_file_id"]).text.count("\n") == 1
        assert missing.value.body["type"] == "invalid_request_error"  # type: ignore[index]
