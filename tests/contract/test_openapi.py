"""Schemathesis over OpenAI's published document: every answer is one that the document knows, none is a 500.

The document is the files', uploads' and batches' part of openai/openai-openapi (MIT), mended where the service differs,
each mend marked in it. Only ``/v1`` is described by it: Azure has other codes of success (F§1.2).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.contract.target import Surface

DOCUMENT: Final = Path(__file__).with_name("openai-batch-openapi.yaml")
CHECKS: Final[list[CheckFunction]] = [
    schemathesis.checks.not_a_server_error, status_code_conformance, content_type_conformance,
    response_headers_conformance, response_schema_conformance,
]  # fmt: skip
DATA_CHECKS: Final[list[CheckFunction]] = [positive_data_acceptance, negative_data_rejection]
"""What the document allows is accepted, what it forbids refused; but for :data:`OTHERWISE`."""

OTHERWISE: Final = {
    "GET /files": "the document bounds neither limit (1 to 10,000) nor after (an item of the list)",
    "GET /batches": "the document bounds neither limit (1 to 100) nor after (an item of the list)",
    "POST /files": "an input file is named .jsonl, an expiry has its bounds (F§5.3, F§1.9)",
    "POST /batches": "input_file_id is that of a file",
    "POST /uploads/{upload_id}/parts": "parts have no more bytes than the upload was begun for",
    "POST /uploads": "bytes, expiry and the name of an input file have bounds that the document does not give",
    "POST /uploads/{upload_id}/complete": "part_ids are those of this upload",
    "POST /uploads/{upload_id}/cancel": "an upload is cancelled once",
}
"""Operations of which the document says less than the service does, and what."""

REACHED: Final = {
    "POST /batches/{batch_id}/cancel": {200, 409},  # the batch has ended long before
    "POST /uploads/{upload_id}/complete": {400},  # no part of it was ever sent
}
"""Statuses of which one shows that the generated calls met something that exists; 200 for all others."""

schema = schemathesis.openapi.from_path(DOCUMENT)
OPERATIONS: Final = [result.ok() for result in schema.get_all_operations()]


def _settings(examples: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip


def _probe(operation: Any, surface: Surface, examples: int) -> set[int]:
    """Send generated calls of one operation, right and wrong ones, half of them of things that exist; the statuses."""
    target, ids = surface.target, _things(surface)
    checks = CHECKS + ([] if operation.label in OTHERWISE else DATA_CHECKS)
    statuses = set()

    @_settings(examples)
    @hypothesis.given(case=operation.as_strategy() | _wrong(operation), known=st.booleans())
    def probe(case: schemathesis.Case, known: bool) -> None:
        if known:
            case.path_parameters.update({name: ids[name] for name in case.path_parameters})
            if isinstance(case.body, dict) and isinstance(case.body.get("input_file_id"), str):
                case.body["input_file_id"] = ids["file_id"]
            if isinstance(case.body, dict) and operation.label == "POST /files" and "purpose" in case.body:
                case.body["purpose"] = "batch"
        answer = case.call_and_validate(
            base_url=f"{target.url}/v1", headers={"authorization": f"Bearer {target.key}"}, checks=checks, timeout=30
        )
        statuses.add(answer.status_code)
        if operation.label == "POST /uploads" and answer.status_code == 200:  # servers bound how many are pending
            assert surface.call("POST", f"/uploads/{answer.json()['id']}/cancel").status_code == 200

    probe()
    surface.call("POST", f"/uploads/{ids['upload_id']}/cancel")  # where the probe has not ended it
    return statuses


def _things(surface: Surface) -> dict[str, str]:
    """A file, a batch and an upload that exist, by the names of the document's path parameters."""
    file_id = surface.upload(surface.line())
    upload = {"filename": "in.jsonl", "purpose": "batch", "bytes": 1_000_000, "mime_type": "application/jsonl"}
    upload_id = surface.call("POST", "/uploads", json=upload).json()["id"]
    return {"file_id": file_id, "batch_id": surface.create(file_id)["id"], "upload_id": upload_id}


def _wrong(operation: Any) -> Any:
    """Calls that break the document somewhere."""
    return operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_generated_calls_get_answers_of_the_document(openai_surface: Surface, operation: Any) -> None:
    """A few examples of every operation, good ones among them."""
    assert _probe(operation, openai_surface, 25) & REACHED.get(operation.label, {200})


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_many_generated_calls_get_answers_of_the_document(openai_surface: Surface, operation: Any) -> None:
    """More than twenty thousand calls over all operations."""
    assert _probe(operation, openai_surface, 1_600) & REACHED.get(operation.label, {200})


def test_the_document_describes_every_call_of_the_batch_api() -> None:
    """Thirteen operations: files, uploads, batches; what is excepted is among them."""
    assert len(OPERATIONS) == 13
    assert set(OTHERWISE) < {operation.label for operation in OPERATIONS}
