"""Batches of clients: create, list, show, cancel, and where they ran. No handler waits for a provider (D6)."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sluicegate.core import belief
from sluicegate.core.filters import filtered
from sluicegate.core.limits import OPENAI, parse_duration
from sluicegate.core.line import Fault
from sluicegate.core.line import read as read_line
from sluicegate.core.rows import scope
from sluicegate.core.tenancy import ENDS, ClientBatchRow, FileRow
from sluicegate.core.types import BatchStatus, Dialect
from sluicegate.errors import StateUnusable
from sluicegate.ports import Tx
from sluicegate.service.desk import Desk, Outlook
from sluicegate.web.auth import Caller
from sluicegate.web.dialects import Family, Problem, family_of, not_found
from sluicegate.web.files import expiry_of
from sluicegate.web.limits import check_create, check_rate
from sluicegate.web.paging import cut_out, listing, page
from sluicegate.web.state import Gateway, caller_of, gateway_of, json_body
from sluicegate.web.wire import batch_json, part_json

router = APIRouter(tags=["batches"])

WINDOW_LEAST_S, WINDOW_MOST_S = 3_600.0, 604_800.0
WINDOW: Final = re.compile("[0-9.]{1,10}[a-z]{1,2}")
FIRST_LINE_MAX: Final = 1_000_000
METADATA_MOST: Final = 16
METADATA_KEY_MOST: Final = 64
METADATA_VALUE_MOST: Final = 512
REPEAT_S: Final = 900.0
"""A repeated attempt of an SDK finds a create whose answer may be lost for this long since that answer: the SDKs wait 600 s
for an answer, and then some seconds before each attempt of which nothing arrives here."""

ATTEMPTS_MOST: Final = 1_000
"""Higher numbers of attempts are not told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a create asks for."""

    input_file: str
    endpoint: str
    window: str
    window_s: float
    metadata: str | None
    input_blob: str | None = None
    folder: str | None = None
    output_seconds: int | None = None

    def fingerprint(self, caller: Caller) -> str:
        """Equal for repeats of one create."""
        content: tuple[str | None, ...] = (
            caller.tenant, caller.key, self.input_file, self.endpoint, self.window, self.metadata,
        )  # fmt: skip
        if self.input_blob is not None:
            content += (self.input_blob, self.folder)
        if self.output_seconds is not None:
            content += (str(self.output_seconds),)
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def _wanted(body: dict[str, Any], family: Family, desk: Desk, *, strict: bool) -> Wanted:
    input_file, endpoint, window = (body.get(name) for name in ("input_file_id", "endpoint", "completion_window"))
    blob = body.get("input_blob") if family.azure else None
    if blob is not None:
        input_file = ""
    elif input_file is None or input_file == "":
        text = "Missing required parameter: 'input_file_id'."
        raise Problem(400, "missing_required_parameter", text, param="input_file_id")
    elif not isinstance(input_file, str):
        text = f"Invalid type for 'input_file_id': expected a string, but got {_kind(input_file)} instead."
        raise Problem(400, "invalid_type", text, param="input_file_id")
    served = {url.removeprefix("/v1"): url for url in OPENAI.urls}
    if not isinstance(endpoint, str) or endpoint.removeprefix("/v1") not in served:
        names = ", ".join(f"'{url}'" for url in sorted(served.values()))
        given = repr(endpoint[:100]) if isinstance(endpoint, str) else "none"
        text = f"Invalid value: {given}. Supported values are: {names}."
        raise Problem(400, "invalid_value", text, param="endpoint")
    try:
        seconds = parse_duration(window) if isinstance(window, str) and WINDOW.fullmatch(window) else 0.0
    except ValueError:
        seconds = 0.0
    if strict and not family.azure and window != "24h":
        raise Problem(400, "invalid_value", f"Invalid value: '{window}'. Supported values are: '24h'.",
                      param="completion_window")  # fmt: skip
    if not isinstance(window, str) or not WINDOW_LEAST_S <= seconds <= WINDOW_MOST_S:
        raise Problem(400, "invalid_value", "Invalid value for completion_window: it is from '1h' to '7d'.",
                      param="completion_window")  # fmt: skip
    return Wanted(
        input_file=input_file, endpoint=served[endpoint.removeprefix("/v1")], window=window, window_s=seconds,
        metadata=_metadata(body.get("metadata")),
        output_seconds=expiry_of(body.get("output_expires_after"), family.dialect, "output_expires_after"),
        **(_blobs(body, blob, desk) if blob is not None else {}),
    )  # fmt: skip


def _blobs(body: dict[str, Any], blob: Any, desk: Desk) -> dict[str, str]:
    """Azure's input by URL (F§1.11): results go to a folder of blobs, metadata is not taken."""
    folder = body.get("output_folder")
    place = folder.get("url") if isinstance(folder, dict) else None
    if not isinstance(place, str):
        text = "output_folder.url is required with input_blob."
        raise Problem(400, "invalidPayload", text, param="output_folder")
    if body.get("metadata"):
        raise Problem(400, "invalidPayload", "metadata is not supported with input_blob.", param="metadata")
    place = place.rstrip("/")
    for name, url in (("input_blob", blob), ("output_folder", f"{place}/x")):
        try:
            desk.validation.check_blob(url if isinstance(url, str) else "")
        except ValueError as error:
            raise Problem(400, "invalidPayload", f"Invalid value for {name}: {error}", param=name) from None
    return {"input_blob": blob, "folder": place}


