"""Files of clients: upload, list, show, content with ranges, delete."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from sluicegate.core.limits import UPLOAD_BYTES_MAX
from sluicegate.core.tenancy import FileRow
from sluicegate.core.types import Dialect
from sluicegate.ports import Tx, Workers
from sluicegate.service.context import Context
from sluicegate.service.prepare import input_key
from sluicegate.service.retention import drop_file
from sluicegate.web.dialects import Problem, family_of, not_found
from sluicegate.web.limits import check_room
from sluicegate.web.paging import listing, page
from sluicegate.web.receive import Received, receive
from sluicegate.web.state import Gateway, caller_of, gateway_of

router = APIRouter(tags=["files"])

CHUNK: Final = 1 << 20
EXPIRES_FIELDS: Final = ("expires_after[seconds]", "expires_after.seconds")
EXPIRES_S: Final = {Dialect.OPENAI: (3_600, 2_592_000), Dialect.AZURE: (1_209_600, 2_592_000)}
"""Bounds of ``expires_after.seconds`` (F§1.9): from an hour, on Azure from fourteen days, to thirty days."""

FIRST_VERSION: Final = "2024-07-01"
"""Azure's api-version that brought batches (F§1.2); older ones know no such purpose (F§5.2)."""

FILENAME_MAX: Final = 255


def file_json(file: FileRow) -> dict[str, Any]:
    """The file object."""
    return {
        "id": file.id, "object": "file", "bytes": file.bytes, "created_at": int(file.created_at),
        "filename": file.filename, "purpose": file.purpose, "status": "processed", "status_details": None,
        "expires_at": int(file.expires_at) if file.expires_at is not None else None,
    }  # fmt: skip


async def find_file(request: Request, id_: str, *, writes: bool | None = None) -> FileRow:
    """The caller's file, or 404; ``writes`` as for :func:`caller_of`."""
    caller = await caller_of(request, writes=writes)
    ctx = gateway_of(request).ctx
    found = await ctx.store.read(lambda tx: tx.find(FileRow, id=id_, **caller.sees))
    if not found or (found[0].expires_at is not None and found[0].expires_at <= ctx.clock.now()):
        raise not_found(request, "file", id_)
    return found[0]


@router.post("/files", summary="Upload a JSONL file")
async def create(request: Request) -> Response:
    """Multipart form with ``purpose`` (``batch``), ``file`` and perhaps ``expires_after``, in any order."""
    caller = await caller_of(request)
    gateway = gateway_of(request)
    ctx = gateway.ctx
    family = family_of(request)
    if family.dated and request.query_params.get("api-version", "")[:10] < FIRST_VERSION:
        raise Problem(400, "invalidPayload", "Invalid value for purpose.", param="purpose")
    await check_room_early(gateway, caller.tenant)
    aside = ctx.blobs.path(f"inputs/{ctx.ids.new('upload')}")
    try:
        most = gateway.settings.gateway_file_bytes_max
        if gateway.settings.gateway_strict and family.azure:
            most = min(most, UPLOAD_BYTES_MAX)
        got = await receive(request, aside, most)
        check_purpose(got.fields.get("purpose"))
        if got.filename is None:
            raise Problem(400, "invalidPayload", "The file is missing.", param="file")
        check_name(got.filename)
        text = next((got.fields[name] for name in EXPIRES_FIELDS if name in got.fields), None)
        row = await enter_file(
            ctx, caller.tenant, aside, got, None if text is None else seconds_of(text, family.dialect),
            room_for(gateway, caller.tenant),
        )  # fmt: skip
    finally:
        aside.unlink(missing_ok=True)
    return answer_made(request, row)


def answer_made(request: Request, file: FileRow) -> Response:
    """The answer to whoever made a file, by sending it or by an import."""
    family = family_of(request)
    files = request.url.path.removesuffix("/import")
    headers = {"location": f"{files}/{file.id}"} if family.azure else None
    return JSONResponse(file_json(file), 201 if family.dated else 200, headers)


async def check_room_early(gateway: Gateway, tenant: str) -> None:
    """A Problem (403) before a file is received that could not be entered anyway."""
    await gateway.ctx.store.read(lambda tx: check_room(tx, gateway.settings, tenant))


def room_for(gateway: Gateway, tenant: str) -> Callable[[Tx, str], None]:
    """For :func:`enter_file`: a Problem (403) if files that came at the same time have left no room."""
    return lambda tx, id_: check_room(tx, gateway.settings, tenant)


def check_purpose(purpose: object) -> None:
    """A Problem (400) if it is not ``batch``."""
    if purpose != "batch":
        raise Problem(400, "invalidPayload", "Invalid value for purpose: this gateway takes 'batch'.", param="purpose")


def check_name(name: str) -> None:
    """A Problem (400) for another extension; files from streams without a name have none (F§5.3)."""
    shown = plain(name)
    if "." in shown and not shown.lower().endswith(".jsonl"):
        raise Problem(400, "invalidPayload", "Invalid file format for Batch API. Must be .jsonl", param="file")


