"""``POST /files/import`` of Azure's families: a file's content comes from a URL in blob storage (F§1.2)."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from sluicegate.errors import BlobRefused, BlobUnavailable
from sluicegate.web.dialects import Problem, family_of
from sluicegate.web.files import (
    CHUNK,
    answer_made,
    check_name,
    check_purpose,
    check_room_early,
    enter_file,
    expiry_of,
    room_for,
)
from sluicegate.web.receive import Received
from sluicegate.web.state import caller_of, gateway_of, json_body

router = APIRouter(tags=["files"])

IMPORT_S: Final = 300.0
"""An import that takes longer is given up: the client waits for its answer."""


@router.post("/files/import", summary="Import a file from blob storage")
async def import_by_url(request: Request) -> Response:
    """``content_url`` lies in a container of `gateway_blobs`; it may bring a signature of its own.

    The answer comes when the content is here, so ``status`` is ``processed`` at once.
    """
    caller = await caller_of(request)
    gateway = gateway_of(request)
    ctx = gateway.ctx
    body = await json_body(request)
    check_purpose(body.get("purpose"))
    name = body.get("filename")
    if not isinstance(name, str) or not name:
        raise Problem(400, "invalidPayload", "filename is missing.", param="filename")
    check_name(name)
    given = body.get("content_url")
    url, _, signature = given.partition("?") if isinstance(given, str) else ("", "", "")
    try:
        gateway.desk.validation.check_blob(url)
    except ValueError as error:
        raise Problem(400, "invalidPayload", f"Invalid value for content_url: {error}", param="content_url") from None
    expiry = expiry_of(body.get("expires_after"), family_of(request).dialect)
    await check_room_early(gateway, caller.tenant)
    aside = ctx.blobs.path(f"inputs/{ctx.ids.new('upload')}")
    try:
        async with asyncio.timeout(IMPORT_S):
            size = await gateway.desk.validation.fetch(url, aside, signature=signature)
        digest, lines = await ctx.workers.blocking(_facts, aside)
        got = Received(filename=name, bytes=size, lines=lines, sha256=digest)
        row = await enter_file(ctx, caller.tenant, aside, got, expiry, room_for(gateway, caller.tenant))
    except BlobRefused as error:
        raise Problem(400, "fileImportFailed", f"{error}.", param="content_url") from None
    except (BlobUnavailable, TimeoutError):
        text = "The blob storage does not answer."
        raise Problem(503, "serviceUnavailable", text, param="content_url", retry=True, after_s=10) from None
    finally:
        aside.unlink(missing_ok=True)
    return answer_made(request, row)


def _facts(path: Path) -> tuple[str, int]:
    """A file's SHA-256 and its lines, the last of which need not end."""
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    with path.open("rb") as source:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            lines += chunk.count(b"\n")
            last = chunk[-1:]
    return digest.hexdigest(), lines + (last != b"\n")
