"""The Uploads API: a large file in parts (F§1.1, F§1.2). Parts survive a restart; what is not completed in an hour goes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sluicegate.core.tenancy import FileRow, UploadPartRow, UploadRow
from sluicegate.ports import Tx
from sluicegate.service.retention import PART_SUFFIX, UPLOAD_S, drop_parts
from sluicegate.web.dialects import Problem, family_of, not_found
from sluicegate.web.files import check_purpose, enter_file, expiry_of, file_json, plain
from sluicegate.web.limits import check_room, check_uploads
from sluicegate.web.receive import Received, receive
from sluicegate.web.state import Gateway, caller_of, gateway_of, json_body

router = APIRouter(tags=["uploads"])

PART_BYTES_MAX: Final = 64 << 20
PARTS_MAX: Final = 10_000
KEPT_MOST: Final = 4
"""Times what was announced: clients send parts again whose answers were lost."""


def _json(upload: UploadRow, status: str, file: FileRow | None = None) -> dict[str, Any]:
    return {
        "id": upload.id, "object": "upload", "bytes": upload.bytes, "created_at": int(upload.created_at),
        "filename": upload.filename, "purpose": upload.purpose, "status": status,
        "expires_at": int(upload.created_at + UPLOAD_S), "file": file_json(file) if file is not None else None,
    }  # fmt: skip


async def _upload(request: Request, id_: str) -> UploadRow:
    """The caller's upload, or 404."""
    caller = await caller_of(request)
    found = await gateway_of(request).ctx.store.read(lambda tx: tx.find(UploadRow, id=id_, **caller.sees))
    if not found:
        raise not_found(request, "upload", id_)
    return found[0]


async def _pending(request: Request, id_: str) -> UploadRow:
    """The caller's upload while it takes parts, or a Problem."""
    upload = await _upload(request, id_)
    if upload.status != "pending":
        raise _over(upload.status)
    if gateway_of(request).ctx.clock.now() >= upload.created_at + UPLOAD_S:
        raise _over("expired")
    return upload


def _over(status: str) -> Problem:
    return Problem(400, "invalid_upload_status", f"The upload is {status} already.", param="id")


@router.post("/uploads", summary="Begin an upload in parts")
async def create(request: Request) -> Response:
    """``{"bytes": …, "filename": …, "mime_type": …, "purpose": "batch"}``; it takes parts for an hour."""
    caller = await caller_of(request)
    gateway = gateway_of(request)
    ctx = gateway.ctx
    body = await json_body(request)
    for name in ("bytes", "filename", "mime_type", "purpose"):
        if body.get(name) is None:
            raise Problem(400, "missing_required_parameter", f"Missing required parameter: '{name}'.", param=name)
    check_purpose(body["purpose"])
    size, most = body["bytes"], gateway.settings.gateway_file_bytes_max
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= most:
        raise Problem(400, "invalid_value", f"Invalid value for bytes: it is from 0 to {most}.", param="bytes")
    upload = UploadRow(
        id=ctx.ids.new("upload"), tenant=caller.tenant, filename=plain(str(body["filename"])), purpose="batch", bytes=size,
        created_at=ctx.clock.now(),
        seconds=expiry_of(body.get("expires_after"), family_of(request).dialect),
    )  # fmt: skip

    def enter(tx: Tx) -> None:
        check_uploads(tx, caller.tenant)
        check_room(tx, gateway.settings, caller.tenant)
        tx.insert(upload)

    await ctx.store.transact(enter)
    return JSONResponse(_json(upload, "pending"))


@router.post("/uploads/{id}/parts", summary="Add a part")
async def add_part(request: Request, id: str) -> Response:
    """Multipart form with the field ``data``, at most 64 MB; parts may come in any order and at the same time."""
    upload = await _pending(request, id)
    gateway = gateway_of(request)
    ctx = gateway.ctx
    part_id = ctx.ids.new("part")
    blob = f"inputs/{part_id}{PART_SUFFIX}"
    path = ctx.blobs.path(blob)
    now = ctx.clock.now()
    try:
        got = await receive(request, path, PART_BYTES_MAX, wanted="data")
        if got.filename is None:
            raise Problem(400, "missing_required_parameter", "Missing required parameter: 'data'.", param="data")
        row = UploadPartRow(id=part_id, upload=upload.id, bytes=got.bytes, blob=blob, created_at=now)
        await ctx.store.transact(lambda tx: _enter_part(tx, gateway, upload, row))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    block = {"azure_block_id": base64.b64encode(part_id.encode()).decode()}
    return JSONResponse(
        {"id": part_id, "object": "upload.part", "created_at": int(now), "upload_id": upload.id}
        | (block if family_of(request).azure else {})
    )


