"""Every HTTP error, in the envelope of its dialect: F§5.1, and the HTTP rows of F§5.2 and F§5.3."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.contract.conftest import DEPLOYMENTS, Ordered
from tests.contract.target import Surface

Order = Callable[..., Ordered]
AZURES = ["azure", "azure-v1"]
SURFACES = ["openai", *AZURES]


def error_of(surface: Surface, answer: httpx2.Response) -> dict[str, Any]:
    """The error in the surface's envelope (F§5.1)."""
    assert answer.headers["content-type"].startswith("application/json")
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    if surface.dated:
        assert {"code", "message"} <= set(error) <= {"code", "message", "details", "innererror", "target"}
        assert isinstance(error["code"], str)
    else:
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["type"], str)
        assert error["param"] is None or isinstance(error["param"], str)
        assert error["code"] is None or isinstance(error["code"], str)
    assert isinstance(error["message"], str)
    assert error["message"]
    return error


# -- F§5.2: Azure ------------------------------------------------------------------------------------------------------


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", AZURES)
def test_f5_2_create_while_file_pending(ordered: Order, name: str) -> None:
    """HTTP 400 with the literal text."""
    made = ordered(name, pending="1h")
    uploaded = made.surface.post_file(made.surface.line()).json()
    answer = made.surface.post_batch(uploaded["id"])

    assert uploaded["status"] == "pending"
    assert answer.status_code == 400
    assert error_of(made.surface, answer)["message"] == (
        f"The input file '{uploaded['id']}' is in 'pending' state. Only files with status 'Processed' are accepted for "
        "batch inferencing. Please check the file status and try again"
    )


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", AZURES)
def test_f5_2_upload_past_500(ordered: Order, name: str) -> None:
    """HTTP 400 quotaExceeded with the literal text; F§3.1: 500 input files per resource without expiry."""
    made = ordered(name)
    with ThreadPoolExecutor(20) as pool:
        statuses = {answer.status_code for answer in pool.map(made.surface.post_file, [b""] * 500)}
    answer = made.surface.post_file(b"")
    error = error_of(made.surface, answer)

    assert statuses <= {200, 201}
    assert answer.status_code == 400
    assert error["code"] == "quotaExceeded"
    assert error["message"] == "The quota for files without expiry is reached. The maximum is 500."


@pytest.mark.parametrize("version", ["2023-05-15", "2024-02-01", "2024-06-01"])
def test_f5_2_upload_with_an_old_api_version(dated_surface: Surface, version: str) -> None:
    """HTTP 400 invalidPayload: batches came with 2024-07-01-preview (F§1.2)."""
    form = {"data": {"purpose": "batch"}, "files": {"file": ("in.jsonl", dated_surface.line())}}
    answer = dated_surface.call("POST", "/files", api_version=version, **form)
    error = error_of(dated_surface, answer)

    assert answer.status_code == 400
    assert error["code"] == "invalidPayload"
    assert error["message"] == "Invalid value for purpose."


@pytest.mark.parametrize("version", ["2024-07-01-preview", "2024-10-21", "2025-04-01-preview"])
def test_f1_2_versions_that_have_batches(dated_surface: Surface, version: str) -> None:
    """The first, the last GA and the last dated preview."""
    assert dated_surface.call("GET", "/batches", api_version=version).status_code == 200


def test_f5_2_sync_chat_against_a_batch_deployment(azure_surface: Surface) -> None:
    """HTTP 400 OperationNotSupported, on the path of the deployment or with the model in the body."""
    model = azure_surface.target.model
    path = f"/deployments/{model}/chat/completions" if azure_surface.dated else "/chat/completions"
    answer = azure_surface.call("POST", path, json={"model": model, "messages": [{"role": "user", "content": "hello"}]})
    error = error_of(azure_surface, answer)

    assert answer.status_code == 400
    assert error["code"] == "OperationNotSupported"
    assert error["message"].startswith("The chatCompletion operation does not work with the specified model, ")


