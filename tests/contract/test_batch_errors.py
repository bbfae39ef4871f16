"""Every error that a batch can end with, as the providers word it: F§5.2 (Azure) and F§5.3 (OpenAI), row by row."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.contract.conftest import DEPLOYMENTS, Ordered
from tests.contract.target import NO_MODEL, OTHER_MODEL, Surface, packed

Order = Callable[..., Ordered]
NO_NAME = (
    "Validation failed: A valid model deployment name couldn't be extracted from the input file. Please ensure that each "
    "row in the input file has a valid deployment name specified in the 'model' field, and that the deployment name is "
    "consistent across all rows."
)
EMPTY = "The input file is empty. Please ensure that the batch contains at least one request."


@dataclass(frozen=True)
class Row:
    """A row of the facts: an input file, and the error with which its batch fails.

    Attributes:
        code, message: A pattern for the whole text; None where no source gives it. ``param``, ``line``: where the sources say.
    """

    row: str
    content: Callable[[Surface], bytes]
    code: str | None
    message: str | None = None
    param: str | None = None
    line: int | None = None
    url: str | None = None

    def __str__(self) -> str:
        """The test's id: pytest escapes what is not ASCII."""
        return self.row.replace("§", "")


def literal(text: str) -> str:
    return re.escape(text)


AZURE_ROWS = [
    Row("F§5.2 invalid_json_line: a line is not JSON", lambda s: b"{no json\n", "invalid_json_line"),
    Row("F§5.2 too_many_tasks: more than 100,000 lines; F§3.1 lines per file",
        lambda s: b"".join(s.line(str(i), "a") for i in range(100_001)), "too_many_tasks"),
    Row("F§5.2 url_mismatch: not that of the others",
        lambda s: s.line("a", url="/v1/chat/completions") + s.line("b", url="/v1/responses"), "url_mismatch"),
    Row("F§5.2 url_mismatch: not that of the batch",
        lambda s: s.line("a", url="/v1/responses", input="hello", messages=None), "url_mismatch"),
    Row("F§5.2 model_not_found: deployment not found", lambda s: s.line(model=NO_MODEL), "model_not_found"),
    Row("F§5.2 model_mismatch: lines name different deployments; F§3.1 models per file",
        lambda s: s.line("a") + s.line("b", model=OTHER_MODEL), "model_mismatch"),
    Row("F§5.2 duplicate_custom_id: custom_id repeated", lambda s: s.line("a") + s.line("a"), "duplicate_custom_id"),
    Row("F§5.2 empty_file", lambda s: b"", "empty_file", literal(EMPTY)),
    Row("F§5.2 empty_batch is the older name: a file of blank lines is an empty file",
        lambda s: b"\n\n", "empty_file", literal(EMPTY)),
    *(Row(f"F§5.2 invalid_request: bad schema, no {name}", lambda s, name=name: s.line_without(name), "invalid_request")
      for name in ("custom_id", "method", "url", "body")),
    Row("F§5.2 invalid_request: bad schema, a number for an id",
        lambda s: packed({"custom_id": 1, "method": "POST", "url": s.endpoint, "body": {}}), "invalid_request"),
    Row("F§1.7 invalid_request: only POST", lambda s: s.line().replace(b'"POST"', b'"GET"'), "invalid_request"),
    Row("F§1.7 streaming is refused", lambda s: s.line(stream=True), "invalid_request"),
    Row("F§5.2 BOM: no deployment name is found", lambda s: b"\xef\xbb\xbf" + s.line(), None,
        literal(NO_NAME)),
    Row("F§5.2 no model: no deployment name is found", lambda s: s.line(model=None), None,
        literal(NO_NAME)),
    Row("F§3.1 embeddings: not supported in batch",
        lambda s: s.line(url="/v1/embeddings", input="hello", messages=None), "invalid_request", url="/v1/embeddings"),
]  # fmt: skip

