"""``GET /v1/quota``: the numbers that the provider does not show."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sluicegate.core import belief
from sluicegate.core.belief import Pace
from sluicegate.core.forecast import when
from sluicegate.core.report import QuotaRow
from sluicegate.core.rows import DeploymentRow, scope
from sluicegate.ports import Tx
from sluicegate.service import overview
from sluicegate.service.desk import open_runs
from sluicegate.web.auth import Caller
from sluicegate.web.dialects import Problem, not_found
from sluicegate.web.files import find_file
from sluicegate.web.limits import MODELS_MOST
from sluicegate.web.state import Gateway, caller_of, gateway_of, json_body

router = APIRouter(prefix="/v1", tags=["quota"])

CHECKING: Final = asyncio.Semaphore(2)
"""Files that are checked for this endpoint at the same time; more are told to come back."""


async def _rows(gateway: Gateway, choose: Callable[[Tx], list[DeploymentRow]]) -> dict[str, tuple[QuotaRow, Pace]]:
    """The quota of the deployments that are chosen, and what was measured there, by name; what the settings cap counts."""
    ctx = gateway.ctx
    live = await open_runs(ctx)
    now = ctx.clock.now()
    cap = gateway.settings.limit
    return await ctx.store.read(
        lambda tx: {
            row.name: (overview.quota(tx, row, ctx.policy, now, live, cap=cap), overview.pace_of(row))
            for row in choose(tx)
        }
    )


async def _visible(request: Request) -> dict[str, dict[str, Any]]:
    """Rows of the deployments that the caller's tenant may know of: their totals, never another tenant's share."""
    caller = await caller_of(request)
    gateway = gateway_of(request)
    tenant, resource = caller.sees.get("tenant"), gateway.ctx.backend.resource
    rows = await _rows(gateway, lambda tx: overview.deployments(tx, resource, tenant, gateway.configured))
    return {name: asdict(row) for name, (row, _) in rows.items()}


@router.get("/quota", summary="Enqueued tokens of every deployment")
async def quota(request: Request) -> Response:
    """Per deployment: limit and where it is known from, reserved, held, foreign, headroom, waiting.

    Those of the settings, and those that your tenant's batches go to.
    """
    return JSONResponse({"object": "list", "data": list((await _visible(request)).values())})


@router.get("/quota/{deployment}", summary="Enqueued tokens of one deployment")
async def quota_of(request: Request, deployment: str) -> Response:
    """One row of ``/v1/quota``."""
    rows = await _visible(request)
    if deployment not in rows:
        raise not_found(request, "deployment", deployment)
    return JSONResponse(rows[deployment])


@router.post("/quota/check", summary="What would this file be?")
async def check(request: Request) -> Response:
    """``{"input_file_id": …}`` or ``{"lines": [{"custom_id": …}, …]}``: problems and tokens, and per deployment what fits
    now and when all would be done.

    Nothing is submitted, and no provider is asked: an observer may.
    """
    caller = await caller_of(request, writes=False)
    gateway = gateway_of(request)
    body = await json_body(request)
    file_id, lines = body.get("input_file_id"), body.get("lines")
    if isinstance(lines, list) and file_id is None:
        content = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        return await _answer(gateway, caller, "lines", None, content)
    if not isinstance(file_id, str):
        raise Problem(
            400, "invalid_value", "Missing required parameter: 'input_file_id' or 'lines'.", param="input_file_id"
        )
    file = await find_file(request, file_id, writes=False)
    try:
        return await _answer(gateway, caller, file.id, file.blob, b"")
    except FileNotFoundError:  # deleted while it waited or was read
        raise not_found(request, "file", file_id) from None


async def _answer(gateway: Gateway, caller: Caller, name: str, blob: str | None, content: bytes) -> Response:
    """Check a file that is there, or ``content``, which is kept for as long as that takes."""
    if CHECKING.locked():
        raise Problem(429, "too_many_checks", "Other files are being checked.", retry=True, after_s=2)
    async with CHECKING:
        if blob is not None:
            inspection = await gateway.desk.validation.inspect(name, blob)
        else:
            aside = f"inputs/{gateway.ctx.ids.new('lines')}"
            path = gateway.ctx.blobs.path(aside)
            try:
                await asyncio.to_thread(path.write_bytes, content)
                inspection = await gateway.desk.validation.inspect(name, aside)
            finally:
                path.unlink(missing_ok=True)
    limit, dialect = gateway.settings.limit, gateway.ctx.backend.dialect
    report = await gateway.ctx.workers.blocking(partial(inspection.to_json, limit=limit, dialect=dialect))
    sums = dict(sorted(report["by_model"].items(), key=lambda one: -one[1]["tokens"])[:MODELS_MOST])
    rows = await _asked(gateway, caller, set(sums))
    known, pace = overview.tightest(rows.values())
    plan = inspection.plan(report["by_model"], limit=known or limit, dialect=dialect, pace=pace)
    now = gateway.ctx.clock.now()
    forecasts = {}
    for model, one in sums.items():
        row, pace = rows[gateway.deployment_of(model)]
        forecasts[model] = when(row, tokens=one["tokens"], largest=one["largest"], now=now, pace=pace)
    return JSONResponse(report | plan | {"deployments": forecasts})


async def _asked(gateway: Gateway, caller: Caller, models: set[str]) -> dict[str, tuple[QuotaRow, Pace]]:
    """The deployments that requests of these models would go to.

    A deployment that nothing was sent to is judged by the settings alone, as is a name that only another tenant made up.
    """
    resource, names = gateway.ctx.backend.resource, {gateway.deployment_of(model) for model in models}

    def chosen(tx: Tx) -> list[DeploymentRow]:
        own = overview.deployments(tx, resource, caller.sees.get("tenant"), gateway.configured)
        rows = {row.name: row for row in own}
        for name in names - set(rows):
            row = tx.deployment(scope(resource, name))
            served = row is not None and belief.load(row.belief).exists
            rows[name] = row if row is not None and served else overview.unused(resource, name)
        return [rows[name] for name in sorted(names)]

    return await _rows(gateway, chosen)