@pytest.mark.parametrize("path", ["/deployments/gone/chat/completions", "/deployments/gone/batches"])
def test_f5_2_wrong_path_or_fresh_deployment(dated_surface: Surface, path: str) -> None:
    """HTTP 404 DeploymentNotFound with the text's literal beginning."""
    answer = dated_surface.call("POST", path, json={"messages": []})
    error = error_of(dated_surface, answer)

    assert answer.status_code == 404
    assert error["code"] == "DeploymentNotFound"
    assert error["message"].startswith(
        "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes"
    )


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", SURFACES)
def test_f5_2_throttled(ordered: Order, name: str) -> None:
    """HTTP 429 with both retry headers."""
    made = ordered(name)
    made.provider.fault("list", "429")
    answer = made.surface.call("GET", "/batches")
    error_of(made.surface, answer)

    assert answer.status_code == 429
    assert float(answer.headers["retry-after"]) > 0
    assert float(answer.headers["retry-after-ms"]) > 0
    assert made.surface.call("GET", "/batches").status_code == 200


CALLS = [
    ("GET", "/files"), ("POST", "/files"), ("GET", "/files/f"), ("DELETE", "/files/f"), ("GET", "/files/f/content"),
    ("GET", "/batches"), ("POST", "/batches"), ("GET", "/batches/b"), ("POST", "/batches/b/cancel"), ("POST", "/uploads"),
]  # fmt: skip


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", SURFACES)
def test_f5_2_bad_key(ordered: Order, name: str) -> None:
    """HTTP 401 from every call, before anything else is looked at.

    The authoring reference says ``unauthorized``; the gateway before the service answers "401" (docs/contract.md).
    """
    surface = ordered(name, keys=["right"]).surface
    wrong = {"api-key": "wrong"} if surface.dated else {"authorization": "Bearer wrong"}
    codes = set()
    for verb, path in CALLS:
        answer = surface.call(verb, path, headers=wrong)
        assert answer.status_code == 401, (verb, path)
        codes.add(error_of(surface, answer)["code"])
    accepted = surface.call("GET", "/batches", headers={"api-key": "right", "authorization": "Bearer right"})

    assert codes <= ({"401", "unauthorized"} if surface.azure else {"invalid_api_key"})
    assert accepted.status_code == 200


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", SURFACES)
def test_f5_1_forbidden(ordered: Order, name: str) -> None:
    """HTTP 403 for who may only read."""
    surface = ordered(name, keys=["right"], read_only_keys=["any"]).surface
    answer = surface.call("POST", "/batches", json={})
    error_of(surface, answer)

    assert answer.status_code == 403
    assert surface.call("GET", "/batches").status_code == 200


FAIL_FAST = [
    "australiaeast", "eastus", "eastus2", "germanywestcentral", "italynorth", "northcentralus", "polandcentral",
    "swedencentral", "switzerlandnorth", "westus",
]  # fmt: skip


@pytest.mark.emulator_only
@pytest.mark.parametrize("region", FAIL_FAST)
def test_f5_2_fail_fast(ordered: Order, region: str) -> None:
    """HTTP 400 at create with the code in the error; no batch is made; the surfaces alike."""
    for name in AZURES:
        surface = ordered(name, region=region, limit="30K").surface
        answer = surface.post_batch(surface.upload(surface.line(text="word " * 40_000)))
        error = error_of(surface, answer)

        assert answer.status_code == 400
        assert error["code"] == "token_limit_exceeded"
        assert surface.call("GET", "/batches").json()["data"] == []


@pytest.mark.emulator_only
@pytest.mark.parametrize("region", ["westeurope", "uksouth", "japaneast"])
def test_f5_2_elsewhere_it_fails_late(ordered: Order, region: str) -> None:
    """Outside of the ten regions: create succeeds, then failed."""
    surface = ordered("azure", region=region, limit="30K").surface
    batch = surface.run(surface.line(text="word " * 40_000))

    assert batch["errors"]["data"][0]["code"] == "token_limit_exceeded"


@pytest.mark.emulator_only
def test_f5_2_the_later_failure_happens_in_fail_fast_regions_too(ordered: Order) -> None:
    """The count at create is by characters; what is more by tokens fails after validating (F§4.1)."""
    surface = ordered("azure", region="eastus", limit=3_000).surface
    batch = surface.run(surface.line(text="漢字仮名" * 2_500))

    assert batch["errors"]["data"][0]["code"] == "token_limit_exceeded"


