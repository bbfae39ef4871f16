"""Is the gateway alive, can it work, and its metrics."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sluicegate.core import belief
from sluicegate.core.lifecycle import UNDER_WAY
from sluicegate.core.tenancy import ClientBatchRow
from sluicegate.ports import Tx
from sluicegate.service import overview
from sluicegate.service.desk import SWEEP, open_runs
from sluicegate.web.dialects import Problem
from sluicegate.web.metrics import CONTENT_TYPE_LATEST, Reading
from sluicegate.web.state import Gateway, caller_of, gateway_of
from sluicegate.web.watch import IDLE_S

router = APIRouter(tags=["health"])

FREE_BYTES_LEAST: Final = 500_000_000


@router.get("/healthz", summary="Is the process up?")
async def healthz() -> Response:
    """200 as long as it answers."""
    return JSONResponse({"status": "ok"})


async def wrong_with(gateway: Gateway) -> dict[str, str]:
    """What keeps the gateway from working, by what it is, in words; empty if nothing does."""
    wrong = {}
    database = await gateway.watch.database()
    if database is not None:
        wrong["database"] = database
    folder = gateway.ctx.blobs.path("files/x").parent
    if shutil.disk_usage(folder).free < FREE_BYTES_LEAST:
        wrong["storage"] = f"less than {FREE_BYTES_LEAST // 1_000_000:,} MB are free"
    elif not os.access(folder, os.W_OK | os.X_OK):
        wrong["storage"] = "the data folder cannot be written"
    if gateway.desk.idle_s > IDLE_S:
        wrong["loop"] = f"it has not turned for {gateway.desk.idle_s:,.0f} s"
    stalled = gateway.desk.stalled()
    if "drivers" in stalled:
        wrong["drivers"] = (
            f"{len(stalled['drivers'])} of {gateway.desk.driven} batches' loops have not turned for a while"
        )
    if "checks" in stalled:
        wrong["checks"] = f"{len(stalled['checks'])} checks of inputs have not ended for a while"
    if SWEEP in stalled:
        wrong[SWEEP] = "the sweep of what is no longer kept has not ended for a while"
    if gateway.desk.refused_credentials or gateway.watch.refused:
        wrong["provider"] = "it refuses the gateway's credentials"
    clock = gateway.watch.clock()
    if clock is not None:
        wrong["clock"] = clock
    return wrong


@router.get("/readyz", summary="Can it work?")
async def readyz(request: Request) -> Response:
    """200, or 503 with what is wrong in words: database, storage, loop, drivers, checks, sweep, provider, clock."""
    wrong = [f"{what}: {words}" for what, words in (await wrong_with(gateway_of(request))).items()]
    return JSONResponse({"status": "not ready" if wrong else "ok", "wrong": wrong}, 503 if wrong else 200)


@router.get("/metrics", summary="Prometheus metrics")
async def metrics(request: Request) -> Response:
    """Text for Prometheus; `gateway_metrics` in the settings says who may read it."""
    gateway = gateway_of(request)
    if gateway.settings.gateway_metrics == "off":
        raise Problem(404, "404", "Resource not found")
    if gateway.settings.gateway_metrics == "key":
        await caller_of(request)
    ctx, desk = gateway.ctx, gateway.desk
    wrong = await wrong_with(gateway)
    live = await open_runs(ctx)
    now = ctx.clock.now()

    def read(tx: Tx) -> Reading:
        rows = overview.deployments(tx, ctx.backend.resource, None, gateway.configured)
        quotas = [overview.quota(tx, row, ctx.policy, now, live, cap=gateway.settings.limit) for row in rows]
        named = gateway.configured | {row.name for row in rows if belief.load(row.belief).exists}
        stages = Counter(part.stage.value for part in tx.parts(resource=ctx.backend.resource, stages=UNDER_WAY))
        stalled = len(desk.stalled().get("drivers", ()))
        return Reading(
            quotas=quotas, batches=tx.tally(ClientBatchRow, "status"), parts=dict(stages), turn_age_s=desk.idle_s,
            drivers={"turning": desk.driven - stalled, "stalled": stalled}, wrong=wrong,
            named=named,
        )  # fmt: skip

    return Response(gateway.metrics.text(await ctx.store.read(read)), media_type=CONTENT_TYPE_LATEST)