def _metadata(given: Any) -> str | None:
    if given is None:
        return None
    if isinstance(given, dict):
        for key, value in given.items():
            if not isinstance(value, str):
                where = f"metadata.{key[:METADATA_KEY_MOST]}"
                text = f"Invalid type for '{where}': expected a string, but got {_kind(value)} instead."
                raise Problem(400, "invalid_type", text, param=where)
    good = isinstance(given, dict) and len(given) <= METADATA_MOST
    for key, value in given.items() if good else ():
        good = good and len(key) <= METADATA_KEY_MOST and len(value) <= METADATA_VALUE_MOST
    if not good:
        raise Problem(
            400, "invalid_value", f"Invalid value for metadata: at most {METADATA_MOST} strings, keys of at most "
            f"{METADATA_KEY_MOST} and values of at most {METADATA_VALUE_MOST} characters.", param="metadata",
        )  # fmt: skip
    return msgspec.json.encode(given).decode()


def _kind(value: Any) -> str:
    """A JSON value's type as the provider calls it (F§5.3)."""
    kinds = {bool: "a boolean", int: "an integer", float: "a decimal", list: "an array", dict: "an object"}
    return kinds.get(type(value), "null")


async def _answer(request: Request, id_: str) -> tuple[ClientBatchRow, Response]:
    caller = await caller_of(request)
    gateway = gateway_of(request)
    family = family_of(request)

    def read(tx: Tx) -> tuple[ClientBatchRow, bytes] | None:
        found = tx.find(ClientBatchRow, id=id_, **caller.sees)
        if not found:
            return None
        return found[0], msgspec.json.encode(batch_json(tx, found[0], family, gateway.desk.outlook(id_)))

    found = await gateway.together.read((id_, family, *caller.sees.values()), read)
    if found is None:
        raise not_found(request, "batch", id_)
    batch, content = found
    lately = batch.answered_at is not None and batch.answered_at > gateway.ctx.clock.now() - REPEAT_S
    if lately and batch.key == caller.key:
        # Whoever made it knows its id: the answer to its create is not lost. What can be read is shown also when this
        # cannot be noted, as on a full disk: the next poll does it.
        with suppress(StateUnusable):
            await gateway.ctx.store.transact(lambda tx: tx.amend(ClientBatchRow, id_, answered_at=None))
    return batch, Response(content, media_type="application/json")


