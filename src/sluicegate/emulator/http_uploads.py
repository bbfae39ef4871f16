"""The Uploads API: a large file in parts (F§1.1, F§1.2)."""

from __future__ import annotations

import asyncio
import base64
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from sluicegate.emulator.blobs import md5_of
from sluicegate.emulator.http_files import check_kept, check_name, check_purpose, check_version, expiry_of, file_json
from sluicegate.emulator.provider import Provider, StoredFile
from sluicegate.emulator.wire import Problem, json_body, receive_form, surface_of

PART_BYTES_MAX: Final = 64 << 20
UPLOAD_BYTES_MAX: Final = {"openai": 8 << 30, "azure": 9 << 30}
LIFETIME_S: Final = 3_600


@dataclass(slots=True)
class Upload:
    """An upload that is being put together; ``parts`` are files by their id, in the order in which they came."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: float
    seconds: float | None
    status: str = "pending"
    parts: dict[str, Path] = field(default_factory=dict)
    file: StoredFile | None = None


class UploadEndpoints:
    """Uploads of one account.

    Args:
        count: Counts a file that is about to be made; a Problem if there are too many for now.
    """

    def __init__(self, provider: Provider, count: Callable[[], None]) -> None:
        self._provider = provider
        self._count = count
        self._uploads: dict[str, Upload] = {}

    async def create(self, request: Request) -> Response:
        """``POST /uploads``."""
        body = await json_body(request)
        for name in ("bytes", "filename", "mime_type", "purpose"):
            if body.get(name) is None:
                raise Problem(400, "missing_required_parameter", f"Missing required parameter: '{name}'.", param=name)
        check_purpose(body["purpose"])
        check_version(request, body["purpose"])
        check_name(request, body["purpose"], str(body["filename"]), param="filename")
        dialect = self._provider.account.dialect
        size, most = body["bytes"], UPLOAD_BYTES_MAX[dialect]
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= most:
            raise Problem(400, "invalid_value", f"Invalid value for bytes: it is from 0 to {most}.", param="bytes")
        upload = Upload(
            id=f"upload_{secrets.token_hex(16)}", filename=str(body["filename"]), purpose=body["purpose"], bytes=size,
            created_at=self._provider.now(), seconds=expiry_of(body, dialect),
        )  # fmt: skip
        self._uploads[upload.id] = upload
        return JSONResponse(self._json(upload))

    async def add_part(self, request: Request) -> Response:
        """``POST /uploads/{id}/parts``, the form field ``data``."""
        upload = self._pending(request)
        part_id = f"part_{secrets.token_hex(16)}"
        path = self._provider.folder / part_id
        try:
            form = await receive_form(request, path, PART_BYTES_MAX, field="data")
            if "data" not in form:
                raise Problem(400, "missing_required_parameter", "Missing required parameter: 'data'.", param="data")
        except (Problem, ClientDisconnect):
            path.unlink(missing_ok=True)
            raise
        upload.parts[part_id] = path
        azure = {"azure_block_id": base64.b64encode(part_id.encode()).decode()} if surface_of(request).azure else {}
        return JSONResponse(
            {
                "id": part_id,
                "object": "upload.part",
                "created_at": int(self._provider.now()),
                "upload_id": upload.id,
                **azure,
            }
        )

    async def complete(self, request: Request) -> Response:
        """``POST /uploads/{id}/complete``: the parts in the order of ``part_ids`` become a file."""
        upload = self._pending(request)
        body = await json_body(request)
        wanted = body.get("part_ids")
        known = isinstance(wanted, list) and all(isinstance(one, str) and one in upload.parts for one in wanted)
        if not isinstance(wanted, list) or not known or len(set(wanted)) < len(wanted):
            raise Problem(
                400, "invalid_value", "part_ids has to name parts of this upload, each once.", param="part_ids"
            )
        self._count()
        check_kept(request, self._provider, upload.purpose, upload.seconds)
        file_id, path = self._provider.new_path()
        await asyncio.to_thread(_join, [upload.parts[one] for one in wanted], path)
        size = path.stat().st_size
        problem = None
        if size != upload.bytes:
            problem = Problem(400, "invalid_value", f"The upload has {size} bytes, not {upload.bytes}.", param="bytes")
        elif (md5 := body.get("md5")) is not None and md5 != await asyncio.to_thread(md5_of, path):
            problem = Problem(400, "invalid_value", "The MD5 checksum is not that of the parts.", param="md5")
        if problem is not None:
            path.unlink()
            raise problem
        upload.status = "completed"
        upload.file = await self._provider.add_file(
            file_id, upload.filename, path, purpose=upload.purpose, seconds=upload.seconds
        )
        self._drop_parts(upload)
        return JSONResponse(self._json(upload))

    async def cancel(self, request: Request) -> Response:
        """``POST /uploads/{id}/cancel``."""
        upload = self._pending(request)
        upload.status = "cancelled"
        self._drop_parts(upload)
        return JSONResponse(self._json(upload))

    def _drop_parts(self, upload: Upload) -> None:
        for path in upload.parts.values():
            path.unlink(missing_ok=True)
        upload.parts.clear()

    def _pending(self, request: Request) -> Upload:
        upload = self._uploads.get(request.path_params["id"])
        if upload is None:
            text = f"No such Upload object: {request.path_params['id']}"
            raise Problem(404, "notFound" if surface_of(request).azure else "not_found", text, param="id")
        if upload.status == "pending" and self._provider.now() >= upload.created_at + LIFETIME_S:
            upload.status = "expired"
            self._drop_parts(upload)
        if upload.status != "pending":
            raise Problem(400, "invalid_upload_status", f"The upload is {upload.status} already.", param="id")
        return upload

    def _json(self, upload: Upload) -> dict[str, Any]:
        return {
            "id": upload.id, "object": "upload", "bytes": upload.bytes, "created_at": int(upload.created_at),
            "filename": upload.filename, "purpose": upload.purpose, "status": upload.status,
            "expires_at": int(upload.created_at) + LIFETIME_S,
            "file": file_json(self._provider, upload.file) if upload.file is not None else None,
        }  # fmt: skip


def _join(parts: list[Path], path: Path) -> None:
    with path.open("wb") as out:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, out, 1 << 20)
