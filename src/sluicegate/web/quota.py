"""``GET /v1/quota``: the numbers that the provider does not show."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sluicegate.core.forecast import when
from sluicegate.core.tenancy import FileRow
from sluicegate.service import overview
from sluicegate.service.desk import open_runs
from sluicegate.web.dialects import Problem, not_found
from sluicegate.web.state import Gateway, caller_of, gateway_of, json_body

router = APIRouter(prefix="/v1", tags=["quota"])

CHECKING: Final = asyncio.Semaphore(2)
"""Files that are checked for this endpoint at the same time; more are told to come back."""


async def _rows(request: Request) -> list[dict[str, Any]]:
    await caller_of(request)
    ctx = gateway_of(request).ctx
    live = await open_runs(ctx)
    now = ctx.clock.now()
    return await ctx.store.read(
        lambda tx: [
            asdict(overview.quota(tx, row, ctx.policy, now, live))
            for row in tx.deployments(resource=ctx.backend.resource)
        ]
    )


@router.get("/quota", summary="Enqueued tokens of every deployment")
async def quota(request: Request) -> Response:
    """Per deployment: limit and where it is known from, reserved, held, foreign, headroom, waiting."""
    return JSONResponse({"object": "list", "data": await _rows(request)})


@router.get("/quota/{deployment}", summary="Enqueued tokens of one deployment")
async def quota_of(request: Request, deployment: str) -> Response:
    """One row of ``/v1/quota``."""
    for row in await _rows(request):
        if row["deployment"] == deployment:
            return JSONResponse(row)
    raise not_found(request, "deployment", deployment)


@router.post("/quota/check", summary="What would this file be?")
async def check(request: Request) -> Response:
    """``{"input_file_id": …}`` or ``{"lines": [{"custom_id": …}, …]}``: problems and tokens, and per deployment what fits
    now and when all would be done.

    Nothing is submitted, and no provider is asked.
    """
    caller = await caller_of(request)
    gateway = gateway_of(request)
    body = await json_body(request)
    file_id, lines = body.get("input_file_id"), body.get("lines")
    if isinstance(lines, list) and file_id is None:
        return await _answer(gateway, "lines", None, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    if not isinstance(file_id, str):
        raise Problem(
            400, "invalid_value", "Missing required parameter: 'input_file_id' or 'lines'.", param="input_file_id"
        )
    found = await gateway.ctx.store.read(lambda tx: tx.find(FileRow, id=file_id, **caller.sees))
    ctx = gateway.ctx
    if not found or not await ctx.workers.blocking(ctx.blobs.path(found[0].blob).exists):
        raise not_found(request, "file", file_id)
    return await _answer(gateway, found[0].id, found[0].blob, b"")


async def _answer(gateway: Gateway, name: str, blob: str | None, content: bytes) -> Response:
    """Check a file that is there, or ``content``, which is kept for as long as that takes."""
    if CHECKING.locked():
        raise Problem(429, "too_many_checks", "Other files are being checked.", retry=True, after_s=2)
    async with CHECKING:
        if blob is not None:
            inspection = await gateway.desk.inspect(name, blob)
        else:
            aside = f"inputs/{gateway.ctx.ids.new('lines')}"
            path = gateway.ctx.blobs.path(aside)
            try:
                await asyncio.to_thread(path.write_bytes, content)
                inspection = await gateway.desk.inspect(name, aside)
            finally:
                path.unlink(missing_ok=True)
    limit, dialect = gateway.settings.limit, gateway.ctx.backend.dialect
    report = await gateway.ctx.workers.blocking(partial(inspection.to_json, limit=limit, dialect=dialect))
    return JSONResponse(report | {"deployments": await _forecasts(gateway, report["by_model"])})


async def _forecasts(gateway: Gateway, by_model: dict[str, dict[str, int]]) -> dict[str, Any]:
    ctx = gateway.ctx
    live = await open_runs(ctx)
    now = ctx.clock.now()
    rows = await ctx.store.read(
        lambda tx: {
            row.name: overview.quota(tx, row, ctx.policy, now, live)
            for row in tx.deployments(resource=ctx.backend.resource)
        }
    )
    unknown = {"fits_now": None, "first_part_at": None, "done_at": None, "note": "nothing was sent to it yet"}
    served = gateway.settings.gateway_models
    return {
        name: when(rows[served.get(name, name)], tokens=sums["tokens"], largest=sums["largest"], now=now)
        if served.get(name, name) in rows
        else unknown
        for name, sums in by_model.items()
    }
