"""Names that clients use, and the deployments behind them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from sluicegate.testing import local_emulator
from tests.web.conftest import Served, until_ended

QUICK: dict[str, Any] = {"validating": 0.1, "start": 0.1, "finalizing": 0.1}
NAMES = {"gpt-4.1": "batch-one", "small": "batch-two", "also-small": "batch-two"}
GHOSTS = {"ghost": "nope-secret-deployment", "spectre": "nope-secret-deployment"}


def echo(line: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """A provider that repeats the name that it was sent."""
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": '{"model": "batch-two"}'},
    }
    return 200, {"id": "x", "object": "chat.completion", "model": line["body"]["model"], "choices": [choice]}


def line(custom_id: str, model: str) -> str:
    body = {"messages": [{"role": "user", "content": "hello"}], "model": model}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body})


def batch_of(client: Any, *models: str) -> Any:
    content = "\n".join(line(str(i), model) for i, model in enumerate(models)).encode()
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    return until_ended(client, batch)[0]


@pytest.fixture(scope="module")
def two() -> Iterator[Any]:
    """A provider with two deployments and nothing else."""
    with local_emulator(deployments={"batch-one": {}, "batch-two": {}}, answers=echo, **QUICK) as provider:
        yield provider


@pytest.fixture(scope="module")
def named(two: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with names of its own."""
    options = ("--set", f"gateway_models={json.dumps(NAMES)}")
    served = Served(two.url, tmp_path_factory.mktemp("named"), options).start()
    yield served
    served.end()


def test_lines_go_to_the_deployment_behind_their_name_and_come_back_under_it(named: Served, two: Any) -> None:
    """Three names, two deployments, one file; what stands in the answer's text is left alone."""
    client = named.client()
    wanted = ["gpt-4.1", "small", "also-small", "small", "gpt-4.1"]
    ended = batch_of(client, *wanted)

    results = [json.loads(text) for text in client.files.content(ended.output_file_id).text.splitlines()]
    assert ended.status == "completed"
    assert [one["response"]["body"]["model"] for one in results] == wanted
    assert {one["response"]["body"]["choices"][0]["message"]["content"] for one in results} == {
        '{"model": "batch-two"}'
    }
    assert set(two.report()["deployments"]) == {"batch-one", "batch-two"}


def test_an_unknown_name_is_an_error_with_its_lines(named: Served) -> None:
    """In OpenAI's words, found before anything is sent."""
    ended = batch_of(named.client(), "small", "nobody", "small", "nobody")

    assert ended.status == "failed" and ended.output_file_id is None and ended.error_file_id is None
    assert [(e.code, e.line, e.param) for e in ended.errors.data] == [
        ("model_not_found", 2, "body.model"), ("model_not_found", 4, "body.model"),
    ]  # fmt: skip
    assert ended.errors.data[0].message == "The provided model 'nobody' is not supported by the Batch API."