async def enter_file(
    ctx: Context, tenant: str, aside: Path, got: Received, expiry: int | None,
    also: Callable[[Tx, str], None] = lambda tx, id_: None,
) -> FileRow:  # fmt: skip
    """Make what was received at ``aside`` a file.

    Args:
        expiry: Seconds until it goes.
        also: What else is to be written with the file of this id, or, by raising, why it is not to be.
    """
    now = ctx.clock.now()
    row = FileRow(
        id=f"file-{ctx.ids.new('x').removeprefix('x_')}", tenant=tenant, purpose="batch", bytes=got.bytes,
        filename=plain(got.filename or "upload"), lines=got.lines, sha256=got.sha256, blob=input_key(got.sha256),
        created_at=now, expires_at=None if expiry is None else now + expiry,
    )  # fmt: skip

    def enter(tx: Tx) -> None:
        also(tx, row.id)
        # Within the transaction: a delete of the last file with this content cannot come between.
        aside.replace(ctx.blobs.path(row.blob))
        tx.insert(row)

    await ctx.store.transact(enter)
    return row


def seconds_of(given: object, dialect: Dialect, name: str = "expires_after") -> int:
    """``expires_after.seconds`` as a form or JSON gives it, or a Problem (400)."""
    text = str(given) if not isinstance(given, bool) else ""
    seconds = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0
    least, most = EXPIRES_S[dialect]
    if not least <= seconds <= most:
        raise Problem(400, "invalid_value", f"{name}.seconds is from {least} to {most}.", param=name)
    return seconds


def expiry_of(given: object, dialect: Dialect, name: str = "expires_after") -> int | None:
    """Seconds of the field ``name`` in a JSON body, ``given`` is its value: None if it is absent, or a Problem (400)."""
    if given is None:
        return None
    if not isinstance(given, dict) or given.get("anchor") != "created_at":
        raise Problem(400, "invalid_value", f"Invalid value for {name}: its anchor is 'created_at'.", param=name)
    if given.get("seconds") is None:
        raise Problem(400, "missing_required_parameter", f"Missing required parameter: '{name}.seconds'.", param=name)
    return seconds_of(given["seconds"], dialect, name)


def plain(name: str) -> str:
    """A file name to show; it never names anything on disk."""
    return re.sub(r"[\x00-\x1f\x7f]", "", name.rpartition("/")[2].rpartition("\\")[2])[:FILENAME_MAX] or "upload"


@router.get("/files", summary="List files")
async def list_files(request: Request) -> Response:
    """Newest first; ``purpose``, ``limit``, ``after``, ``before``, ``order``."""
    caller = await caller_of(request)
    purpose = request.query_params.get("purpose")
    equal = caller.sees | ({"purpose": purpose} if purpose else {})
    rows, more = await page(request, FileRow, default=10_000, most=10_000, **equal)
    return JSONResponse(listing([file_json(row) for row in rows], more))


@router.get("/files/{id}", summary="Show a file")
async def show(request: Request, id: str) -> Response:
    """The file object."""
    return JSONResponse(file_json(await find_file(request, id)))


@router.delete("/files/{id}", summary="Delete a file")
async def delete(request: Request, id: str) -> Response:
    """Its content goes too, unless a batch still needs it."""
    file = await find_file(request, id)
    await drop_file(gateway_of(request).ctx, file)
    return JSONResponse({"id": file.id, "object": "file", "deleted": True})


@router.get("/files/{id}/content", summary="A file's content")
@router.head("/files/{id}/content", summary="A file's content, without it")
async def content(request: Request, id: str) -> Response:
    """The bytes; ``Range: bytes=a-b`` gives a piece with 206."""
    file = await find_file(request, id)
    ctx = gateway_of(request).ctx
    path = ctx.blobs.path(file.blob)
    if not await ctx.workers.blocking(path.exists):
        raise not_found(request, "file", id)
    start, stop, status = byte_range(request.headers.get("range"), file.bytes)
    headers = {
        "content-length": str(stop - start), "content-type": "application/octet-stream", "accept-ranges": "bytes",
        "etag": f'"{file.sha256}"', "content-disposition": "attachment",
    }  # fmt: skip
    if status == 206:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{file.bytes}"
    if status == 416:
        return Response(status_code=416, headers={"content-range": f"bytes */{file.bytes}"})
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(_chunks(ctx.workers, path, start, stop), status, headers)


async def _chunks(workers: Workers, path: Path, start: int, stop: int) -> AsyncIterator[bytes]:
    """A piece of a file, read in threads: a disk that is slow stops nobody else's answer."""
    with await workers.blocking(path.open, "rb") as source:
        source.seek(start)
        while start < stop and (chunk := await workers.blocking(source.read, min(CHUNK, stop - start))):
            start += len(chunk)
            yield chunk


def byte_range(header: str | None, size: int) -> tuple[int, int, int]:
    """(start, stop, status) of a Range header: one range is honoured, anything else is the whole (RFC 9110 §14.2)."""
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", (header or "").strip())
    if match is None or not any(match.groups()):
        return 0, size, 200
    if not match[1]:
        last = int(match[2])
        return (max(0, size - last), size, 206) if last and size else (0, 0, 416)
    start = int(match[1])
    stop = min(size, int(match[2]) + 1) if match[2] else size
    if start >= size:
        return 0, 0, 416
    return (start, stop, 206) if stop > start else (0, size, 200)