# The first: routes are tried in order, and most requests are polls.
@router.get("/batches/{id}", summary="Show a batch")
async def show(request: Request, id: str) -> Response:
    """The batch object."""
    return (await _answer(request, id))[1]


@router.post("/batches", summary="Create a batch")
async def create(request: Request) -> Response:
    """Answers at once; the file is checked, and its requests wait for room, afterwards.

    ``Idempotency-Key`` is honoured; without it an SDK's repeated attempt (``x-stainless-retry-count``) returns the batch
    of the first.
    """
    caller = await caller_of(request)
    gateway = gateway_of(request)
    family = family_of(request)
    wanted = _wanted(await json_body(request), family, gateway.desk, strict=gateway.settings.gateway_strict)
    idempotency = request.headers.get("idempotency-key") or None
    if idempotency is not None and len(idempotency) > 255:
        raise Problem(400, "invalid_value", "Idempotency-Key has more than 255 characters.")
    attempt = _attempt(request)
    fingerprint = wanted.fingerprint(caller)
    now = gateway.ctx.clock.now()
    # The attempt before was refused when it had no batch: whatever looks alike is another create's.
    fresh = attempt == 0 or gateway.refusals.take(fingerprint, attempt - 1, now)

    def write(tx: Tx) -> tuple[dict[str, Any], ClientBatchRow]:
        batch = _known(tx, caller, wanted, idempotency, 0 if fresh else attempt, now)
        if batch is None:
            batch = replace(
                _new(tx, gateway, caller, wanted, idempotency, family.dialect), attempt=attempt, answered_at=now
            )
            tx.insert(batch)
        return batch_json(tx, batch, family, Outlook()), batch

    try:
        answer, batch = await gateway.ctx.store.transact(write)
    except Problem as problem:
        if problem.retry is not False and problem.status == 429:
            gateway.refusals.put(fingerprint, attempt, now)
        raise
    request.state.batch = answer["id"]  # for the log: from here on the work is followed by this id
    gateway.desk.wake()
    headers = await _quota_headers(gateway, batch) if family.azure else None
    return JSONResponse(answer, 201 if family.dated else 200, headers)


def _attempt(request: Request) -> int:
    """Which attempt of an SDK's call this is, from 0; other clients do not say."""
    text = request.headers.get("x-stainless-retry-count", "0").strip()
    return min(int(text), ATTEMPTS_MOST) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _known(
    tx: Tx, caller: Caller, wanted: Wanted, idempotency: str | None, attempt: int, now: float
) -> ClientBatchRow | None:
    """The batch that an earlier attempt of the same create made, if there may be one.

    Without an ``Idempotency-Key`` only a batch whose answer may be lost comes into question: nobody has asked for it by
    its id, it was answered lately, and to an earlier attempt, for the attempts of one create count up.
    """
    fingerprint = wanted.fingerprint(caller)
    if idempotency is not None:
        known = tx.find(ClientBatchRow, tenant=caller.tenant, idempotency=idempotency)
        # Its key may have been changed since: an idempotency key is the tenant's.
        if known and known[0].fingerprint != wanted.fingerprint(replace(caller, key=known[0].key)):
            text = "This Idempotency-Key was used for a create with other parameters."
            raise Problem(422, "idempotency_key_reused", text, retry=False)
        return known[0] if known else None
    if not attempt:
        return None
    lost = [
        batch for batch in tx.find(ClientBatchRow, fingerprint=fingerprint)
        if batch.idempotency is None and batch.attempt < attempt
        and batch.answered_at is not None and batch.answered_at > now - REPEAT_S
    ]  # fmt: skip
    if not lost:
        return None
    tx.amend(ClientBatchRow, lost[-1].id, attempt=attempt, answered_at=now)
    return lost[-1]


