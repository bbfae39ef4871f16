"""The emulator's own endpoints under ``/_emulator``: its books, and what a test orders (docs/emulate.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sluicegate.core.limits import parse_tokens
from sluicegate.emulator.auth import AUDIENCES, make_token
from sluicegate.emulator.batch import Batch
from sluicegate.emulator.books import timeline
from sluicegate.emulator.config import NEVER, fault_of, seconds_of
from sluicegate.emulator.picture import batch_svg, report_page, report_svg
from sluicegate.emulator.provider import Provider
from sluicegate.emulator.wire import Problem, json_body
from sluicegate.errors import UsageError

SVG = "image/svg+xml"


class ControlEndpoints:
    """Control of one account."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def routes(self) -> list[Route]:
        """``/healthz`` and ``/_emulator/…``."""
        calls: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
            ("GET", "report", self.report), ("GET", "report.svg", self.picture), ("GET", "held", self.held),
            ("GET", "batches/{id}", self.timeline), ("GET", "batches/{id}.svg", self.timeline_picture),
            ("GET", "clock", self.clock), ("POST", "clock", self.set_clock), ("POST", "limit", self.set_limit),
            ("POST", "rate", self.set_rate), ("POST", "foreign", self.add_foreign), ("GET", "fault", self.faults),
            ("POST", "fault", self.add_fault), ("DELETE", "fault", self.clear_faults), ("POST", "token", self.token),
        ]  # fmt: skip
        # ``{id}.svg`` has to be asked before ``{id}``, which takes anything.
        calls.sort(key=lambda call: not call[1].endswith(".svg"))
        return [
            Route("/healthz", self.health),
            Route("/_emulator", self._guarded(self.page)),
            *(Route(f"/_emulator/{path}", self._guarded(handler), methods=[verb]) for verb, path, handler in calls),
        ]

    def _guarded(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                await self._provider.advance()
                answer = await handler(request)
                if request.method in ("POST", "DELETE"):
                    self._provider.moved()
                return answer
            except Problem as problem:
                return JSONResponse({"error": problem.message}, problem.status)
            except (UsageError, TypeError, ValueError, KeyError) as error:
                return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 400)

        return guarded

    async def health(self, request: Request) -> Response:
        """Up."""
        return JSONResponse({"status": "ok"})

    async def report(self, request: Request) -> Response:
        """The books."""
        return JSONResponse(full_report(self._provider))

    async def picture(self, request: Request) -> Response:
        """The books as a picture."""
        return Response(report_svg(full_report(self._provider)), media_type=SVG)

    async def page(self, request: Request) -> Response:
        """The books for people: a few figures and the picture, anew every two seconds."""
        return Response(report_page(full_report(self._provider)), media_type="text/html; charset=utf-8")

    async def held(self, request: Request) -> Response:
        """What is held now."""
        return JSONResponse(self._provider.model.books(self._provider.now()))

    async def timeline(self, request: Request) -> Response:
        """One batch's life."""
        return JSONResponse(timeline(self._batch(request), self._began()))

    async def timeline_picture(self, request: Request) -> Response:
        """One batch's life as a picture."""
        seconds = self._provider.now() - self._began()
        return Response(batch_svg(timeline(self._batch(request), self._began()), seconds), media_type=SVG)

    def _began(self) -> float:
        began = self._provider.model.began()
        return began if began is not None else self._provider.now()

    def _batch(self, request: Request) -> Batch:
        batch = self._provider.model.batches.get(request.path_params["id"])
        if batch is None:
            raise Problem(404, "not_found", f"There is no batch {request.path_params['id']!r}.")
        return batch

    async def clock(self, request: Request) -> Response:
        """The emulated time, and when something happens next."""
        provider = self._provider
        return JSONResponse(
            {"now": provider.now(), "speed": provider.clock.speed, "next_event_at": provider.model.next_event_at()}
        )

    async def set_clock(self, request: Request) -> Response:
        """``advance`` by a duration, ``to`` Unix seconds or ``"next"`` event, ``speed``, ``by_hand``."""
        provider, body = self._provider, await json_body(request)
        if unknown := set(body) - {"advance", "to", "speed", "by_hand"}:
            raise UsageError(f"there is no {', '.join(sorted(unknown))}; there are advance, to, speed, by_hand")
        if "speed" in body or "by_hand" in body:
            speed = body.get("speed")
            provider.clock.run(speed=float(speed) if speed is not None else None, by_hand=body.get("by_hand"))
        if "advance" in body:
            await self._pass(seconds_of(body["advance"]))
        if "to" in body:
            to = provider.model.next_event_at() if body["to"] == "next" else float(body["to"])
            if to is not None:
                await self._pass(max(0.0, to - provider.now()) if body["to"] == "next" else to - provider.now())
        return await self.clock(request)

    async def _pass(self, seconds: float) -> None:
        """Let time pass from event to event, so that whoever has to answer does so on the way."""
        provider = self._provider
        if not 0 <= seconds < float("inf"):
            raise UsageError("the clock goes forward only, and not for ever")
        until = provider.now() + seconds
        while (at := provider.model.next_event_at()) is not None and at < until:
            provider.clock.advance(max(0.0, at - provider.now()))
            await provider.advance()
        provider.clock.advance(max(0.0, until - provider.now()))
        await provider.advance()

    async def set_limit(self, request: Request) -> Response:
        """A new limit, of a deployment or of all."""
        body = await json_body(request)
        limit = body.get("limit")
        tokens = parse_tokens(limit) if isinstance(limit, str) else limit
        self._provider.model.set_limit(self._provider.now(), tokens, body.get("deployment"))
        return JSONResponse({"limit": tokens})

    async def set_rate(self, request: Request) -> Response:
        """A new rate."""
        rate = float((await json_body(request))["rate"])
        self._provider.model.set_rate(self._provider.now(), rate)
        return JSONResponse({"rate": rate})

    async def add_foreign(self, request: Request) -> Response:
        """Somebody else's load from now."""
        provider, body = self._provider, await json_body(request)
        tokens = parse_tokens(body["tokens"]) if isinstance(body["tokens"], str) else int(body["tokens"])
        for_s, deployment = seconds_of(body.get("seconds", 3_600)), body.get("deployment") or None
        if not body.get("listed", True):
            provider.model.hold_unlisted(provider.now(), tokens, for_s, deployment)
            return JSONResponse({"tokens": tokens})
        batch = provider.model.hold_listed(provider.now(), tokens, for_s, deployment)
        await provider.advance()
        return JSONResponse({"id": batch.id, "tokens": batch.tokens})

    async def faults(self, request: Request) -> Response:
        """The rules that hold."""
        rules = [
            {name: "never" if value == NEVER else value for name, value in asdict(rule).items()}
            for rule in self._provider.model.faults.rules
        ]
        return JSONResponse({"faults": rules})

    async def add_fault(self, request: Request) -> Response:
        """One more rule; it counts from now."""
        self._provider.model.faults.add(fault_of(await json_body(request)), self._provider.now())
        return JSONResponse({"faults": len(self._provider.model.faults.rules)})

    async def clear_faults(self, request: Request) -> Response:
        """No rule any more."""
        self._provider.model.faults.clear()
        return JSONResponse({"faults": 0})

    async def token(self, request: Request) -> Response:
        """A Bearer token as Entra's, signed by the account's test key."""
        body, account = await json_body(request), self._provider.account
        if account.entra_key is None:
            raise UsageError("set entra_key first")
        now = self._provider.now()
        token = make_token(
            account.entra_key, audience=str(body.get("audience", AUDIENCES[0])), now=now,
            expires_at=now + seconds_of(body.get("expires_in", 3_600)),
        )  # fmt: skip
        return JSONResponse({"token": token})


def full_report(provider: Provider) -> dict[str, Any]:
    """The model's books, and what only the files know."""
    return provider.model.report(provider.now()) | {"lines_never_fetched": provider.lines_never_fetched()}