OPENAI_ROWS = [
    Row("F§5.3 bad JSON line", lambda s: s.line("a") + b"{no json\n", "invalid_json_line",
        literal("This line is not parseable as valid JSON."), line=2),
    *(Row(f"F§5.3 missing {name}", lambda s, name=name: s.line("a") + s.line_without(name),
          "missing_required_parameter", literal(f"Missing required parameter: '{name}'."), param=name, line=2)
      for name in ("custom_id", "method", "url", "body")),
    Row("F§5.3 url ≠ endpoint", lambda s: s.line(url="/v1/embeddings", input="a", messages=None), "invalid_url",
        literal("The URL provided for this request does not match the batch endpoint."), param="url", line=1),
    Row("F§1.7 url ≠ endpoint by a character", lambda s: s.line(url="/chat/completions"), "invalid_url",
        literal("The URL provided for this request does not match the batch endpoint."), param="url", line=1),
    Row("F§5.3 stream true", lambda s: s.line(stream=True), "streaming_unsupported",
        literal("Chat Completions: Streaming is not supported in the Batch API."), param="body.stream", line=1),
    Row("F§5.3 model unusable", lambda s: s.line(model=NO_MODEL), "model_not_found",
        literal(f"The provided model '{NO_MODEL}' is not supported by the Batch API."), param="body.model", line=1),
    Row("F§5.3 model missing", lambda s: s.line(model=None), "invalid_request", literal("Model parameter is required."),
        line=1),
    Row("F§5.3 messages missing", lambda s: s.line(messages=None), "invalid_request",
        literal("Messages parameter is required."), line=1),
    Row("F§5.3 duplicate id", lambda s: s.line("dup") + s.line("dup"), "duplicate_custom_id",
        r"The custom_id 'dup' is not unique.*", line=2),
    Row("F§5.3 empty file", lambda s: b"", "empty_file"),
    Row("F§5.3 several models in a file; F§3.1 models per file", lambda s: s.line("a") + s.line("b", model=OTHER_MODEL),
        "mismatched_model"),
    Row("F§3.1 lines per file: more than 50,000", lambda s: b"".join(s.line(str(i), "a") for i in range(50_001)),
        "too_many_tasks"),
    Row("F§3.1 embeddings: more than 50,000 inputs in a batch",
        lambda s: b"".join(s.line(str(i), model="text-embedding-3-small", url="/v1/embeddings", messages=None,
                                  input=["a"] * 2_000) for i in range(26)),
        "too_many_tasks", url="/v1/embeddings"),
]  # fmt: skip


def holds(
    batch: dict[str, Any], code: str, message: str | None, param: str | None = None, line: int | None = None
) -> None:
    """The batch failed with this error, in the form of F§5.1."""
    assert batch["status"] == "failed"
    assert batch["errors"]["object"] == "list"
    error = batch["errors"]["data"][0]
    assert set(error) == {"code", "message", "param", "line"}
    assert isinstance(error["code"], str)
    assert error["code"] == (code or error["code"])
    assert isinstance(error["message"], str)
    assert error["message"]
    if message is not None:
        assert re.fullmatch(message, error["message"]), error["message"]
    if param is not None:
        assert error["param"] == param
    if line is not None:
        assert error["line"] == line
    # F§2.4: a failed batch normally has neither file.
    assert not batch["output_file_id"]
    assert not batch["error_file_id"]


def fails(surface: Surface, row: Row) -> None:
    """Everything about content shows in ``validating``, never at the upload or the create (F§5.3)."""
    fields = {"endpoint": row.url} if row.url else {}
    holds(surface.run(row.content(surface), **fields), row.code, row.message, row.param, row.line)


@pytest.mark.parametrize("row", AZURE_ROWS, ids=str)
def test_azure_batch_error(azure_surface: Surface, row: Row) -> None:
    """Azure's table of batch-level codes."""
    fails(azure_surface, row)


@pytest.mark.parametrize("row", OPENAI_ROWS, ids=str)
def test_openai_batch_error(openai_surface: Surface, row: Row) -> None:
    """OpenAI's batch-level codes with their texts, parameters and lines."""
    fails(openai_surface, row)


def test_f5_3_file_missing(openai_surface: Surface) -> None:
    """F§5.3 file missing: the create succeeds, the batch fails."""
    batch = openai_surface.wait(openai_surface.create("file-none")["id"])

    text = r"Cannot find file file-none, or organization \S+ does not have access to it\."
    holds(batch, "invalid_request", text, param="file_id")


def test_f1_6_completion_window_other_than_24h_fails_the_job(azure_surface: Surface) -> None:
    """F§1.6: on Azure no HTTP 400, the job fails."""
    batch = azure_surface.run(azure_surface.line(), completion_window="48h")

    assert batch["status"] == "failed"


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", ["azure", "azure-v1"])
def test_f5_2_invalid_request_for_a_deployment_that_is_no_batch_deployment(ordered: Order, name: str) -> None:
    """F§5.2 invalid_request: the deployment's SKU is not a batch SKU."""
    surface = ordered(name, deployments=DEPLOYMENTS).surface

    holds(surface.run(surface.line(model="standard-4.1")), "invalid_request", None)


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", ["azure", "azure-v1"])
def test_f5_2_token_limit_exceeded_after_validating(ordered: Order, name: str) -> None:
    """F§5.2 token_limit_exceeded, batch level: the literal text, line and param null."""
    made = ordered(name, limit="30K", deployments={"gpt-4.1-batch": 30_000})
    made.provider.others_hold("30K", listed=False)
    batch = made.surface.run(made.surface.line(model="gpt-4.1-batch"))

    assert batch["errors"] == {
        "object": "list",
        "data": [
            {
                "code": "token_limit_exceeded",
                "message": "The number of enqueued tokens has surpassed the configured limit of 30K for the deployment "
                "'gpt-4.1-batch'. Please either increase the limit or try again once the current jobs have finished.",
                "line": None,
                "param": None,
            }
        ],
    }
    assert batch["status"] == "failed"


