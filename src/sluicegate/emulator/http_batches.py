"""The batches' endpoints: create, list, get, cancel; and the batch as JSON."""

from __future__ import annotations

import secrets
import uuid
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sluicegate.core.limits import OPENAI
from sluicegate.emulator.batch import LIVE, Batch, InputFacts, Refused
from sluicegate.emulator.config import DAY_S
from sluicegate.emulator.http_files import expiry_of
from sluicegate.emulator.provider import Provider, no_facts
from sluicegate.emulator.wire import Problem, Surface, empty_page, filtered, json_body, page, surface_of, type_of

METADATA_PAIRS, METADATA_KEY, METADATA_VALUE = 16, 64, 512
TIMES: Final = (
    "in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"
)  # fmt: skip


class BatchEndpoints:
    """Batches of one account."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def create(self, request: Request) -> Response:
        """``POST /batches``."""
        provider, surface = self._provider, surface_of(request)
        body = await json_body(request)
        endpoint = _endpoint(body, surface)
        window = body.get("completion_window")
        if window != "24h" and not surface.azure:
            raise Problem(400, "invalid_value", f"Invalid value: '{window}'. Supported values are: '24h'.",
                          param="completion_window")  # fmt: skip
        metadata = _metadata(body)
        extras: dict[str, Any] = {"output_seconds": expiry_of(body, provider.account.dialect, "output_expires_after")}
        if surface.azure and body.get("input_blob") is not None:
            file_id, facts = await self._blob_input(body, extras)
        else:
            file_id = _input_file_id(body)
            file, fault = provider.files.get(file_id), request.state.fault
            if fault is not None and fault.kind == "file_missing":
                raise _no_file(surface, file_id)
            if file is not None and provider.status(file) == "processed":
                await provider.read_through(file)
            facts = self._facts(surface, file_id, endpoint, window)
        unique = secrets.token_bytes(16)
        try:
            batch = provider.model.create(
                provider.now(), batch_id=f"batch_{uuid.UUID(bytes=unique) if surface.azure else unique.hex()}",
                file_id=file_id, facts=facts, endpoint=endpoint, metadata=metadata,
                gated=not provider.answers_are_fixed or "output_folder" in extras,
            )  # fmt: skip
        except Refused as refused:
            raise Problem(refused.status, refused.code, refused.message, after=refused.retry_after_s) from None
        batch.extras = extras
        answer = batch_json(provider, batch, surface)
        headers = {}
        if surface.azure:
            answer |= {"output_file_id": "", "error_file_id": ""}
            if provider.account.headers:
                characters = round(facts.quarter_chars * batch.factor)
                headers["deployment-enqueued-tokens"] = str(characters)
                limit = provider.model.deployments.limit(facts.deployment)
                if limit is not None:
                    headers["deployment-maximum-enqueued-tokens"] = str(limit)
        status = provider.account.created_status if surface.azure and surface.dated else 200
        return JSONResponse(answer, status, headers)

    async def _blob_input(self, body: dict[str, Any], extras: dict[str, Any]) -> tuple[str, InputFacts]:
        """Azure's input by URL (F§1.11): results go to a folder of blobs, metadata is not taken."""
        url, folder = str(body["input_blob"]), body.get("output_folder")
        place = folder.get("url") if isinstance(folder, dict) else None
        if not isinstance(place, str):
            raise Problem(
                400, "invalidPayload", "output_folder.url is required with input_blob.", param="output_folder"
            )
        if body.get("metadata"):
            raise Problem(400, "invalidPayload", "metadata is not supported with input_blob.", param="metadata")
        where = f"{place.rstrip('/')}/{uuid.UUID(bytes=secrets.token_bytes(16))}"
        extras |= {
            "input_blob": url, "output_folder": place, "output_blob": f"{where}/results.jsonl",
            "error_blob": f"{where}/errors.jsonl", "fingerprint": self._provider.blobs.fingerprint(url),
        }  # fmt: skip
        file_id, path = self._provider.new_path()
        return file_id, await self._provider.facts_of_blob(url, path)

    def _facts(self, surface: Surface, file_id: str, endpoint: str, window: Any) -> InputFacts:
        provider = self._provider
        file = provider.files.get(file_id)
        if file is None:
            problem = _no_file(surface, file_id)
            if surface.azure:
                raise problem
            return no_facts(problem.code, problem.message, param=problem.param)
        if file.purpose != "batch":
            text = f"The input file '{file_id}' has the purpose '{file.purpose}', not 'batch'."
            raise Problem(400, "invalidPayload", text, param="input_file_id")
        status = provider.status(file)
        if status != "processed" or file.facts is None:
            raise Problem(
                400, "invalidPayload",
                f"The input file '{file_id}' is in '{status}' state. Only files with status 'Processed' are accepted for "
                "batch inferencing. Please check the file status and try again",
            )  # fmt: skip
        facts, model = file.facts, file.facts.deployment
        if file.bytes > provider.account.file_bytes_max:
            most = provider.account.file_bytes_max
            return no_facts(
                "invalid_request", f"The batch input file is larger than the {most} maximum for the {model} model"
            )
        if model and not provider.model.deployments.exists(model):
            text = f"The provided model '{model}' is not supported by the Batch API."
            if surface.azure:
                text = f"The deployment '{model}' could not be found."
            return no_facts("model_not_found", text, param="body.model", line=1)
        if window != "24h":
            return no_facts("invalid_request", f"completion_window '{window}' is not supported.")
        if facts.url and not facts.problems and not _fits(facts.url, endpoint, surface):
            text = "The URL provided for this request does not match the batch endpoint."
            return no_facts("url_mismatch" if surface.azure else "invalid_url", text, param="url", line=1)
        return facts

    async def list(self, request: Request) -> Response:
        """``GET /batches``, newest first; Azure filters and orders (F§1.2)."""
        provider, surface, fault = self._provider, surface_of(request), request.state.fault
        newest = sorted(provider.model.batches.values(), key=lambda batch: batch.created_at)[::-1]
        if fault is not None and fault.kind == "empty":
            return empty_page()
        if fault is not None and fault.kind == "lag":
            newest = [batch for batch in newest if batch.created_at <= provider.now() - fault.seconds]
        items = [batch_json(provider, batch, surface) for batch in newest]
        if surface.azure:
            items = filtered(items, request.query_params.get("$filter"), request.query_params.get("$orderby"))
        return page(request.query_params, items, default=20, most=100)

    async def get(self, request: Request) -> Response:
        """``GET /batches/{id}``."""
        return JSONResponse(batch_json(self._provider, self._batch(request), surface_of(request)))

    async def cancel(self, request: Request) -> Response:
        """``POST /batches/{id}/cancel``."""
        batch, fault = self._batch(request), request.state.fault
        try:
            if fault is not None and fault.kind == "409":
                raise Refused(409, "conflict", f"Cannot cancel a batch with status '{batch.status}'.")
            self._provider.model.cancel(self._provider.now(), batch.id)
        except Refused as refused:
            raise Problem(refused.status, refused.code, refused.message) from None
        return JSONResponse(batch_json(self._provider, batch, surface_of(request)))

    def _batch(self, request: Request) -> Batch:
        batch = self._provider.model.batches.get(request.path_params["id"])
        if batch is None:
            text = f"No batch found with id '{request.path_params['id']}'."
            raise Problem(404, "notFound" if surface_of(request).azure else "not_found", text)
        return batch