# -- F§5.3: OpenAI -----------------------------------------------------------------------------------------------------


def test_f5_3_endpoint_not_allowed(openai_surface: Surface) -> None:
    """HTTP 400 invalid_value with the literal beginning, param endpoint."""
    answer = openai_surface.post_batch("file-any", endpoint="/v1/invalid/endpoint")
    error = error_of(openai_surface, answer)

    assert answer.status_code == 400
    assert (error["code"], error["param"]) == ("invalid_value", "endpoint")
    assert error["message"].startswith("Invalid value: '/v1/invalid/endpoint'. Supported values are: ")
    for url in ("/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/v1/completions", "/v1/moderations",
                "/v1/images/generations", "/v1/images/edits", "/v1/videos"):  # fmt: skip
        assert f"'{url}'" in error["message"]


@pytest.mark.emulator_only
def test_f5_3_file_missing_right_after_upload(ordered: Order) -> None:
    """HTTP 400 with the literal text, seen under many creates at once; the same create succeeds a moment later."""
    made = ordered("openai")
    made.provider.fault("create", "file_missing")
    file_id = made.surface.upload(made.surface.line())
    answer = made.surface.post_batch(file_id)
    error = error_of(made.surface, answer)

    assert answer.status_code == 400
    assert error["param"] == "file_id"
    assert error["message"].startswith(f"Cannot find file {file_id}, or organization ")
    assert error["message"].endswith(" does not have access to it.")
    assert made.surface.post_batch(file_id).status_code == 200


@pytest.mark.parametrize("window", ["48h", "1h", "", None, 24])
def test_f5_3_completion_window_wrong(openai_surface: Surface, window: Any) -> None:
    """HTTP 400."""
    answer = openai_surface.post_batch("file-any", completion_window=window)
    error_of(openai_surface, answer)

    assert answer.status_code == 400


@pytest.mark.parametrize(("value", "code", "message"), [
    (None, "missing_required_parameter", "Missing required parameter: 'input_file_id'."),
    (7, "invalid_type", "Invalid type for 'input_file_id': expected a string, but got an integer instead."),
    (["file-any"], "invalid_type", "Invalid type for 'input_file_id': expected a string, but got an array instead."),
])  # fmt: skip
def test_f1_6_input_file_id_is_required(surface: Surface, value: Any, code: str, message: str) -> None:
    """HTTP 400, no batch; OpenAI's words for what is missing or of a wrong type, the codes are those of other fields."""
    body = {"endpoint": surface.endpoint, "completion_window": "24h"} | (
        {} if value is None else {"input_file_id": value}
    )
    answer = surface.call("POST", "/batches", json=body)
    error = error_of(surface, answer)

    assert answer.status_code == 400
    if not surface.azure:
        assert (error["code"], error["message"], error["param"]) == (code, message, "input_file_id")


@pytest.mark.parametrize(
    ("value", "kind"),
    [(["x"], "an array"), ({"x": "y"}, "an object"), (1, "an integer"), (1.5, "a decimal"), (True, "a boolean")],
)
def test_f5_3_metadata_wrong_type(openai_surface: Surface, value: Any, kind: str) -> None:
    """HTTP 400 invalid_type with the literal text."""
    answer = openai_surface.post_batch("file-any", metadata={"tags": value})
    error = error_of(openai_surface, answer)

    assert answer.status_code == 400
    assert error["code"] == "invalid_type"
    assert error["message"] == f"Invalid type for 'metadata.tags': expected a string, but got {kind} instead."


@pytest.mark.parametrize("filename", ["in.txt", "in.csv", "in.json"])
def test_f5_3_upload_not_jsonl(openai_surface: Surface, filename: str) -> None:
    """HTTP 400 with the literal text."""
    answer = openai_surface.post_file(openai_surface.line(), name=filename)

    assert answer.status_code == 400
    assert error_of(openai_surface, answer)["message"] == "Invalid file format for Batch API. Must be .jsonl"


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", SURFACES)
def test_f5_3_upload_too_large(ordered: Order, name: str) -> None:
    """HTTP 400 "File is too large."; nothing is kept."""
    surface = ordered(name, upload_bytes_max=1_000).surface
    assert surface.post_file(b"x" * 1_000).status_code in (200, 201)
    answer = surface.post_file(b"x" * 1_001)

    assert answer.status_code == 400
    assert error_of(surface, answer)["message"] == "File is too large."
    assert len(surface.call("GET", "/files").json()["data"]) == 1


