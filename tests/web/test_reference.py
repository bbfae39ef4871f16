"""The OpenAPI document says what the gateway does: every operation is there, and generated calls get what it promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import hypothesis
import jsonschema_rs
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sluicegate.web.app import make_app
from sluicegate.web.metrics import Metrics
from sluicegate.web.reference import OPERATIONS, SCHEMAS, document
from tests.web.conftest import Served

CHECKS = [
    schemathesis.checks.not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
]  # fmt: skip


def app() -> FastAPI:
    gateway: Any = type("Bare", (), {"metrics": Metrics()})()
    return make_app(gateway)


def test_every_operation_is_described_with_examples_that_fit_and_errors() -> None:
    """A new endpoint cannot be forgotten, and an example cannot lie."""
    made = document(app())
    found = {(method, path) for path, methods in made["paths"].items() for method in methods}
    assert found == set(OPERATIONS)
    ids = [shown["operationId"] for methods in made["paths"].values() for shown in methods.values()]
    assert len(set(ids)) == len(ids)
    for what in OPERATIONS.values():
        if what.gives in SCHEMAS:
            jsonschema_rs.validate({"$ref": f"#/components/schemas/{what.gives}"} | made, what.example)
        if what.body is not None:
            jsonschema_rs.validate(what.body, what.sent)
        assert what.open or what.errors or what.gives in ("Models", "Quotas")


def test_the_page_needs_nothing_from_elsewhere(gateway: Served) -> None:
    """No script, no address of another host; every operation and its errors are on it."""
    answer = httpx2.get(f"{gateway.url}/docs")
    assert answer.status_code == 200 and answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in answer.text and "http://" not in answer.text and "https://" not in answer.text
    for method, path in OPERATIONS:
        assert f"{method.upper()}</span> <code>{path}</code>" in answer.text
    assert "retry-after" in answer.text


SCHEMA = schemathesis.openapi.from_dict(document(app()))
LABELS = [result.ok() for result in SCHEMA.get_all_operations()]


@pytest.fixture(scope="module")
def things(gateway: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A file, a batch and an upload that exist."""
    client = gateway.client()
    path: Path = tmp_path_factory.mktemp("reference") / "in.jsonl"
    path.write_text(
        '{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "gpt-4.1", "messages": '
        '[{"role": "user", "content": "hi"}]}}'
    )
    file = client.files.create(file=path, purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    upload = client.uploads.create(bytes=1, filename="in.jsonl", mime_type="application/jsonl", purpose="batch")
    return {"files": file.id, "batches": batch.id, "uploads": upload.id}


@pytest.mark.parametrize("operation", LABELS, ids=lambda operation: operation.label)
def test_generated_calls_get_what_the_document_promises(
    gateway: Served, things: dict[str, str], operation: Any
) -> None:  # fmt: skip
    """Right and wrong calls, half of them of things that exist: statuses, types and shapes as described."""
    wrong: Callable[..., Any] = operation.as_strategy

    @hypothesis.settings(
        max_examples=15, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=wrong() | wrong(generation_mode=schemathesis.GenerationMode.NEGATIVE), known=st.booleans())
    def probe(case: schemathesis.Case, known: bool) -> None:
        if known and "id" in case.path_parameters:
            case.path_parameters["id"] = things[operation.path.split("/")[2]]
        case.call_and_validate(
            base_url=gateway.url, headers={"authorization": f"Bearer {gateway.key}"}, checks=CHECKS, timeout=30
        )

    probe()
