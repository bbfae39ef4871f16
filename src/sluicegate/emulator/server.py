"""The routes: which call goes where, and what happens around every call: keys, clock, faults, envelopes, headers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from sluicegate.emulator import auth
from sluicegate.emulator.config import Account
from sluicegate.emulator.http_batches import BatchEndpoints
from sluicegate.emulator.http_control import ControlEndpoints, full_report
from sluicegate.emulator.http_files import FileEndpoints
from sluicegate.emulator.http_synchronous import NO_DEPLOYMENT, SynchronousEndpoints
from sluicegate.emulator.http_uploads import UploadEndpoints
from sluicegate.emulator.provider import Provider
from sluicegate.emulator.rates import Window
from sluicegate.emulator.wire import SURFACES, Hangup, Problem, Surface, common_headers, envelope, prefix_of

Handler = Callable[[Request], Awaitable[Response]]
MINUTE_S: Final = 60.0

_STATUS_FAULTS: Final = {
    "429": (429, "too_many_requests", "Requests have exceeded the call rate limit. Please retry after 1 second."),
    "500": (500, "server_error", "The server had an error while processing your request."),
    "502": (502, "bad_gateway", "Bad gateway."),
    "503": (503, "service_unavailable", "The service is temporarily unable to process your request."),
    "504": (504, "gateway_timeout", "The gateway did not receive a timely response."),
}


class Emulator:
    """An account behind HTTP, and the other resources that it names.

    Args:
        folder: Where uploaded and written files are.
        function: Answers the requests in place of the account's ``answers``.
    """

    def __init__(self, account: Account, folder: Path, function: Callable[[dict[str, Any]], Any] | None = None) -> None:
        self.provider = Provider(account, folder, function)
        self._others = [(name, Emulator(other, folder / name, function)) for name, other in account.resources]
        self._calls = Window(account.calls_per_minute, MINUTE_S)
        self._uploads = Window(self.provider.account.uploads_per_minute, MINUTE_S)

    def app(self) -> Starlette:
        """The routes."""
        return Starlette(routes=self._routes(), exception_handlers={404: self._no_route, 405: self._no_route})

    def report(self) -> dict[str, Any]:
        """The books of the account, and under ``resources`` those of the others."""
        others = {name: other.report() for name, other in self._others}
        return full_report(self.provider) | ({"resources": others} if others else {})

    def start(self) -> None:
        """Let things happen when they are due, from now on."""
        for emulator in (self, *(other for _, other in self._others)):
            emulator.provider.start()

    async def close(self) -> None:
        """Stop what is under way."""
        for emulator in (self, *(other for _, other in self._others)):
            await emulator.provider.close()

    def _routes(self) -> list[BaseRoute]:
        files, uploads = FileEndpoints(self.provider), UploadEndpoints(self.provider, self._count_upload)
        batches, calls_at_once = BatchEndpoints(self.provider), SynchronousEndpoints(self.provider)
        # (verb, path, handler, the name by which faults know it)
        calls: list[tuple[str, str, Handler, str | None]] = [
            ("POST", "/files", files.upload, "upload"), ("GET", "/files", files.list, "file_list"),
            ("POST", "/files/import", files.import_by_url, "upload"),
            ("GET", "/files/{id}", files.get, "file_get"), ("DELETE", "/files/{id}", files.delete, "delete"),
            ("GET", "/files/{id}/content", files.content, "download"),
            ("POST", "/uploads", uploads.create, None), ("POST", "/uploads/{id}/parts", uploads.add_part, "upload"),
            ("POST", "/uploads/{id}/complete", uploads.complete, "upload"),
            ("POST", "/uploads/{id}/cancel", uploads.cancel, None),
            ("POST", "/batches", batches.create, "create"), ("GET", "/batches", batches.list, "list"),
            ("GET", "/batches/{id}", batches.get, "get"), ("POST", "/batches/{id}/cancel", batches.cancel, "cancel"),
        ]  # fmt: skip
        routes: list[BaseRoute] = []
        for prefix in SURFACES:
            surface = Surface.of(prefix, self.provider.account)
            for verb, path, handler, on in calls:
                if path != "/files/import" or surface.azure:
                    routes.append(Route(prefix + path, self._guarded(surface, handler, on), methods=[verb]))
            if surface.azure:
                path = "/deployments/{deployment}/chat/completions" if surface.dated else "/chat/completions"
                routes.append(Route(prefix + path, self._guarded(surface, calls_at_once.chat, None), methods=["POST"]))
        routes += ControlEndpoints(self.provider).routes()
        for name, other in self._others:
            routes.append(Mount(f"/resources/{name}", other.app()))
        return routes

    def _guarded(self, surface: Surface, handler: Handler, on: str | None) -> Handler:
        async def guarded(request: Request) -> Response:
            began = time.perf_counter()
            request.state.surface, request.state.fault = surface, None
            try:
                answer = await self._answered(request, surface, handler, on)
            except Problem as problem:
                answer = envelope(surface, self.provider.account, problem)
            if request.method in ("POST", "DELETE"):
                self.provider.moved()
            answer.headers.update(common_headers(surface, self.provider.account, time.perf_counter() - began))
            answer.headers.update(self._rate_headers())
            return answer

        return guarded

    async def _answered(self, request: Request, surface: Surface, handler: Handler, on: str | None) -> Response:
        provider = self.provider
        await provider.advance()
        if surface.dated and surface.azure and "api-version" not in request.query_params:
            raise Problem(404, "404", "Resource not found")
        auth.check(request, surface, provider.account, provider.now())
        self._count(self._calls, "requests")
        if on == "upload" and request.url.path.endswith(("/files", "/files/import")):
            self._count_upload()
        fault = None
        if on is not None and request.method != "HEAD":
            fault = provider.model.faults.hit(on, now=provider.now())
        request.state.fault = fault
        if fault is None:
            return await handler(request)
        if fault.kind == "reset":
            return Hangup()
        if fault.kind == "slow":
            await asyncio.sleep(fault.seconds / (provider.clock.speed or 1.0))
        if fault.kind in _STATUS_FAULTS:
            status, code, message = _STATUS_FAULTS[fault.kind]
            raise Problem(status, code, message, after=1.0 if status in (429, 503) else None)
        answer = await handler(request)
        return Hangup() if fault.kind == "lost" else answer

    def _count_upload(self) -> None:
        self._count(self._uploads, "file uploads")

    def _count(self, window: Window, what: str) -> None:
        now = self.provider.now()
        wait_s = window.wait_s(now)
        if wait_s is not None:
            text = f"Rate limit reached for {what}. Limit: {window.most} / min."
            raise Problem(429, "rate_limit_exceeded", text, after=wait_s)
        window.add(now)

    def _rate_headers(self) -> dict[str, str]:
        """As OpenAI sends them with its synchronous calls; only where ``calls_per_minute`` is set."""
        if self._calls.most is None:
            return {}
        return {
            "x-ratelimit-limit-requests": str(self._calls.most),
            "x-ratelimit-remaining-requests": str(self._calls.left),
            "x-ratelimit-reset-requests": f"{self._calls.reset_s(self.provider.now()):.0f}s",
        }

    async def _no_route(self, request: Request, error: Exception) -> Response:
        path = request.url.path.removeprefix(request.scope.get("root_path", ""))
        surface = Surface.of(prefix_of(path), self.provider.account)
        problem = Problem(404, "404", "Resource not found")
        if "/deployments/" in path:
            problem = Problem(404, "DeploymentNotFound", NO_DEPLOYMENT)
        elif not surface.azure:
            problem = Problem(404, "unknown_url", f"Invalid URL ({request.method} {path})")
        answer = envelope(surface, self.provider.account, problem)
        answer.headers.update(common_headers(surface, self.provider.account, 0.0))
        return answer
