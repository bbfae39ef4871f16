"""Is the gateway alive, and can it work?"""

from __future__ import annotations

import shutil
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sluicegate.errors import SluicegateError
from sluicegate.web.state import gateway_of

router = APIRouter(tags=["health"])

STALLED_S: Final = 30.0
"""A desk that has not turned for so long hangs or is dead."""

FREE_BYTES_LEAST: Final = 500_000_000


@router.get("/healthz", summary="Is the process up?")
async def healthz() -> Response:
    """200 as long as it answers."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", summary="Can it work?")
async def readyz(request: Request) -> Response:
    """200, or 503 with what is wrong in words: the database, the disk, the loop."""
    gateway = gateway_of(request)
    wrong = []
    try:
        await gateway.ctx.store.transact(lambda tx: tx.deployments())
    except SluicegateError as error:
        wrong.append(f"database: {type(error).__name__}")
    if shutil.disk_usage(gateway.ctx.blobs.path("files/x").parent).free < FREE_BYTES_LEAST:
        wrong.append("storage: less than 500 MB are free")
    if gateway.desk.idle_s > STALLED_S:
        wrong.append(f"loop: it has not turned for {gateway.desk.idle_s:,.0f} s")
    return JSONResponse({"status": "not ready" if wrong else "ok", "wrong": wrong}, 503 if wrong else 200)