def batch_json(provider: Provider, batch: Batch, surface: Surface) -> dict[str, Any]:
    """A batch as the account's provider shows it (F§1.8)."""
    azure = provider.account.dialect == "azure"
    ended = batch.status not in LIVE
    started = bool(batch.times.get("in_progress_at"))
    failed = batch.failed if ended else 0
    provider.make_results(batch)
    shown = {
        "id": batch.id, "object": "batch",
        "endpoint": batch.endpoint.removeprefix("/v1") if azure else batch.endpoint, "model": batch.deployment or None,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": None if "input_blob" in batch.extras else batch.input_file_id, "completion_window": "24h",
        "status": batch.status, "output_file_id": batch.output_file_id, "error_file_id": batch.error_file_id,
        "created_at": int(batch.created_at), "expires_at": int(batch.created_at + DAY_S),
        **{name: int(batch.times[name]) if name in batch.times else None for name in TIMES},
        "request_counts": {
            "total": len(batch.facts.tokens) if started else 0, "completed": batch.executed - failed if started else 0,
            "failed": failed,
        },
        "metadata": batch.metadata,
    }  # fmt: skip
    if azure:
        shown |= {name: batch.extras.get(name) for name in ("input_blob", "output_blob", "error_blob")}
    if ended and not (surface.azure and surface.dated):
        shown["usage"] = provider.usage(batch)
    return shown


