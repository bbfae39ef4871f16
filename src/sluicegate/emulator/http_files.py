"""The files' endpoints: upload, import by URL, list, get, delete, content."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from sluicegate.emulator.blobs import BlobFailed, Blobs
from sluicegate.emulator.provider import Provider, StoredFile
from sluicegate.emulator.wire import Problem, byte_range, empty_page, json_body, page, receive_form, surface_of

CHUNK: Final = 1 << 18
EXPIRY_FIELDS: Final = ("expires_after[{}]", "expires_after.{}", "{}")
"""Three spellings of ``seconds`` and ``anchor`` are in use (F§1.9)."""
EXPIRY_S: Final = {"openai": (3_600, 2_592_000), "azure": (1_209_600, 2_592_000)}
"""From, to (F§1.9)."""
FIRST_VERSION: Final = "2024-07-01"
PURPOSES: Final = frozenset({"assistants", "batch", "fine-tune", "vision", "user_data", "evals"})


class FileEndpoints:
    """Files of one account."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def upload(self, request: Request) -> Response:
        """``POST /files``, a multipart form in any order of its fields."""
        provider = self._provider
        file_id, path = provider.new_path()
        try:
            most = provider.account.upload_bytes_max or provider.account.file_bytes_max
            form = await receive_form(request, path, most)
            check_purpose(form.get("purpose"))
            check_version(request, form["purpose"])
            if "file" not in form:
                raise Problem(400, "invalidPayload", "The file is missing.", param="file")
            seconds = expiry_of_form(form, provider.account.dialect)
            check_kept(request, provider, form["purpose"], seconds)
            name = form["file"] or "upload"
            check_name(request, form["purpose"], name, param="file")
        except (Problem, ClientDisconnect):
            path.unlink(missing_ok=True)
            raise
        file = await provider.add_file(file_id, name, path, purpose=form["purpose"], seconds=seconds)
        return self._made(request, file, request.url.path)

    async def import_by_url(self, request: Request) -> Response:
        """``POST /files/import``: the content comes from a URL, usually a blob's (F§1.2)."""
        provider = self._provider
        body = await json_body(request)
        check_purpose(body.get("purpose"))
        check_version(request, body["purpose"])
        url = body.get("content_url")
        if not isinstance(url, str):
            raise Problem(400, "invalidPayload", "content_url is missing.", param="content_url")
        seconds = expiry_of(body, provider.account.dialect)
        check_kept(request, provider, body["purpose"], seconds)
        file_id, path = provider.new_path()
        over_http = provider.account.blobs is None or ".blob.core.windows.net" not in url
        blobs = Blobs(None, provider.account.blob_sas) if over_http else provider.blobs
        try:
            await asyncio.to_thread(blobs.fetch, url, path)
        except BlobFailed as failed:
            path.unlink(missing_ok=True)
            raise Problem(400, "fileImportFailed", str(failed), param="content_url") from None
        if path.stat().st_size > provider.account.file_bytes_max:
            path.unlink()
            raise Problem(400, "invalidPayload", "File is too large.", param="content_url")
        name = str(body.get("filename") or "upload")
        file = await provider.add_file(file_id, name, path, purpose=str(body["purpose"]), seconds=seconds)
        return self._made(request, file, request.url.path.removesuffix("/import"))

    def _made(self, request: Request, file: StoredFile, base: str) -> Response:
        surface = surface_of(request)
        place = {"location": str(request.url.replace(path=f"{base}/{file.id}"))} if surface.azure else None
        status = 201 if surface.azure and surface.dated else 200
        return JSONResponse(file_json(self._provider, file), status, place)

    async def list(self, request: Request) -> Response:
        """``GET /files``, newest first."""
        wanted, fault = request.query_params.get("purpose"), request.state.fault
        if fault is not None and fault.kind == "empty":
            return empty_page()
        newest = sorted(self._provider.files.values(), key=lambda file: file.created_at)[::-1]
        if fault is not None and fault.kind == "lag":
            newest = [file for file in newest if file.created_at <= self._provider.now() - fault.seconds]
        for file in newest:
            await self._provider.results(file)
        items = [file_json(self._provider, file) for file in newest if wanted in (None, file.purpose)]
        return page(request.query_params, items, default=10_000, most=10_000)

    async def get(self, request: Request) -> Response:
        """``GET /files/{id}``."""
        file = self._file(request)
        await self._provider.results(file)
        return JSONResponse(file_json(self._provider, file))

    async def delete(self, request: Request) -> Response:
        """``DELETE /files/{id}``."""
        file = self._file(request)
        self._provider.delete(file)
        return JSONResponse({"id": file.id, "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        """``GET /files/{id}/content``, whole or a range; ``HEAD`` tells the size."""
        file = self._file(request)
        await self._provider.results(file)
        start, stop, status = byte_range(request.headers.get("range"), file.bytes)
        headers = {
            "content-type": "application/octet-stream", "accept-ranges": "bytes",
            "content-disposition": f"attachment; filename={file.id}.jsonl", "content-length": str(stop - start),
        }  # fmt: skip
        if status == 206:
            headers["content-range"] = f"bytes {start}-{stop - 1}/{file.bytes}"
        if request.method == "HEAD":
            return Response(None, status, headers)
        file.fetched = True
        kind = request.state.fault.kind if request.state.fault is not None else None
        if kind in ("broken", "truncated"):
            stop = start + (stop - start) // 2
        if kind == "truncated":
            headers["content-length"] = str(stop - start)
        return StreamingResponse(_chunks(file, start, stop, kind), status, headers)

    def _file(self, request: Request) -> StoredFile:
        file = self._provider.files.get(request.path_params["id"])
        if file is None:
            text = f"No such File object: {request.path_params['id']}"
            raise Problem(404, "notFound" if surface_of(request).azure else "not_found", text, param="id")
        return file


async def _chunks(file: StoredFile, start: int, stop: int, fault: str | None) -> AsyncIterator[bytes]:
    with file.path.open("rb") as source:
        source.seek(start)
        left = stop - start
        while left > 0 and (chunk := source.read(min(CHUNK, left))):
            left -= len(chunk)
            if fault == "corrupt":
                middle = len(chunk) // 2
                chunk = chunk[:middle] + bytes([chunk[middle] ^ 0x80]) + chunk[middle + 1 :]
            yield chunk
    if fault == "broken":
        raise ConnectionResetError("emulated: the download breaks off")


def file_json(provider: Provider, file: StoredFile) -> dict[str, Any]:
    """A file as both providers show it (F§1.9)."""
    return {
        "id": file.id, "object": "file", "bytes": file.bytes, "created_at": int(file.created_at),
        "filename": file.filename, "purpose": file.purpose, "status": provider.status(file),
        "status_details": None, "expires_at": int(file.expires_at) if file.expires_at is not None else None,
    }  # fmt: skip


def check_version(request: Request, purpose: str) -> None:
    """Older versions of Azure's dated surface know no batches (F§1.2, F§5.2).

    Raises:
        Problem: 400.
    """
    version = request.query_params.get("api-version", "")
    if surface_of(request).dated and surface_of(request).azure and purpose == "batch" and version < FIRST_VERSION:
        raise Problem(400, "invalidPayload", "Invalid value for purpose.", param="purpose")


def check_purpose(purpose: Any) -> None:
    """Only purposes that exist.

    Raises:
        Problem: 400.
    """
    if not isinstance(purpose, str) or purpose not in PURPOSES:
        raise Problem(400, "invalidPayload", "Invalid value for purpose.", param="purpose")


def check_kept(request: Request, provider: Provider, purpose: str, seconds: float | None) -> None:
    """One more input file, expiring or not, has to fit into the quota of files (F§3.1, F§5.2).

    Raises:
        Problem: 400.
    """
    most = provider.quota_of_files(seconds is not None) if purpose == "batch" else None
    fault = request.state.fault
    if fault is not None and fault.kind == "quota":
        most = provider.account.files_max or 500
    if most is not None:
        without = "with" if seconds is not None else "without"
        raise Problem(400, "quotaExceeded", f"The quota for files {without} expiry is reached. The maximum is {most}.")


def check_name(request: Request, purpose: str, name: str, *, param: str) -> None:
    """OpenAI takes input files with one extension; those without any come from streams without a name (F§5.3).

    Raises:
        Problem: 400.
    """
    if surface_of(request).azure or purpose != "batch" or "." not in name or name.lower().endswith(".jsonl"):
        return
    raise Problem(400, "invalid_file_format", "Invalid file format for Batch API. Must be .jsonl", param=param)


def expiry(seconds: Any, dialect: str) -> float | None:
    """Seconds until a file expires, as a form or JSON gives them.

    Raises:
        Problem: 400, no number, or out of the provider's range.
    """
    if seconds is None:
        return None
    least, most = EXPIRY_S[dialect]
    try:
        found = float(seconds)
    except (TypeError, ValueError, OverflowError):
        found = -1.0
    if not least <= found <= most:
        text = f"Invalid value for expires_after.seconds: it is from {least} to {most}."
        raise Problem(400, "invalid_value", text, param="expires_after.seconds")
    return found


def expiry_of_form(form: Mapping[str, str], dialect: str) -> float | None:
    """The same from a form's fields, in any of their spellings.

    Raises:
        Problem: 400.
    """
    seconds, anchor = (
        next((form[key] for key in (field.format(name) for field in EXPIRY_FIELDS) if key in form), None)
        for name in ("seconds", "anchor")
    )
    if anchor is None:
        return expiry(seconds, dialect)
    return expiry_of({"expires_after": {"anchor": anchor, "seconds": seconds}}, dialect)


def expiry_of(body: Mapping[str, Any], dialect: str, name: str = "expires_after") -> float | None:
    """The same from a JSON object ``{"anchor": "created_at", "seconds": …}``.

    Raises:
        Problem: 400.
    """
    given = body.get(name)
    if given is None:
        return None
    if not isinstance(given, dict) or given.get("anchor") != "created_at":
        raise Problem(400, "invalid_value", f"Invalid value for {name}: its anchor is 'created_at'.", param=name)
    if given.get("seconds") is None:
        raise Problem(400, "missing_required_parameter", f"Missing required parameter: '{name}.seconds'.", param=name)
    return expiry(given["seconds"], dialect)
