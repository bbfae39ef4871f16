"""``GET /v1/quota``: the numbers that the provider does not show."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sluicegate.service import overview
from sluicegate.service.drive import live_runs
from sluicegate.web.dialects import not_found
from sluicegate.web.state import caller_of, gateway_of

router = APIRouter(prefix="/v1", tags=["quota"])


async def _rows(request: Request) -> list[dict[str, Any]]:
    await caller_of(request)
    ctx = gateway_of(request).ctx
    live = await live_runs(ctx)
    now = ctx.clock.now()
    return await ctx.store.transact(
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