def _endpoint(body: dict[str, Any], surface: Surface) -> str:
    endpoint = body.get("endpoint")
    if not isinstance(endpoint, str) or (not surface.azure and endpoint not in OPENAI.urls):
        served = ", ".join(f"'{url}'" for url in sorted(OPENAI.urls))
        raise Problem(400, "invalid_value", f"Invalid value: '{endpoint}'. Supported values are: {served}.",
                      param="endpoint")  # fmt: skip
    return endpoint


def _input_file_id(body: dict[str, Any]) -> str:
    """The input file's id, which is required (F§1.6)."""
    file_id = body.get("input_file_id")
    if file_id is None:
        text = "Missing required parameter: 'input_file_id'."
        raise Problem(400, "missing_required_parameter", text, param="input_file_id")
    if not isinstance(file_id, str):
        text = f"Invalid type for 'input_file_id': expected a string, but got {type_of(file_id)} instead."
        raise Problem(400, "invalid_type", text, param="input_file_id")
    return file_id


def _no_file(surface: Surface, file_id: str) -> Problem:
    """There is no such file: OpenAI's batches fail of it, and now and then the create itself (F§5.3)."""
    if surface.azure:
        return Problem(400, "invalidPayload", f"The input file '{file_id}' does not exist.")
    text = f"Cannot find file {file_id}, or organization org-emulated does not have access to it."
    return Problem(400, "invalid_request", text, param="file_id")


def _fits(url: str, endpoint: str, surface: Surface) -> bool:
    """OpenAI compares to the letter; Azure reads the kind from the file, with and without ``/v1`` (F§1.7)."""
    return url == endpoint or (surface.azure and url.removeprefix("/v1") == endpoint.removeprefix("/v1"))


def _metadata(body: dict[str, Any]) -> dict[str, str] | None:
    metadata = body.get("metadata")
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        text = f"Invalid type for 'metadata': expected an object, but got {type_of(metadata)} instead."
        raise Problem(400, "invalid_type", text, param="metadata")
    if len(metadata) > METADATA_PAIRS:
        text = f"Invalid 'metadata': too many properties. Expected at most {METADATA_PAIRS}, but got {len(metadata)}."
        raise Problem(400, "object_above_max_properties", text, param="metadata")
    for key, value in metadata.items():
        if not isinstance(value, str):
            text = f"Invalid type for 'metadata.{key}': expected a string, but got {type_of(value)} instead."
            raise Problem(400, "invalid_type", text, param=f"metadata.{key}")
        if len(key) > METADATA_KEY or len(value) > METADATA_VALUE:
            text = f"Invalid 'metadata.{key[:METADATA_KEY]}': string too long."
            raise Problem(400, "string_above_max_length", text, param="metadata")
    return metadata or None
