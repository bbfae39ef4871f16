"""The model over HTTP: files and batches in all three URL families, both dialects' envelopes (F§1, F§5)."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shutil
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import multipart
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from sluicegate.core.limits import OPENAI, parse_tokens
from sluicegate.emulator import files
from sluicegate.emulator.config import Account, fault_of
from sluicegate.emulator.model import LIVE, Batch, InputFacts, Model, Refused
from sluicegate.errors import UsageError

CHUNK: Final = 1 << 20
PREFIXES: Final = ("/v1", "/openai/v1", "/openai")


@dataclass(slots=True)
class StoredFile:
    """A file in the account. ``facts`` is set once it has been read; ``batch`` makes results when they are asked for."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: float
    path: Path
    ready_at: float
    facts: InputFacts | None = None
    batch: str | None = None
    fetched: bool = False
    expires_at: float | None = None


class Problem(Exception):
    """An HTTP error in the caller's dialect."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None, after: float | None = None):
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.after = status, code, message, param, after


class Emulator:
    """One account behind HTTP.

    Args:
        folder: Where uploaded and written files are.
    """

    def __init__(self, account: Account, folder: Path) -> None:
        self.account = account.with_defaults()
        self.model = Model(self.account)
        self.folder = folder
        self.files: dict[str, StoredFile] = {}
        self._started = time.time()
        self._reading: set[asyncio.Task[None]] = set()
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._lost_lines = 0
        self._deleted_unfetched = 0

    def now(self) -> float:
        """The emulated clock: it runs ``speed`` times as fast as the wall clock since the start."""
        return self._started + (time.time() - self._started) * self.account.speed

    def app(self) -> Starlette:
        """The routes."""
        routes = []
        for prefix in PREFIXES:
            for path, methods, handler in (
                ("/files", ["POST"], self.upload),
                ("/files", ["GET"], self.list_files),
                ("/files/{id}", ["GET"], self.get_file),
                ("/files/{id}", ["DELETE"], self.delete_file),
                ("/files/{id}/content", ["GET"], self.content),
                ("/batches", ["POST"], self.create),
                ("/batches", ["GET"], self.list_batches),
                ("/batches/{id}", ["GET"], self.get_batch),
                ("/batches/{id}/cancel", ["POST"], self.cancel),
            ):
                routes.append(Route(prefix + path, self._guarded(handler), methods=methods))
        routes += [
            Route("/healthz", self.health),
            Route("/_emulator/report", self.report),
            Route("/_emulator/held", self.held),
            Route("/_emulator/limit", self.set_limit, methods=["POST"]),
            Route("/_emulator/rate", self.set_rate, methods=["POST"]),
            Route("/_emulator/foreign", self.add_foreign, methods=["POST"]),
            Route("/_emulator/fault", self.add_fault, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={404: self._no_route, 405: self._no_route})

    # -- around every call ----------------------------------------------------------------------------------------------

    def _guarded(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                self._check_key(request)
                self.model.advance(self.now())
                await self._wanted_foreign()
                return await handler(request)
            except Problem as problem:
                return self._envelope(request, problem)

        return guarded

    def _azure(self, request: Request) -> bool:
        return request.url.path.startswith("/openai") and self.account.dialect == "azure"

    def _envelope(self, request: Request, problem: Problem) -> Response:
        if self._azure(request):
            error: dict[str, Any] = {"code": problem.code, "message": problem.message}
        else:
            kind = "invalid_request_error" if problem.status < 500 else "server_error"
            error = {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}
        headers = {"x-request-id": secrets.token_hex(16)}
        if problem.after is not None:
            headers |= {
                "retry-after": f"{max(1, round(problem.after))}",
                "retry-after-ms": f"{round(problem.after * 1000)}",
            }
        return JSONResponse({"error": error}, problem.status, headers)

    async def _no_route(self, request: Request, error: Exception) -> Response:
        if "/deployments/" in request.url.path:
            text = "The API deployment for this resource does not exist."
            return self._envelope(request, Problem(404, "DeploymentNotFound", text))
        return self._envelope(request, Problem(404, "404", "Resource not found"))

    def _check_key(self, request: Request) -> None:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        given = [key for key in (request.headers.get("api-key", "").strip(), bearer) if key]
        if not given or (self.account.keys and not set(given) & set(self.account.keys)):
            if self._azure(request):
                text = (
                    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid "
                    "key for an active subscription and use a correct regional API endpoint for your resource."
                )
                raise Problem(401, "401", text)
            raise Problem(401, "invalid_api_key", "Incorrect API key provided.")
        if request.url.path.startswith("/openai/") and not request.url.path.startswith("/openai/v1/") \
                and "api-version" not in request.query_params:  # fmt: skip
            raise Problem(404, "404", "Resource not found")

    def _fault(self, on: str) -> str | None:
        """A fault before the commit is raised here; ``lost`` and ``broken`` are returned."""
        kind = self.model.fault(on)
        if kind in ("429", "500", "502", "503"):
            text = "Requests have exceeded the call rate limit." if kind == "429" else "The server had an error."
            raise Problem(int(kind), "too_many_requests" if kind == "429" else "server_error", text,
                          after=1.0 if kind == "429" else None)  # fmt: skip
        return kind

    # -- files ----------------------------------------------------------------------------------------------------------

    async def upload(self, request: Request) -> Response:
        azure = self._azure(request)
        fault = self._fault("upload")
        if fault == "reset":
            return _Hangup()
        kept = sum(1 for file in self.files.values() if file.purpose == "batch" and file.expires_at is None)
        if self.account.files_max is not None and kept >= self.account.files_max:
            most = self.account.files_max
            raise Problem(
                400, "quotaExceeded", f"The quota for files without expiry is reached. The maximum is {most}."
            )
        file_id = f"file-{secrets.token_hex(16)}"
        path = self.folder / file_id
        try:
            form = await _receive(request, path, self.account.file_bytes_max)
            if form.get("purpose") != "batch":
                raise Problem(400, "invalidPayload", "Invalid value for purpose.", param="purpose")
            if "file" not in form:
                raise Problem(400, "invalidPayload", "The file is missing.", param="file")
        except (Problem, ClientDisconnect):
            path.unlink(missing_ok=True)
            raise
        now = self.now()
        seconds = next((v for k, v in form.items() if k in EXPIRY_FIELDS), None)
        file = StoredFile(
            id=file_id, filename=form["file"] or "upload", purpose="batch", bytes=path.stat().st_size, created_at=now,
            path=path, ready_at=now + self.account.pending_s, expires_at=now + float(seconds) if seconds else None,
        )  # fmt: skip
        self.files[file_id] = file
        task = asyncio.get_running_loop().create_task(self._read(file))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        if file.bytes < 4_000_000:
            await task
        if fault == "lost":
            return _Hangup()
        headers = {"location": str(request.url.replace(path=f"{request.url.path}/{file_id}"))} if azure else None
        return JSONResponse(self._file_json(file), 201 if azure else 200, headers)

    async def _read(self, file: StoredFile) -> None:
        file.facts = await asyncio.to_thread(files.read, file.path, self.account)

    def _status(self, file: StoredFile) -> str:
        ready = (file.facts is not None or file.purpose != "batch") and self.now() >= file.ready_at
        return "processed" if ready else "pending"

    def _file_json(self, file: StoredFile) -> dict[str, Any]:
        return {
            "id": file.id, "object": "file", "bytes": file.bytes, "created_at": int(file.created_at),
            "filename": file.filename, "purpose": file.purpose, "status": self._status(file), "status_details": None,
            "expires_at": int(file.expires_at) if file.expires_at else None,
        }  # fmt: skip

    def _file(self, request: Request) -> StoredFile:
        file = self.files.get(request.path_params["id"])
        if file is None:
            text = f"No such File object: {request.path_params['id']}"
            raise Problem(404, "notFound" if self._azure(request) else "not_found", text, param="id")
        return file

    async def list_files(self, request: Request) -> Response:
        wanted = request.query_params.get("purpose")
        newest = [f for f in reversed(self.files.values()) if wanted in (None, f.purpose)]
        return self._page(request, [self._file_json(file) for file in newest], default=10_000, most=10_000)

    async def get_file(self, request: Request) -> Response:
        file = self._file(request)
        await self._results(file)
        return JSONResponse(self._file_json(file))

    async def delete_file(self, request: Request) -> Response:
        file = self._file(request)
        if file.purpose == "batch_output" and not file.fetched:
            self._deleted_unfetched += 1
        batch = self.model.batches.get(file.batch or "")
        if batch is None and not self._needed(file):
            file.path.unlink(missing_ok=True)
        del self.files[file.id]
        return JSONResponse({"id": file.id, "object": "file", "deleted": True})

    def _needed(self, file: StoredFile) -> bool:
        """An accepted batch goes on without its input file's entry; its results are written from the content."""
        return any(batch.input_file_id == file.id for batch in self.model.batches.values())

    async def content(self, request: Request) -> Response:
        file = self._file(request)
        fault = self._fault("download")
        await self._results(file)
        file.fetched = True
        start, stop, status = _range(request.headers.get("range"), file.bytes)
        if fault == "broken":
            stop = start + (stop - start) // 2

        async def chunks() -> AsyncIterator[bytes]:
            with file.path.open("rb") as source:
                source.seek(start)
                left = stop - start
                while left > 0 and (chunk := source.read(min(CHUNK, left))):
                    left -= len(chunk)
                    yield chunk
            if fault == "broken":
                raise ConnectionResetError("emulated: the download breaks off")

        length = file.bytes - start if fault == "broken" else stop - start
        headers = {"content-length": str(length), "content-type": "application/octet-stream"}
        if status == 206:
            headers["content-range"] = f"bytes {start}-{stop - 1}/{file.bytes}"
        return StreamingResponse(chunks(), status, headers)

    async def _results(self, file: StoredFile) -> None:
        """Write a batch's results when they are first asked for."""
        if file.batch is None or file.path.exists():
            return
        task = self._writing.get(file.batch)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._write(self.model.batches[file.batch]))
            self._writing[file.batch] = task
        await asyncio.shield(task)

    async def _write(self, batch: Batch) -> None:
        output, errors = self._result_paths(batch)
        aside = output.with_name(f"{output.name}.tmp"), errors.with_name(f"{errors.name}.tmp")
        await asyncio.to_thread(files.write_results, self.model, batch, self.folder / batch.input_file_id, *aside)
        for temporary, path in zip(aside, (output, errors), strict=True):
            temporary.replace(path)
        for file_id, path in ((batch.output_file_id, output), (batch.error_file_id, errors)):
            if file_id in self.files:
                self.files[file_id].bytes = path.stat().st_size

    def _result_paths(self, batch: Batch) -> tuple[Path, Path]:
        return self.folder / f"{batch.id}.output", self.folder / f"{batch.id}.errors"

    # -- batches --------------------------------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        azure = self._azure(request)
        fault = self._fault("create")
        if fault == "reset":
            return _Hangup()
        body = await _json(request)
        endpoint, window = body.get("endpoint"), body.get("completion_window")
        if not isinstance(endpoint, str) or (not azure and endpoint not in OPENAI.urls):
            served = ", ".join(f"'{url}'" for url in sorted(OPENAI.urls))
            raise Problem(400, "invalid_value", f"Invalid value: '{endpoint}'. Supported values are: {served}.",
                          param="endpoint")  # fmt: skip
        if window != "24h" and not azure:
            raise Problem(400, "invalid_value", f"Invalid value: '{window}'. Supported values are: '24h'.",
                          param="completion_window")  # fmt: skip
        metadata = body.get("metadata")
        for key, value in (metadata or {}).items():
            if not isinstance(value, str):
                text = f"Invalid type for 'metadata.{key}': expected a string, but got {_type_of(value)} instead."
                raise Problem(400, "invalid_type", text, param=f"metadata.{key}")
        file = self.files.get(str(body.get("input_file_id")))
        facts = self._facts(azure, file, str(body.get("input_file_id")), window)
        assert file is not None or facts.problems
        try:
            batch = self.model.create(
                self.now(), batch_id=f"batch_{secrets.token_hex(16)}", file_id=str(body.get("input_file_id")),
                facts=facts, endpoint=endpoint, metadata=metadata or None,
            )  # fmt: skip
        except Refused as refused:
            raise Problem(refused.status, refused.code, refused.message, after=refused.retry_after_s) from None
        if fault == "lost":
            return _Hangup()
        answer = self._batch_json(batch)
        headers = {"x-request-id": secrets.token_hex(16)}
        if azure:
            answer |= {"output_file_id": "", "error_file_id": ""}
            if self.account.headers:
                headers["deployment-enqueued-tokens"] = str(round(facts.quarter_chars * self.account.count_factor))
                limit = self.model.limit(facts.deployment)
                if limit is not None:
                    headers["deployment-maximum-enqueued-tokens"] = str(limit)
        dated = azure and not request.url.path.startswith("/openai/v1")
        return JSONResponse(answer, 201 if dated else 200, headers)

    def _facts(self, azure: bool, file: StoredFile | None, file_id: str, window: Any) -> InputFacts:
        empty = InputFacts(tokens=array("I"), identity=array("Q"), quarter_chars=0, deployment="", url="")
        if file is None:
            if azure:
                raise Problem(400, "invalidPayload", f"The input file '{file_id}' does not exist.")
            text = f"Cannot find file {file_id}, or organization org-emulated does not have access to it."
            empty.problems.append({"code": "invalid_request", "message": text, "param": "file_id", "line": None})
            return empty
        if self._status(file) != "processed" or file.facts is None:
            raise Problem(
                400, "invalidPayload",
                f"The input file '{file_id}' is in 'pending' state. Only files with status 'Processed' are accepted for "
                "batch inferencing. Please check the file status and try again",
            )  # fmt: skip
        facts = file.facts
        if facts.deployment and not self.model.exists(facts.deployment):
            text = f"The provided model '{facts.deployment}' is not supported by the Batch API."
            if azure:
                text = f"The deployment '{facts.deployment}' could not be found."
            empty.problems.append({"code": "model_not_found", "message": text, "param": "body.model", "line": 1})
            return empty
        if window != "24h":
            empty.problems.append(
                {"code": "invalid_request", "message": f"completion_window '{window}' is not supported.", "param": None,
                 "line": None}
            )  # fmt: skip
            return empty
        return facts

    def _batch_json(self, batch: Batch) -> dict[str, Any]:
        azure = self.account.dialect == "azure"
        total = len(batch.facts.tokens)
        started = batch.status not in ("validating",) and bool(batch.times.get("in_progress_at"))
        failed = self._failed_lines(batch) if batch.status not in LIVE else 0
        if batch.status not in LIVE and batch.status != "failed":
            self._make_results(batch, failed)
        times = {
            name: int(batch.times[name]) if name in batch.times else None
            for name in ("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at",
                         "cancelled_at")
        }  # fmt: skip
        return {
            "id": batch.id, "object": "batch",
            "endpoint": batch.endpoint.removeprefix("/v1") if azure else batch.endpoint, "model": batch.deployment or None,
            "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
            "input_file_id": batch.input_file_id, "completion_window": "24h", "status": batch.status,
            "output_file_id": batch.output_file_id, "error_file_id": batch.error_file_id,
            "created_at": int(batch.created_at), "expires_at": int(batch.created_at) + 86_400, **times,
            "request_counts": {
                "total": total if started else 0, "completed": batch.executed - failed if started else 0,
                "failed": failed,
            },
            "metadata": batch.metadata,
        }  # fmt: skip

    def _failed_lines(self, batch: Batch) -> int:
        if not any(fault.on == "line" for fault in self.model.faults):
            return 0
        bad = ("0", "429", "500", "content_filter")
        return sum(1 for i in range(batch.executed) if self.model.line_fate(batch, i) in bad)

    def _make_results(self, batch: Batch, failed: int) -> None:
        """Result files appear with a batch's end: Azure names an empty error file, OpenAI gives null (F§2.4)."""
        if batch.output_file_id is not None or batch.error_file_id is not None:
            return
        output, errors = self._result_paths(batch)
        unfinished = batch.ends_as == "expired" and batch.executed < len(batch.facts.tokens)
        if batch.executed - failed > 0:
            batch.output_file_id = self._add_result(batch, output, "output")
        if failed or unfinished or self.account.dialect == "azure":
            batch.error_file_id = self._add_result(batch, errors, "error")

    def _add_result(self, batch: Batch, path: Path, kind: str) -> str:
        file_id = f"file-{secrets.token_hex(4)}-{secrets.token_hex(8)}"
        now = self.now()
        self.files[file_id] = StoredFile(
            id=file_id, filename=f"{batch.id}_{kind}.jsonl", purpose="batch_output", bytes=0, created_at=now, path=path,
            ready_at=now, batch=batch.id,
        )  # fmt: skip
        return file_id

    def _batch(self, request: Request) -> Batch:
        batch = self.model.batches.get(request.path_params["id"])
        if batch is None:
            text = f"No batch found with id '{request.path_params['id']}'."
            raise Problem(404, "notFound" if self._azure(request) else "not_found", text)
        return batch

    async def list_batches(self, request: Request) -> Response:
        fault = self._fault("list")
        if fault in ("reset", "lost"):
            return _Hangup()
        chosen = [self._batch_json(batch) for batch in reversed(self.model.batches.values())]
        if self._azure(request):
            chosen = _filtered(chosen, request.query_params.get("$filter"), request.query_params.get("$orderby"))
        return self._page(request, chosen, default=20, most=100)

    async def get_batch(self, request: Request) -> Response:
        return JSONResponse(self._batch_json(self._batch(request)))

    async def cancel(self, request: Request) -> Response:
        batch = self._batch(request)
        try:
            self.model.cancel(self.now(), batch.id)
        except Refused as refused:
            raise Problem(refused.status, refused.code, refused.message) from None
        return JSONResponse(self._batch_json(batch))

    def _page(self, request: Request, items: list[dict[str, Any]], *, default: int, most: int) -> Response:
        query = request.query_params
        try:
            limit = int(query.get("limit", default))
        except ValueError:
            limit = 0
        if not 1 <= limit <= most:
            raise Problem(400, "invalid_value", f"Invalid value for limit: it is from 1 to {most}.", param="limit")
        after = query.get("after")
        if after:
            place = next((i for i, item in enumerate(items) if item["id"] == after), None)
            if place is None:
                raise Problem(400, "invalid_value", f"There is no item {after!r} to go on after.", param="after")
            items = items[place + 1 :]
        page = items[:limit]
        ids = [item["id"] for item in page]
        return JSONResponse(
            {"object": "list", "data": page, "first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None,
             "has_more": len(items) > limit}
        )  # fmt: skip

    # -- the emulator's own ---------------------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def report(self, request: Request) -> Response:
        unfetched = sum(
            self.model.batches[file.batch].executed
            for file in self.files.values()
            if file.batch is not None and file.filename.endswith("_output.jsonl") and not file.fetched
        )
        return JSONResponse(self.model.report(self.now()) | {"lines_never_fetched": unfetched})

    async def held(self, request: Request) -> Response:
        return JSONResponse(self.model.books(self.now()))

    async def set_limit(self, request: Request) -> Response:
        body = await _json(request)
        limit = body.get("limit")
        tokens = parse_tokens(limit) if isinstance(limit, str) else limit
        self.model.set_limit(self.now(), tokens, body.get("deployment"))
        return JSONResponse({"limit": tokens})

    async def set_rate(self, request: Request) -> Response:
        self.model.advance(self.now())
        self.model.rate = float((await _json(request)).get("rate", 0))
        return JSONResponse({"rate": self.model.rate})

    async def add_foreign(self, request: Request) -> Response:
        body = await _json(request)
        tokens, seconds = int(body["tokens"]), float(body.get("seconds", 3_600))
        if body.get("listed", True):
            batch = await self._foreign(str(body.get("deployment", "")), tokens, seconds)
            return JSONResponse({"id": batch.id, "tokens": batch.tokens})
        self.model.hold_unlisted(self.now(), tokens, seconds)
        return JSONResponse({"tokens": tokens})

    async def add_fault(self, request: Request) -> Response:
        try:
            fault = fault_of(await _json(request))
        except (UsageError, TypeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        self.model.faults.append(fault)
        return JSONResponse({"faults": len(self.model.faults)})

    async def _wanted_foreign(self) -> None:
        while self.model.wanted_foreign:
            change, _ = self.model.wanted_foreign.pop(0)
            name = next((b.deployment for b in self.model.batches.values()), "")
            await self._foreign(name, change.tokens, change.for_s)

    async def _foreign(self, deployment: str, tokens: int, seconds: float) -> Batch:
        """Somebody else's batch: a real file, held for a while."""
        name = deployment or next((b.deployment for b in self.model.batches.values()), "gpt-4.1")
        file_id = f"file-{secrets.token_hex(16)}"
        path = self.folder / file_id
        path.write_bytes(files.foreign_lines(name, tokens, "/v1/chat/completions", self.account.seed))
        now = self.now()
        file = StoredFile(
            id=file_id, filename="other.jsonl", purpose="batch", bytes=path.stat().st_size, created_at=now, path=path,
            ready_at=now, expires_at=now + 10 * 86_400,
        )  # fmt: skip
        self.files[file_id] = file
        await self._read(file)
        assert file.facts is not None
        batch = self.model.create(
            now, batch_id=f"batch_{secrets.token_hex(16)}", file_id=file_id, facts=file.facts,
            endpoint="/v1/chat/completions", metadata=None, foreign=True,
        )  # fmt: skip
        batch.fault = "stuck_in_progress"
        asyncio.get_running_loop().call_later(seconds / self.account.speed, self._end_foreign, batch)
        return batch

    def _end_foreign(self, batch: Batch) -> None:
        self.model.advance(self.now())
        if batch.status in LIVE:
            self.model.cancel(self.now(), batch.id)
            batch.until = self.now()
            self.model.advance(self.now())

    def close(self) -> None:
        """Forget the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


TRANSPORT: Final = "sluicegate.transport"


def with_transport(app: Starlette) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """Let handlers reach the connection, so that a fault can break it."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope.setdefault("extensions", {})[TRANSPORT] = send.__self__.transport
        await app(scope, receive, send)

    return outer


EXPIRY_FIELDS: Final = ("expires_after[seconds]", "expires_after.seconds", "seconds")


class _Hangup(Response):
    """Close the connection without an answer."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"][TRANSPORT].abort()


def _range(header: str | None, size: int) -> tuple[int, int, int]:
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", header or "")
    if match is None:
        return 0, size, 200
    start = min(int(match[1]), size)
    stop = min(size, int(match[2]) + 1) if match[2] else size
    return start, stop, 206


def _filtered(items: list[dict[str, Any]], where: str | None, order: str | None) -> list[dict[str, Any]]:
    """Azure's ``$filter`` (``created_at gt 1728860560 and status eq 'Completed'``) and ``$orderby`` (F§1.2)."""
    for clause in re.split(r"\s+and\s+", where or ""):
        match = re.fullmatch(r"\s*(\w+)\s+(eq|ne|gt|ge|lt|le)\s+(?:'([^']*)'|(\d+))\s*", clause)
        if match is None:
            if clause.strip():
                raise Problem(400, "invalidPayload", f"The filter {clause!r} is not understood.")
            continue
        name, verb, text, number = match.groups()
        wanted: Any = int(number) if number else text.lower()
        compare: dict[str, Callable[[Any, Any], bool]] = {
            "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
            "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
        }  # fmt: skip
        items = [i for i in items if i.get(name) is not None and compare[verb](i[name], wanted)]
    if order:
        name, _, direction = order.partition(" ")
        items = sorted(items, key=lambda i: i.get(name) or 0, reverse=direction.strip().lower() == "desc")
    return items


def _type_of(value: Any) -> str:
    names = {list: "an array", dict: "an object", bool: "a boolean", int: "an integer", float: "a decimal"}
    return names.get(type(value), "null")


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Problem(400, "invalidPayload", "We could not parse the JSON body of your request.")
    return body


async def _receive(request: Request, path: Path, most: int) -> dict[str, str]:
    """Stream a multipart form: the file to ``path``, its name and the other fields as text, in whichever order."""
    kind, options = multipart.parse_options_header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data" or "boundary" not in options:
        raise Problem(400, "invalidPayload", "The body is not multipart/form-data.")
    form: dict[str, str] = {}
    name, size = "", 0
    value = bytearray()
    try:
        with path.open("wb") as out, multipart.PushMultipartParser(options["boundary"]) as parser:
            async for chunk in request.stream():
                for event in parser.parse(chunk):
                    if isinstance(event, multipart.MultipartSegment):
                        name = event.name or ""
                        if name == "file":
                            form["file"] = event.filename or "upload"
                    elif event is None:
                        if name and name != "file":
                            form[name] = value.decode("utf-8", "replace")
                        value.clear()
                    elif name == "file":
                        size += len(event)
                        if size > most:
                            raise Problem(413, "invalidPayload", "File is too large.")
                        out.write(event)
                    else:
                        value += event
                        if len(value) > 65_536:
                            raise Problem(400, "invalidPayload", f"The field {name!r} is too long.")
    except multipart.MultipartError as error:
        raise Problem(400, "invalidPayload", f"The multipart body is broken: {error}") from None
    return form
