"""The OpenAPI document says what the gateway does: every operation is there, and generated calls get what it promises."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import hypothesis
import jsonschema_rs
import openai
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
from tests.web.conftest import Served, until_ended

CHECKS = [
    schemathesis.checks.not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
]  # fmt: skip


LINE = (
    b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "gpt-4.1", "messages": '
    b'[{"role": "user", "content": "hi"}]}}'
)


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
    for methods in made["paths"].values():
        for method, shown in methods.items():
            assert method in ("get", "head") or "403" in shown["responses"] or shown["operationId"].startswith("check")
            for status, answer in shown["responses"].items():
                for one in answer.get("content", {}).values():
                    if one["schema"].get("$ref", "").endswith(("Error", "Health")):
                        jsonschema_rs.validate(one["schema"] | made, one["example"])
                assert status in ("200", "206", "416") or answer["content"]["application/json"]["example"]


def test_every_json_object_has_the_described_keys_and_no_others(gateway: Served, tmp_path: Path) -> None:
    """Live answers of all families against the document, and every described key is in some answer."""
    made = document(app())
    seen: dict[str, set[str]] = {}

    def compare(value: Any, schema: dict[str, Any], where: str) -> None:
        where = schema["$ref"].rpartition("/")[2] if "$ref" in schema else where
        for name in [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []:
            schema = made["components"]["schemas"][name]
        if value is not None and "anyOf" in schema:
            compare(value, schema["anyOf"][0], where)
        elif isinstance(value, list):
            for one in value:
                compare(one, schema.get("items", {}), f"{where}[]")
        elif isinstance(value, dict) and "properties" in schema:
            assert set(schema.get("required", ())) <= set(value) <= set(schema["properties"]), where
            seen.setdefault(where, set()).update(value)
            for key, one in value.items():
                compare(one, schema["properties"][key], f"{where}.{key}")
        elif isinstance(value, dict):
            assert "additionalProperties" in schema, f"{where} is not described"
            for one in value.values():
                compare(one, schema["additionalProperties"], f"{where}.*")

    client = gateway.client()
    content = b"\n".join([LINE, b"{", b""])
    mended: dict[str, Any] = {"input_file_id": client.files.create(file=("in.jsonl", LINE), purpose="batch").id}
    broken: dict[str, Any] = {"input_file_id": client.files.create(file=("in.jsonl", content), purpose="batch").id}
    asked: dict[str, Any] = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    good = until_ended(client, client.batches.create(**mended, **asked, metadata={"team": "a"}))[0]
    bad = until_ended(client, client.batches.create(**broken, **asked))[0]
    upload = client.uploads.create(bytes=len(LINE), filename="a", mime_type="application/jsonl", purpose="batch")
    part = client.uploads.parts.create(upload.id, data=LINE)

    def call(method: str, path: str, body: Any = None, *, family: str = "/v1", version: str = "") -> None:
        answer = client._client.request(
            method, f"{gateway.url}{family}{path}{version}", json=body, headers={"api-key": gateway.key}
        )
        assert answer.status_code == 200, answer.text
        template = re.sub(f"{good.id}|{bad.id}|{upload.id}|{mended['input_file_id']}", "{id}", path)
        template = re.sub("gpt-4.1", "{model}" if "models" in path else "{deployment}", template)
        shown = made["paths"][f"/v1{template}"][method.lower()]
        compare(answer.json(), shown["responses"]["200"]["content"]["application/json"]["schema"], template)

    for family, version in (("/v1", ""), ("/openai/v1", ""), ("/openai", "?api-version=2024-10-21")):
        for path in ("/files", f"/files/{mended['input_file_id']}", "/batches", f"/batches/{good.id}", f"/batches/{bad.id}",
                     f"/batches/{good.id}/parts", "/models", "/models/gpt-4.1"):  # fmt: skip
            call("GET", path, family=family, version=version)
    for path in ("/quota", "/quota/gpt-4.1"):
        call("GET", path)
    call("POST", "/quota/check", broken)
    azure = openai.OpenAI(base_url=f"{gateway.url}/openai/v1/", api_key=gateway.key)
    compare(azure.uploads.parts.create(upload.id, data=LINE).to_dict(mode="json"), {"$ref": "x/UploadPart"}, "")
    azure.close()
    call("POST", f"/uploads/{upload.id}/complete", {"part_ids": [part.id]})
    call("DELETE", f"/files/{mended['input_file_id']}")

    objects = set(SCHEMAS) - {"Error", "Health"}
    assert objects <= set(seen)
    assert {name: set(SCHEMAS[name]["properties"]) - seen[name] for name in objects} == {
        name: set() for name in objects
    }


def test_a_full_disk_is_a_507_wherever_it_is_met() -> None:
    """With when to come back; the device that is always full has the error that a full disk has."""
    served = app()

    def full() -> None:
        Path("/dev/full").write_bytes(b"x")

    served.add_api_route("/full", full)

    async def ask() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://gateway") as client:
            return await client.get("/full")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.headers["retry-after"]) == (507, "60")
    assert answer.json()["error"]["code"] == "insufficient_storage"


def test_the_page_needs_nothing_from_elsewhere(gateway: Served) -> None:
    """No script, no address of another host; every operation and its errors are on it."""
    answer = httpx2.get(f"{gateway.url}/docs")
    assert answer.status_code == 200 and answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in answer.text and "http://" not in answer.text and "https://" not in answer.text
    for method, path in OPERATIONS:
        assert f"{method.upper()}</span> <code>{path}</code>" in answer.text
    assert "retry-after" in answer.text and "Idempotency-Key" in answer.text and "/api/projects/" in answer.text


SCHEMA = schemathesis.openapi.from_dict(document(app()))
LABELS = [result.ok() for result in SCHEMA.get_all_operations()]


@pytest.fixture(scope="module")
def things(gateway: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A file, a batch and an upload that exist."""
    client = gateway.client()
    path: Path = tmp_path_factory.mktemp("reference") / "in.jsonl"
    path.write_bytes(LINE)
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
