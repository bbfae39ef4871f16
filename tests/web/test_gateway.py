"""Clients of the gateway: the official SDK on real sockets, work that is several times the provider's limit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.web.conftest import Served, until_ended
from tests.web.test_tenants import client_of, keys

Make = Callable[..., Path]


def create(client: Any, path: Path, **more: Any) -> Any:
    with path.open("rb") as file:
        uploaded = client.files.create(file=file, purpose="batch")
    options = {"endpoint": "/v1/chat/completions", "completion_window": "24h"} | more
    return client.batches.create(input_file_id=uploaded.id, **options)


def test_a_batch_of_four_times_the_limit_comes_back_whole_and_in_order(
    provider: Any, gateway: Served, requests_file: Make
) -> None:
    """The provider refuses nothing, and one output file has every answer in input order."""
    client = gateway.client()
    before = provider.report()["refusals"]

    batch = create(client, requests_file(500, words=220), metadata={"team": "A"})
    ended, seen = until_ended(client, batch)

    assert batch.status == "validating" and seen[-1] == "completed" and "in_progress" in seen
    lines = [json.loads(line) for line in client.files.content(ended.output_file_id).text.splitlines()]
    assert [line["custom_id"] for line in lines] == [f"ask/{i} ä" for i in range(500)]
    assert all(line["response"]["status_code"] == 200 for line in lines)
    assert (ended.request_counts.total, ended.request_counts.completed, ended.request_counts.failed) == (500, 500, 0)
    assert ended.metadata == {"team": "A"} and ended.error_file_id is None
    assert ended.usage is not None and ended.usage.total_tokens > 100_000
    assert (
        batch.model_extra is not None and batch.model_extra["sluicegate"]["reasons"]
    )  # SDKs keep what they do not know
    assert provider.report()["refusals"] == before


@pytest.mark.parametrize("version", ["/openai/v1/", "/api/projects/my-project/openai/v1/", "2024-10-21"])
def test_azures_families_work_with_azures_credentials(gateway: Served, requests_file: Make, version: str) -> None:
    """``AzureOpenAI`` with an api-version, and ``OpenAI`` on ``/openai/v1/`` or a project, see the same batches."""
    client: Any = (
        openai.OpenAI(base_url=f"{gateway.url}{version}", api_key=gateway.key)
        if version.startswith("/")
        else openai.AzureOpenAI(azure_endpoint=gateway.url, api_key=gateway.key, api_version=version)
    )

    ended, _ = until_ended(client, create(client, requests_file(3), endpoint="/chat/completions"))

    assert ended.status == "completed" and ended.endpoint == "/chat/completions"
    assert len(client.files.content(ended.output_file_id).text.splitlines()) == 3
    assert ended.id in [batch.id for batch in client.batches.list(limit=5)]
    with pytest.raises(openai.NotFoundError) as missing:
        client.batches.retrieve("batch_never")
    assert missing.value.code == "notFound"
    assert "my-project" not in client._client.get(f"{gateway.url}/metrics").text


def test_all_problems_of_a_bad_file_are_in_errors_with_their_lines(gateway: Served, tmp_path: Path) -> None:
    """A bad file fails the batch as the provider would, and nothing is submitted."""
    good = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}]}}  # fmt: skip
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join([json.dumps(good), "{no json", json.dumps(good)]))
    client = gateway.client()

    ended, _ = until_ended(client, create(client, path))

    assert ended.status == "failed" and ended.output_file_id is None and ended.failed_at is not None
    assert {error.line for error in ended.errors.data} == {2, 3}


def test_a_cancelled_batch_keeps_what_was_answered(provider: Any, gateway: Served, requests_file: Make) -> None:
    """Every request ends once: answered in the output file, the rest in the error file."""
    client = gateway.client()
    provider.post("/_emulator/rate", rate=6_000)
    batch = create(client, requests_file(600, words=220))
    limit = time.monotonic() + 60
    while client.batches.retrieve(batch.id).request_counts.completed == 0 and time.monotonic() < limit:
        time.sleep(0.1)

    assert client.batches.cancel(batch.id).status == "cancelling"
    provider.post("/_emulator/rate", rate=60_000)
    ended, _ = until_ended(client, batch)

    assert ended.status == "cancelled" and ended.cancelled_at is not None
    answered = [json.loads(line) for line in client.files.content(ended.output_file_id).text.splitlines()]
    rest = [json.loads(line) for line in client.files.content(ended.error_file_id).text.splitlines()]
    assert sorted(line["custom_id"] for line in answered + rest) == sorted(f"ask/{i} ä" for i in range(600))
    assert {line["error"]["code"] for line in rest} == {"batch_cancelled"}
    assert ended.request_counts.completed == len(answered) > 0 and ended.request_counts.failed == len(rest) > 0


def test_a_repeated_create_is_one_batch_and_two_deliberate_creates_are_two(
    gateway: Served, requests_file: Make
) -> None:
    """SDKs repeat a POST after a time-out; people do not."""
    client = gateway.client()
    file = client.files.create(file=requests_file(1), purpose="batch")

    def post(**headers: str) -> str:
        options: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "extra_headers": headers}
        created: str = client.batches.create(input_file_id=file.id, **options).id
        return created

    first, second = post(), post()
    assert first != second
    assert post(**{"x-stainless-retry-count": "1"}) == second
    assert post(**{"Idempotency-Key": "k1"}) == post(**{"Idempotency-Key": "k1"})
    with pytest.raises(openai.UnprocessableEntityError):
        client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="48h",  # type: ignore[arg-type]
            extra_headers={"Idempotency-Key": "k1"},
        )  # fmt: skip


def test_an_idempotency_key_outlives_the_key_that_it_was_sent_with(gateway: Served, requests_file: Make) -> None:
    """The same tenant and the same body under another key are the same create; another body is not."""
    client = gateway.client()
    file = client.files.create(file=requests_file(1), purpose="batch")
    other = client_of(gateway, keys(gateway, "create", "--tenant", "default")["key"])
    same: Any = {
        "input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h",
        "extra_headers": {"Idempotency-Key": "outlives"},
    }  # fmt: skip

    assert client.batches.create(**same).id == other.batches.create(**same).id
    with pytest.raises(openai.UnprocessableEntityError):
        other.batches.create(**same, metadata={"another": "body"})


def test_a_files_content_comes_in_ranges_and_its_head_alone(gateway: Served, requests_file: Make) -> None:
    """Downloads can be resumed."""
    path = requests_file(5)
    client = gateway.client()
    file = client.files.create(file=path, purpose="batch")
    whole = path.read_bytes()

    piece = client.files.with_raw_response.content(file.id, extra_headers={"range": "bytes=10-19"})
    assert piece.status_code == 206 and piece.content == whole[10:20]
    assert piece.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    head = client._client.head(f"{gateway.url}/v1/files/{file.id}/content", headers={"api-key": gateway.key})
    assert head.status_code == 200 and head.content == b"" and int(head.headers["content-length"]) == len(whole)
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_lists_page_both_ways(gateway: Served, requests_file: Make) -> None:
    """``after`` goes on, ``order`` turns round, ``limit`` is bounded."""
    client = gateway.client()
    ids = [client.files.create(file=requests_file(1, name=f"{i}.jsonl"), purpose="batch").id for i in range(3)]

    first = client.files.list(limit=2, purpose="batch")  # results of other tests may come in between
    assert [file.id for file in first.data] == [ids[2], ids[1]] and first.has_more
    assert next(iter(first.get_next_page().data)).id == ids[0]
    assert client.files.list(order="asc", after=ids[1], limit=1, purpose="batch").data[0].id == ids[2]
    with pytest.raises(openai.BadRequestError):
        client.batches.list(limit=101)


def test_quota_shows_the_limit_and_where_it_is_known_from(gateway: Served, requests_file: Make) -> None:
    """The endpoint that the provider does not have."""
    client = gateway.client()
    until_ended(client, create(client, requests_file(2)))

    rows = client.get("/quota", cast_to=object)
    row = next(row for row in rows["data"] if row["deployment"] == "gpt-4.1")  # type: ignore[index]
    assert row["limit"] == 30_000 and row["reserved"] + row["held"] + row["headroom"] + row["foreign"] == 30_000
    assert client.get("/quota/gpt-4.1", cast_to=object)["model"] in (None, "gpt-4.1")  # type: ignore[index]


@pytest.mark.parametrize(
    "path", ["/v1/files", "/v1/batches", "/v1/quota", "/openai/v1/batches", "/openai/files?api-version=x"]
)
def test_without_a_valid_key_nothing_is_shown(gateway: Served, path: str) -> None:
    """A wrong secret for an existing key id is refused like any other."""
    client = gateway.client()
    forged = gateway.key[:-1] + ("0" if gateway.key[-1] != "0" else "1")
    for headers in ({}, {"api-key": "x"}, {"authorization": f"Bearer {forged}"}):
        assert client._client.get(gateway.url + path, headers=headers).status_code == 401
    assert client._client.get(gateway.url + path, headers={"api-key": gateway.key}).status_code == 200


def test_quota_check_says_what_a_file_would_be_and_submits_nothing(
    provider: Any, gateway: Served, requests_file: Make
) -> None:
    """Problems, tokens, what fits now; another run of the emulator's books shows no new batch."""
    client = gateway.client()
    until_ended(client, create(client, requests_file(1)))
    before = provider.report()["batches"]
    file = client.files.create(file=requests_file(300, words=220), purpose="batch")

    report: Any = client.post("/quota/check", body={"input_file_id": file.id}, cast_to=object)

    assert report["requests"] == 300 and report["problem_count"] == 0 and report["tokens"] > 60_000
    forecast = report["deployments"]["gpt-4.1"]
    assert 0 < forecast["fits_now"] <= 30_000 and forecast["done_at"] > time.time()
    assert provider.report()["batches"] == before
    with pytest.raises(openai.NotFoundError):
        client.post("/quota/check", body={"input_file_id": "file-never"}, cast_to=object)


def test_quota_check_takes_lines_as_well_and_keeps_nothing(gateway: Served) -> None:
    """Without an upload: the problems by line, the tokens, what fits."""
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}]}
    good = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    kept = sorted(path.name for path in (gateway.state / "inputs").iterdir())
    http, headers = gateway.client()._client, {"api-key": gateway.key}
    answer = http.post(
        f"{gateway.url}/v1/quota/check", json={"lines": [good, {"custom_id": "b"}]}, headers=headers
    ).json()

    assert (answer["requests"], answer["problem_count"]) == (2, 1)
    assert (answer["problems"][0]["line"], answer["problems"][0]["code"]) == (2, "missing_required_parameter")
    assert answer["tokens"] > 5 and "gpt-4.1" in answer["deployments"]
    assert sorted(path.name for path in (gateway.state / "inputs").iterdir()) == kept
    assert http.post(f"{gateway.url}/v1/quota/check", json={"lines": "x"}, headers=headers).status_code == 400