def _failed(
    gateway: Gateway,
    caller: Caller,
    wanted: Wanted,
    idempotency: str | None,
    dialect: Dialect,
    message: str,
    param: str,
) -> ClientBatchRow:
    """A batch that has failed as soon as it is there: the create itself succeeds (F§1.6, F§5.3)."""
    now = gateway.ctx.clock.now()
    problem = {"code": "invalid_request", "message": message, "param": param, "line": None}
    return ClientBatchRow(
        id=gateway.ctx.ids.new("batch"), tenant=caller.tenant, key=caller.key, input_file=wanted.input_file[:100], input="",
        input_bytes=0, endpoint=wanted.endpoint, window=wanted.window, metadata=wanted.metadata,
        status=BatchStatus.FAILED, fingerprint=wanted.fingerprint(caller), created_at=now, due_at=now + wanted.window_s,
        idempotency=idempotency, errors=msgspec.json.encode([problem]).decode(), ended_at=now, dialect=dialect,
    )  # fmt: skip


def _new(
    tx: Tx, gateway: Gateway, caller: Caller, wanted: Wanted, idempotency: str | None, dialect: Dialect
) -> ClientBatchRow:
    now = gateway.ctx.clock.now()
    check_rate(tx, gateway, caller.tenant, now)
    if wanted.input_blob is not None:
        return _of_blob(tx, gateway, caller, wanted, idempotency, dialect)
    files = tx.find(FileRow, id=wanted.input_file, tenant=caller.tenant)
    if not files or (files[0].expires_at is not None and files[0].expires_at <= now):
        if dialect is Dialect.OPENAI:
            text = f"Cannot find file {wanted.input_file[:100]}, or organization {caller.tenant} does not have access to it."
            return _failed(gateway, caller, wanted, idempotency, dialect, text, "file_id")
        text = f"The input file '{wanted.input_file[:100]}' does not exist."
        raise Problem(400, "invalidPayload", text, param="input_file_id")
    if files[0].purpose != "batch":
        raise Problem(400, "invalidPayload", "The input file's purpose is not 'batch'.", param="input_file_id")
    if gateway.settings.gateway_strict and dialect is Dialect.AZURE and wanted.window != "24h":
        text = f"completion_window '{wanted.window}' is not supported."
        return _failed(gateway, caller, wanted, idempotency, dialect, text, "completion_window")
    check_create(tx, gateway, caller.tenant, files[0], now)
    return ClientBatchRow(
        id=gateway.ctx.ids.new("batch"), tenant=caller.tenant, key=caller.key, input_file=files[0].id,
        input=files[0].blob, input_bytes=files[0].bytes, endpoint=wanted.endpoint, window=wanted.window,
        metadata=wanted.metadata, status=BatchStatus.VALIDATING, fingerprint=wanted.fingerprint(caller), created_at=now,
        due_at=now + wanted.window_s, idempotency=idempotency, dialect=dialect, output_seconds=wanted.output_seconds,
    )  # fmt: skip


def _of_blob(
    tx: Tx, gateway: Gateway, caller: Caller, wanted: Wanted, idempotency: str | None, dialect: Dialect
) -> ClientBatchRow:
    now = gateway.ctx.clock.now()
    check_create(tx, gateway, caller.tenant, None, now)
    id_ = gateway.ctx.ids.new("batch")
    place = f"{wanted.folder}/{id_.removeprefix('batch_')}"
    return ClientBatchRow(
        id=id_, tenant=caller.tenant, key=caller.key, input_file="", input="", input_bytes=0, endpoint=wanted.endpoint,
        window=wanted.window, metadata=None, status=BatchStatus.VALIDATING, fingerprint=wanted.fingerprint(caller),
        created_at=now, due_at=now + wanted.window_s, idempotency=idempotency, dialect=dialect,
        input_blob=wanted.input_blob, output_blob=f"{place}/results.jsonl", error_blob=f"{place}/errors.jsonl",
        output_seconds=wanted.output_seconds,
    )  # fmt: skip