@pytest.mark.emulator_only
def test_f5_3_queue_full(ordered: Order) -> None:
    """F§5.3 queue full: create gives 200, then failed; line and param null, commas in the number."""
    made = ordered("openai", limit="90K")
    made.provider.others_hold("90K", deployment="gpt-4.1", listed=False)
    answer = made.surface.post_batch(made.surface.upload(made.surface.line()))
    batch = made.surface.wait(answer.json()["id"])

    assert answer.status_code == 200
    text = (
        r"Enqueued token limit reached for gpt-4\.1 in organization \S+\. Limit: 90,000 enqueued tokens\. "
        r"Please try again once some in_progress batches have been completed\."
    )
    holds(batch, "token_limit_exceeded", text)
    assert batch["errors"]["data"][0]["line"] is batch["errors"]["data"][0]["param"] is None


@pytest.mark.emulator_only
def test_f5_3_embedding_request_queue_full(ordered: Order) -> None:
    """F§5.3 embedding request queue full, F§3.1: 1,000,000 enqueued requests of a model."""
    made = ordered("openai", start="1h")
    embed = made.surface.line(model="text-embedding-3-small", url="/v1/embeddings", messages=None, input=["a"] * 2_000)
    content = b"".join(embed.replace(b'"a",', f'"{i}",'.encode(), 1) for i in range(25))
    file_id = made.surface.upload(content)
    for _ in range(20):
        batch = made.surface.create(file_id, endpoint="/v1/embeddings")
        assert made.surface.wait(batch["id"], "in_progress", "failed")["status"] == "in_progress"
    over = made.surface.wait(made.surface.create(file_id, endpoint="/v1/embeddings")["id"])

    text = (
        r"Enqueued request limit reached for text-embedding-3-small in organization \S+\. Limit: 1,000,000 enqueued "
        r"requests\. Please try again once some in_progress batches have been completed\."
    )
    assert re.fullmatch(text, over["errors"]["data"][0]["message"])


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", ["azure", "azure-v1"])
def test_f5_2_input_no_permissions(ordered: Order, name: str, tmp_path: Any) -> None:
    """F§5.2 input_no_permissions: the blob cannot be read."""
    surface = ordered(name, blobs=str(tmp_path)).surface
    url = "https://store.blob.core.windows.net"
    body = {
        "input_blob": f"{url}/in/none.jsonl", "output_folder": {"url": f"{url}/out"}, "endpoint": surface.endpoint,
        "completion_window": "24h",
    }  # fmt: skip
    answer = surface.call("POST", "/batches", json=body)
    assert answer.status_code in (200, 201), answer.text

    holds(surface.wait(answer.json()["id"]), "input_no_permissions", None)


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", ["azure", "azure-v1"])
def test_f5_2_input_modified(ordered: Order, name: str, tmp_path: Any) -> None:
    """F§5.2 input_modified: the blob changed during the job."""
    made = ordered(name, blobs=str(tmp_path), clock="hand")
    blob = tmp_path / "store" / "in" / "requests.jsonl"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(made.surface.line())
    url = "https://store.blob.core.windows.net"
    body = {
        "input_blob": f"{url}/in/requests.jsonl", "output_folder": {"url": f"{url}/out"}, "completion_window": "24h",
        "endpoint": made.surface.endpoint,
    }  # fmt: skip
    batch_id = made.surface.call("POST", "/batches", json=body).json()["id"]
    blob.write_bytes(made.surface.line(text="something else and longer"))
    made.provider.until_idle()
    batch = made.surface.get(batch_id)

    assert batch["status"] == "failed"
    assert batch["errors"]["data"][0]["code"] == "input_modified"


@pytest.mark.emulator_only
def test_f5_3_too_large_for_a_model(ordered: Order) -> None:
    """F§5.3 too large for a model: a file may be uploaded that no batch takes (F§3.1: 200 MB against 512 MB)."""
    surface = ordered("openai", file_bytes_max=1_000).surface
    batch = surface.run(surface.line("a", "x" * 2_000, model="gpt-4.1-nano"))

    text = literal("The batch input file is larger than the 1000 maximum for the gpt-4.1-nano model")
    holds(batch, "invalid_request", text)


@pytest.mark.slow
def test_f5_3_too_large_for_a_model_by_the_literal_number(openai_surface: Surface) -> None:
    """F§5.3, F§3.1 file size: 209,715,200 bytes; the second line is long and no JSON, so nobody counts its tokens."""
    batch = openai_surface.run(openai_surface.line(model="gpt-4.1-nano") + b"x" * 209_715_200)

    assert batch["status"] == "failed"
    assert batch["errors"]["data"][0]["message"] == (
        "The batch input file is larger than the 209715200 maximum for the gpt-4.1-nano model"
    )