@pytest.fixture(scope="module")
def haunted(two: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway whose operator named deployments that are not there."""
    options = ("--set", f"gateway_models={json.dumps(NAMES | GHOSTS)}")
    served = Served(two.url, tmp_path_factory.mktemp("haunted"), options).start()
    yield served
    served.end()


def test_requests_for_a_deployment_that_is_not_there_end_and_the_others_are_answered(haunted: Served) -> None:
    """Errors under the client's names with their lines; the operator's name is shown nowhere; nothing is tried again."""
    client = haunted.client()
    ended = batch_of(client, "small", "ghost", "gpt-4.1", "spectre", "ghost")

    answered = [json.loads(text) for text in client.files.content(ended.output_file_id).text.splitlines()]
    errors = client.files.content(ended.error_file_id).text
    assert ended.status == "completed" and [one["custom_id"] for one in answered] == ["0", "2"]
    lines = [json.loads(text) for text in errors.splitlines()]
    assert [(one["custom_id"], one["error"]["code"]) for one in lines] == [
        (id_, "model_not_found") for id_ in ("1", "3", "4")
    ]
    assert [(e.code, e.line, e.message.split("'")[1]) for e in ended.errors.data] == [
        ("model_not_found", 2, "ghost"), ("model_not_found", 4, "spectre"), ("model_not_found", 5, "ghost"),
    ]  # fmt: skip
    counts = ended.request_counts
    assert (counts.total, counts.completed, counts.failed) == (5, 2, 3)
    assert "secret" not in errors + ended.to_json()
    assert not [text for text in haunted.said if f"batch {ended.id} waits" in text]


def test_a_batch_of_nothing_else_fails_as_at_the_provider(haunted: Served) -> None:
    """Its lines are in the batch's errors, under the client's name, and it has no files."""
    ended = batch_of(haunted.client(), "ghost", "ghost")

    assert ended.status == "failed" and ended.output_file_id is None and ended.error_file_id is None
    assert [(e.code, e.line, e.message) for e in ended.errors.data] == [
        ("model_not_found", line, "The provided model 'ghost' is not supported by the Batch API.") for line in (1, 2)
    ]


def test_the_list_of_models_is_what_may_be_named(named: Served) -> None:
    """``GET /v1/models`` with the SDK, and one of them."""
    client = named.client()

    assert [model.id for model in client.models.list()] == sorted(NAMES)
    assert client.models.retrieve("small").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_without_names_the_provider_says_what_it_does_not_know(two: Any, tmp_path: Path) -> None:
    """The batch fails with the line, and keeps no file; deployments that were used are the models."""
    served = Served(two.url, tmp_path / "state").start()
    try:
        client = served.client()
        ended = batch_of(client, "nobody")

        assert ended.status == "failed" and ended.error_file_id is None
        assert [(e.code, e.line, e.message) for e in ended.errors.data] == [
            ("model_not_found", 1, "The provided model 'nobody' is not supported by the Batch API.")
        ]
        assert batch_of(client, "batch-one").status == "completed"
        assert "batch-one" in [model.id for model in client.models.list()]
    finally:
        served.end()


def test_a_batch_goes_on_with_the_names_of_the_next_start(tmp_path: Path, requests_file: Callable[..., Path]) -> None:
    """What is at the provider comes home; what waits goes to the deployment that the settings name now."""
    with local_emulator(deployments={"old": 5_000, "new": 5_000}, rate=3_000, **QUICK) as provider:
        state = tmp_path / "state"
        served = Served(provider.url, state, ("--set", 'gateway_models={"gpt-4.1": "old"}')).start()
        client = served.client()
        file = client.files.create(file=requests_file(80, words=200), purpose="batch")
        batch: Any = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        while client.batches.retrieve(batch.id).request_counts.completed == 0:
            pass
        key = served.key
        served.end()
        again = Served(provider.url, state, ("--set", 'gateway_models={"gpt-4.1": "new"}')).start()
        again.key = key
        try:
            ended, _ = until_ended(again.client(), batch)
        finally:
            again.end()
        report = provider.report()

    assert ended.status == "completed" and ended.request_counts.completed == 80
    assert report["executed_again"] == 0 and set(report["deployments"]) == {"old", "new"}


def test_reasoning_tokens_are_summed_where_the_answers_have_them(tmp_path: Path) -> None:
    """``usage`` of a batch, as the provider's own batches have it."""

    def thinking(given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        usage = {"prompt_tokens": 9, "completion_tokens": 30, "completion_tokens_details": {"reasoning_tokens": 20}}
        return 200, echo(given)[1] | {"usage": usage}

    with local_emulator(answers=thinking, **QUICK) as provider:
        served = Served(provider.url, tmp_path / "state").start()
        try:
            usage = batch_of(served.client(), "gpt-5", "gpt-5").usage
        finally:
            served.end()

    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (18, 60, 78)
    assert usage.output_tokens_details.reasoning_tokens == 40
