"""What clients read of a batch's problems, in their provider's words; and request ids."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
import pytest

from sluicegate.web.wording import worded
from tests.web.conftest import Served

GOOD = {
    "custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
    "body": {"model": "gpt-4.1", "messages": [{"role": "user", "content": "x"}]},
}  # fmt: skip


def first_error(client: openai.OpenAI, content: bytes) -> Any:
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    deadline = time.monotonic() + 30
    while batch.status != "failed":
        assert time.monotonic() < deadline, batch.status
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    assert batch.errors and batch.errors.data
    return batch.errors.data[0]


def test_a_problem_has_the_providers_text_parameter_and_line(gateway: Served) -> None:
    """F§5.3, over the wire with the official SDK: a broken line, a missing field, an empty file."""
    good = json.dumps(GOOD).encode() + b"\n"
    with gateway.client() as client:
        broken = first_error(client, good + b"{no json\n")
        missing = first_error(client, json.dumps({k: v for k, v in GOOD.items() if k != "method"}).encode())
        empty = first_error(client, b"")

    assert (broken.code, broken.line) == ("invalid_json_line", 2)
    assert broken.message == "This line is not parseable as valid JSON."
    assert (missing.code, missing.param) == ("missing_required_parameter", "method")
    assert empty.code == "empty_file"


def test_a_file_that_is_not_there_fails_the_batch_as_openai_does(gateway: Served) -> None:
    """The create succeeds; nothing ever runs."""
    with gateway.client() as client:
        batch = client.batches.create(
            input_file_id="file-none", endpoint="/v1/chat/completions", completion_window="24h"
        )
    assert batch.status == "failed"
    assert batch.errors and batch.errors.data and batch.errors.data[0].param == "file_id"


def test_azure_has_one_code_for_every_bad_schema() -> None:
    """F§5.2."""
    problem = {"code": "missing_required_parameter", "message": "…", "param": None, "line": 1}
    assert worded(problem, azure=True)["code"] == "invalid_request"
    assert worded(problem | {"code": "duplicate_custom_id"}, azure=True)["code"] == "duplicate_custom_id"


@pytest.mark.parametrize(("given", "kept"), [("abc-1", True), ("a b", False), ("x" * 200, False), ("", False)])
def test_every_answer_has_a_request_id(gateway: Served, given: str, kept: bool) -> None:
    """The client's own if it is harmless; errors have one too."""
    with gateway.client() as client, pytest.raises(openai.NotFoundError) as caught:
        client.files.retrieve("file-none", extra_headers={"x-request-id": given} if given else {})
    name = caught.value.response.headers["x-request-id"]
    assert (name == given) is kept
    assert name