@pytest.mark.slow
def test_f3_1_file_size_by_the_literal_number(azure_surface: Surface) -> None:
    """F§3.1 file size: 200 MB (209,715,200 bytes) is the most that may be uploaded on Azure."""
    answer = azure_surface.post_file(b"x" * 209_715_201)

    assert answer.status_code == 400
    assert error_of(azure_surface, answer)["message"] == "File is too large."


def test_f5_3_unknown_batch_id(surface: Surface) -> None:
    """HTTP 404 "No batch found…", for a look and for a cancel."""
    for answer in (surface.call("GET", "/batches/batch_none"), surface.call("POST", "/batches/batch_none/cancel")):
        assert answer.status_code == 404
        assert error_of(surface, answer)["message"].startswith("No batch found")


def test_f5_1_not_found_for_files_and_uploads(surface: Surface) -> None:
    """HTTP 404 in the envelope of the surface, whatever is asked of a thing that is not there."""
    for verb, path in (
        ("GET", "/files/file-none"), ("DELETE", "/files/file-none"), ("GET", "/files/file-none/content"),
        ("POST", "/uploads/upload_none/cancel"),
    ):  # fmt: skip
        answer = surface.call(verb, path)
        assert answer.status_code == 404, path
        error_of(surface, answer)


def test_f5_3_cancel_a_completed_batch(surface: Surface) -> None:
    """HTTP 409 with the literal text."""
    batch = surface.run(surface.line())
    answer = surface.call("POST", f"/batches/{batch['id']}/cancel")

    assert answer.status_code == 409
    assert error_of(surface, answer)["message"] == "Cannot cancel a batch with status 'completed'."


def test_f5_3_cancel_a_failed_batch(surface: Surface) -> None:
    """HTTP 409 with the literal text."""
    batch = surface.run(b"")
    answer = surface.call("POST", f"/batches/{batch['id']}/cancel")

    assert answer.status_code == 409
    assert error_of(surface, answer)["message"] == "Cannot cancel a batch with status 'failed'."


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", SURFACES)
def test_f5_3_cancel_on_cancelled_is_accepted(ordered: Order, name: str) -> None:
    """HTTP 200, the batch unchanged."""
    made = ordered(name, clock="hand")
    batch_id = made.surface.create(made.surface.upload(made.surface.line()))["id"]
    assert made.surface.call("POST", f"/batches/{batch_id}/cancel").json()["status"] == "cancelling"
    made.provider.until_idle()
    before = made.surface.get(batch_id)
    answer = made.surface.call("POST", f"/batches/{batch_id}/cancel")

    assert answer.status_code == 200
    assert answer.json() == before
    assert before["status"] == "cancelled"


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", SURFACES)
def test_f5_3_a_429_of_a_line_is_in_the_error_file(ordered: Order, name: str) -> None:
    """F§5.3, last line: a line inside a batch may meet a 429, which may be tried again."""
    made = ordered(name, deployments=DEPLOYMENTS)
    made.provider.fault("line", "429")
    batch = made.surface.run(made.surface.line("a") + made.surface.line("b"))

    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    assert made.surface.lines(batch["error_file_id"])["a"]["response"]["status_code"] == 429


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'"x"', b"\xff\xfe"])
def test_f5_1_a_body_that_is_no_object(surface: Surface, body: bytes) -> None:
    """HTTP 400 in the envelope, never 500."""
    for path in ("/batches", "/uploads"):
        answer = surface.call("POST", path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        error_of(surface, answer)


def test_f5_1_a_path_that_is_none(surface: Surface) -> None:
    """HTTP 404 in the envelope."""
    answer = surface.call("GET", "/nothing")

    assert answer.status_code == 404
    error_of(surface, answer)