async def _quota_headers(gateway: Gateway, batch: ClientBatchRow) -> dict[str, str]:
    """Azure's two headers: the file's tokens by its bytes, as Azure counts at create, and the limit as far as it is known.

    The limit is that of the deployment that the first line goes to.
    """
    ctx, headers = gateway.ctx, {"deployment-enqueued-tokens": str(batch.input_bytes // 4)}
    model = await ctx.workers.blocking(_first_model, ctx.blobs.path(batch.input)) if batch.input else ""
    name = scope(ctx.backend.resource, gateway.deployment_of(model))
    row = await ctx.store.read(lambda tx: tx.deployment(name))
    known = belief.load(row.belief if row is not None else None)
    caps = [cap for cap in (gateway.settings.limit, row.cap_override if row is not None else None) if cap is not None]
    limit = belief.allowance(known, min(caps, default=None), ctx.clock.now()).limit
    return headers if limit is None else headers | {"deployment-maximum-enqueued-tokens": str(limit)}


def _first_model(path: Path) -> str:
    """The model that a file's first line names; empty if it cannot be told at a glance."""
    try:
        with path.open("rb") as file:
            return read_line(file.readline(FIRST_LINE_MAX), lenient=True).model
    except (OSError, Fault):
        return ""


@router.get("/batches", summary="List batches")
async def list_batches(request: Request) -> Response:
    """Newest first; ``limit``, ``after``, ``before``, ``order``; in Azure's families ``$filter`` and ``$orderby``."""
    caller = await caller_of(request)
    gateway = gateway_of(request)
    family = family_of(request)
    if family.azure and ("$filter" in request.query_params or "$orderby" in request.query_params):
        rows, more = await _filtered(request, caller)
    else:
        rows, more = await page(request, ClientBatchRow, default=20, most=100, **caller.sees)
    outlook = gateway.desk.outlook
    items = await gateway.ctx.store.read(lambda tx: [batch_json(tx, row, family, outlook(row.id)) for row in rows])
    return JSONResponse(listing(items, more))


async def _filtered(request: Request, caller: Caller) -> tuple[list[ClientBatchRow], bool]:
    """A page of the batches that Azure's ``$filter`` lets through."""
    query = request.query_params
    rows = await gateway_of(request).ctx.store.read(lambda tx: tx.find(ClientBatchRow, **caller.sees))
    known = {row.id: row for row in rows}
    items = [
        {"id": row.id, "created_at": int(row.created_at), "status": row.status.value, "endpoint": row.endpoint,
         "input_file_id": row.input_file, "expires_at": int(row.due_at)}
        | ({f"{row.status.value}_at": int(row.ended_at)} if row.ended_at is not None else {})
        for row in reversed(rows)
    ]  # fmt: skip
    try:
        chosen = filtered(items, query.get("$filter"), query.get("$orderby"))
    except ValueError as error:
        raise Problem(400, "invalidPayload", str(error)) from None
    shown, more = cut_out(request, chosen, default=20, most=100)
    return [known[item["id"]] for item in shown], more


@router.get("/batches/{id}/parts", summary="Where a batch ran")
async def parts(request: Request, id: str) -> Response:
    """The provider batches that it became."""
    batch, _ = await _answer(request, id)
    rows = await gateway_of(request).ctx.store.read(lambda tx: tx.parts(run=batch.run) if batch.run else [])
    return JSONResponse(listing([part_json(part) for part in rows if part.attempt or part.provider_batch], False))


@router.post("/batches/{id}/cancel", summary="Cancel a batch")
async def cancel(request: Request, id: str) -> Response:
    """What was answered is kept; the rest ends in the error file."""
    batch, _ = await _answer(request, id)
    if batch.status in ENDS:
        text = f"Cannot cancel a batch with status '{batch.status}'."
        raise Problem(409, "conflict", text, retry=False)
    gateway = gateway_of(request)
    now = gateway.ctx.clock.now()
    before = frozenset({BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS})
    await gateway.ctx.store.transact(
        lambda tx: tx.amend(ClientBatchRow, id, {"status": before}, status=BatchStatus.CANCELLING, cancelling_at=now)
    )
    gateway.desk.wake()
    return (await _answer(request, id))[1]