def _enter_part(tx: Tx, gateway: Gateway, upload: UploadRow, part: UploadPartRow) -> None:
    """Nothing is kept that nobody can need: neither parts of an ended upload nor much more than announced.

    What was announced has its room already; what is sent beyond it needs some.
    """
    found = tx.find(UploadRow, id=upload.id)
    if not found or found[0].status != "pending":
        raise _over(found[0].status if found else "expired")
    others = tx.find(UploadPartRow, upload=upload.id)
    size = sum(other.bytes for other in others) + part.bytes
    if len(others) >= PARTS_MAX or size > KEPT_MOST * upload.bytes:
        raise Problem(400, "invalid_value", "The upload has more parts or bytes than it was begun for.", param="data")
    if size > upload.bytes:
        check_room(tx, gateway.settings, upload.tenant)
    tx.insert(part)


@router.post("/uploads/{id}/complete", summary="Make the parts a file")
async def complete(request: Request, id: str) -> Response:
    """``{"part_ids": […]}`` in the order of the content, perhaps ``md5``; the upload's ``file`` is usable at once.

    A repeat gives the same file again: clients repeat what was not answered in time.
    """
    ctx = gateway_of(request).ctx
    known = await _upload(request, id)
    if known.status == "completed":
        made = await ctx.store.read(lambda tx: tx.find(FileRow, id=known.file or ""))
        await drop_parts(ctx, known.id)  # whoever completed it may have died before it did
        return JSONResponse(_json(known, "completed", made[0] if made else None))
    upload = await _pending(request, id)
    body = await json_body(request)
    parts = {part.id: part for part in await ctx.store.transact(lambda tx: tx.find(UploadPartRow, upload=upload.id))}
    wanted = body.get("part_ids")
    good = isinstance(wanted, list) and all(isinstance(one, str) and one in parts for one in wanted)
    if not isinstance(wanted, list) or not good or len(set(wanted)) < len(wanted):
        raise Problem(400, "invalid_value", "part_ids has to name parts of this upload, each once.", param="part_ids")
    aside = ctx.blobs.path(f"inputs/{ctx.ids.new('upload')}")
    try:
        got, md5 = await asyncio.to_thread(_join, [ctx.blobs.path(parts[one].blob) for one in wanted], aside)
        if got.bytes != upload.bytes:
            text = f"The upload has {got.bytes} bytes, not {upload.bytes}."
            raise Problem(400, "invalid_value", text, param="bytes")
        if body.get("md5") is not None and body["md5"] != md5:
            raise Problem(400, "invalid_value", "The MD5 checksum is not that of the parts.", param="md5")
        got.filename = upload.filename
        file = await enter_file(
            ctx, upload.tenant, aside, got, upload.seconds, lambda tx, id_: _end(tx, upload, "completed", file=id_)
        )
    except FileNotFoundError:
        raise _over("completed") from None  # another complete or a cancel took the parts while they were joined
    finally:
        aside.unlink(missing_ok=True)
    await drop_parts(ctx, upload.id)
    return JSONResponse(_json(upload, "completed", file))


def _end(tx: Tx, upload: UploadRow, status: str, **changes: str) -> None:
    """End a pending upload; of two that end it at the same time, one is told that it is over."""
    if not tx.amend(UploadRow, upload.id, {"status": "pending"}, status=status, **changes):
        raise _over("ended")


def _join(parts: list[Path], aside: Path) -> tuple[Received, str]:
    """The parts one after the other, fsynced; what they are together, and their MD5."""
    got = Received()
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    last = b"\n"
    with aside.open("wb") as out:
        for part in parts:
            with part.open("rb") as source:
                while chunk := source.read(1 << 20):
                    out.write(chunk)
                    sha256.update(chunk)
                    md5.update(chunk)
                    got.bytes += len(chunk)
                    got.lines += chunk.count(b"\n")
                    last = chunk[-1:]
        out.flush()
        os.fsync(out.fileno())
    got.lines += last != b"\n"
    got.sha256 = sha256.hexdigest()
    return got, md5.hexdigest()


@router.post("/uploads/{id}/cancel", summary="Give an upload up")
async def cancel(request: Request, id: str) -> Response:
    """Its parts are deleted."""
    upload = await _pending(request, id)
    ctx = gateway_of(request).ctx
    await ctx.store.transact(lambda tx: _end(tx, upload, "cancelled"))
    await drop_parts(ctx, upload.id)
    return JSONResponse(_json(upload, "cancelled"))
