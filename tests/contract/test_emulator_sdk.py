"""The emulator, as the official SDK sees it: three surfaces, literal errors, both kinds of refusal."""

import io
import json
import time
from collections.abc import Callable, Iterator

import openai
import pytest

from sluicegate.testing import RunningEmulator, emulator

Client = openai.OpenAI | openai.AzureOpenAI
FAST = {"validating": "0.2s", "start": "0.1s", "finalizing": "0.1s"}


def line(custom_id: str, text: str = "hello", model: str = "gpt-4.1", **body: object) -> bytes:
    request = {"model": model, "messages": [{"role": "user", "content": text}], **body}
    whole = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": request}
    return json.dumps(whole).encode() + b"\n"


SURFACES: dict[str, Callable[[str], Client]] = {
    "openai": lambda url: openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0),
    "azure": lambda url: openai.AzureOpenAI(azure_endpoint=url, api_key="any", api_version="2024-10-21", max_retries=0),
    "azure-v1": lambda url: openai.OpenAI(base_url=f"{url}/openai/v1/", api_key="any", max_retries=0),
}


@pytest.fixture(params=list(SURFACES))
def surface(request: pytest.FixtureRequest) -> Iterator[tuple[Client, RunningEmulator]]:
    with emulator(limit="30K", **FAST) as provider, SURFACES[request.param](provider.url) as client:
        yield client, provider


def upload(client: Client, content: bytes) -> str:
    return client.files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch").id


def create(client: Client, file_id: str) -> openai.types.Batch:
    return client.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")


def wait(client: Client, batch_id: str) -> openai.types.Batch:
    for _ in range(100):
        batch = client.batches.retrieve(batch_id)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch
        time.sleep(0.1)
    raise AssertionError("the batch does not end")


def test_a_file_goes_in_and_every_answer_comes_out(surface: tuple[Client, RunningEmulator]) -> None:
    """Upload, create, poll, fetch; the answers say that they are emulated and count their tokens."""
    client, _ = surface
    batch = wait(client, create(client, upload(client, b"".join(line(f"ü {i}") for i in range(5)))).id)

    assert batch.status == "completed"
    assert batch.output_file_id
    lines = [json.loads(text) for text in client.files.content(batch.output_file_id).text.splitlines()]
    assert sorted(one["custom_id"] for one in lines) == [f"ü {i}" for i in range(5)]
    body = lines[0]["response"]["body"]
    assert "emulated" in body["choices"][0]["message"]["content"]
    # Cookbook: 3 a message, 3 a request, role 1, "hello" 1.
    assert body["usage"]["prompt_tokens"] == 8


def test_a_list_pages_newest_first_with_cursors(surface: tuple[Client, RunningEmulator]) -> None:
    """The SDK's own paging sees every batch once."""
    client, _ = surface
    file_id = upload(client, line("a"))
    made = [create(client, file_id).id for _ in range(5)]

    assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1]


def test_going_over_the_limit_fails_the_batch_with_the_providers_words(surface: tuple[Client, RunningEmulator]) -> None:
    """The well-known complaint, late: the create succeeds, the batch fails after validating."""
    client, provider = surface
    provider.post("/_emulator/rate", rate=1)
    first = create(client, upload(client, line("a", "word " * 20_000)))
    second = wait(client, create(client, upload(client, line("b", "word " * 20_000))).id)

    assert second.status == "failed"
    assert second.errors and second.errors.data
    assert second.errors.data[0].code == "token_limit_exceeded"
    assert second.errors.data[0].message == (
        "The number of enqueued tokens has surpassed the configured limit of 30K for the deployment 'gpt-4.1'. Please "
        "either increase the limit or try again once the current jobs have finished."
    )
    assert client.batches.cancel(first.id).status == "cancelling"
    assert wait(client, first.id).status == "cancelled"


def test_fail_fast_refuses_at_create_with_400() -> None:
    """Some Azure regions: no batch is made."""
    with emulator("--fail-fast", limit="30K", **FAST) as provider, SURFACES["azure"](provider.url) as client:
        file_id = upload(client, line("b", "word " * 40_000))
        with pytest.raises(openai.BadRequestError, match="configured limit of 30K") as refused:
            create(client, file_id)
        assert refused.value.code == "token_limit_exceeded"
        assert list(client.batches.list()) == []


def test_azure_tells_the_limit_with_every_create() -> None:
    """The two headers (F§4.1): the file's tokens by characters, the deployment's limit."""
    with emulator(limit="30K", **FAST) as provider, SURFACES["azure"](provider.url) as client:
        answer = client.batches.with_raw_response.create(
            input_file_id=upload(client, line("a")), endpoint="/v1/chat/completions", completion_window="24h"
        )
        assert answer.headers["deployment-maximum-enqueued-tokens"] == "30000"
        body = json.dumps({"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}]})
        assert answer.headers["deployment-enqueued-tokens"] == str(len(body) // 4)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"), (b"{no json\n", "invalid_json_line"), (line("a") + line("a"), "duplicate_custom_id"),
        (line("a", stream=True), "streaming_unsupported"), (line("a") + line("b", model="other"), "mismatched_model"),
        (b'{"method":"POST","url":"/v1/chat/completions","body":{}}\n', "missing_required_parameter"),
    ],
)  # fmt: skip
def test_faulty_files_fail_in_validating_with_the_providers_codes(content: bytes, code: str) -> None:
    """Everything about content shows after the create, never before (F§5.3)."""
    with emulator(dialect="openai", **FAST) as provider, SURFACES["openai"](provider.url) as client:
        batch = wait(client, create(client, upload(client, content)).id)

        assert batch.status == "failed"
        assert batch.errors and batch.errors.data and batch.errors.data[0].code == code


def test_unknown_things_and_wrong_keys_are_refused_in_the_dialects_envelope() -> None:
    """401, 404, 409 as the SDK's own exceptions."""
    with emulator("--key", "right", **FAST) as provider:
        with SURFACES["openai"](provider.url) as client, pytest.raises(openai.AuthenticationError):
            client.batches.list()
        with openai.OpenAI(base_url=f"{provider.url}/v1", api_key="right", max_retries=0) as client:
            with pytest.raises(openai.NotFoundError, match="No batch found"):
                client.batches.retrieve("batch_none")
            done = wait(client, create(client, upload(client, line("a"))).id)
            with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
                client.batches.cancel(done.id)


def test_files_are_listed_read_in_ranges_and_deleted(surface: tuple[Client, RunningEmulator]) -> None:
    """The rest of the files' surface."""
    client, _ = surface
    content = line("a") + line("b")
    file_id = upload(client, content)

    assert [file.id for file in client.files.list()] == [file_id]
    part = client.files.with_raw_response.content(file_id, extra_headers={"Range": "bytes=5-9"})
    assert part.content == content[5:10]
    assert client.files.delete(file_id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file_id)
