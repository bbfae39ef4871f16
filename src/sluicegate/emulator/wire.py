"""HTTP as the two dialects speak it: surfaces, envelopes, headers, forms, pages, ranges, broken connections."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import multipart
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sluicegate.core import filters
from sluicegate.emulator.config import Account

FIELD_BYTES_MAX: Final = 65_536


@dataclass(frozen=True, slots=True)
class Surface:
    """Which of the three URL families a call came by (F§1).

    Attributes:
        azure: Azure's habits and envelope. ``dated``: it needs an ``api-version``.
    """

    prefix: str
    azure: bool
    dated: bool

    @classmethod
    def of(cls, prefix: str, account: Account) -> Surface:
        """The surface of a prefix: ``/v1`` is always OpenAI's, the others are Azure's on an Azure account."""
        return cls(prefix, prefix != "/v1" and account.dialect == "azure", prefix == "/openai")


PROJECTS: Final = "/api/projects/{project}/openai/v1"
"""Another address of Azure's v1 surface, that of the Azure AI projects SDK."""

SURFACES: Final = ("/v1", "/openai/v1", "/openai", PROJECTS)
_PREFIX: Final = re.compile("/v1(?=/)|/openai/v1(?=/)|/openai(?=/)|/api/projects/[^/]+/openai/v1(?=/)")


def prefix_of(path: str) -> str:
    """The prefix of :data:`SURFACES` that a path has; OpenAI's if it has none."""
    found = _PREFIX.match(path)
    return "/v1" if found is None else PROJECTS if found[0].startswith("/api/") else found[0]


def surface_of(request: Request) -> Surface:
    """The surface of a call that the server has let in."""
    found: Surface = request.state.surface
    return found


class Problem(Exception):
    """An HTTP error in the caller's dialect.

    Args:
        after: Seconds for ``retry-after`` and ``retry-after-ms``.
    """

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None, after: float | None = None):
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.after = status, code, message, param, after
        self.headers: dict[str, str] = {}


def envelope(surface: Surface, account: Account, problem: Problem) -> Response:
    """An error as the surface words it (F§5.1)."""
    openai_shaped = not surface.azure or (not surface.dated and account.v1_envelope == "openai")
    if openai_shaped:
        kind = _TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
        error: dict[str, Any] = {
            "message": problem.message, "type": kind, "param": problem.param, "code": problem.code
        }  # fmt: skip
    else:
        error = {"code": problem.code, "message": problem.message}
    headers = dict(problem.headers)
    if problem.after is not None:
        headers |= {
            "retry-after": f"{max(1, round(problem.after))}",
            "retry-after-ms": f"{round(problem.after * 1000)}",
        }
    return JSONResponse({"error": error}, problem.status, headers)


_TYPES: Final = {429: "requests"}


def common_headers(surface: Surface, account: Account, took_s: float) -> dict[str, str]:
    """What each provider sends with every answer: request ids, its name for the region or the version, the time."""
    request_id = secrets.token_hex(16)
    if surface.azure:
        region = {"x-ms-region": account.region} if account.region else {}
        return {"x-request-id": request_id, "apim-request-id": secrets.token_hex(16), **region}
    return {
        "x-request-id": f"req_{request_id}", "openai-version": "2020-10-01", "openai-organization": "org-emulated",
        "openai-processing-ms": f"{round(took_s * 1000)}",
    }  # fmt: skip


# -- bodies ------------------------------------------------------------------------------------------------------------


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON object of a call.

    Raises:
        Problem: 400, it is none.
    """
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Problem(400, "invalidPayload", "We could not parse the JSON body of your request.")
    return body


def type_of(value: Any) -> str:
    """A JSON value's type as OpenAI's messages name it."""
    names = {
        list: "an array",
        dict: "an object",
        bool: "a boolean",
        int: "an integer",
        float: "a decimal",
        str: "a string",
    }
    return names.get(type(value), "null")


async def receive_form(request: Request, path: Path, most: int, *, field: str = "file") -> dict[str, str]:
    """Stream a multipart form: the named field to ``path``, its file name and the other fields as text, in any order.

    Raises:
        Problem: 400, no form, broken, or too large.
    """
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
                        if name == field:
                            form[field] = event.filename or "upload"
                    elif event is None:
                        if name and name != field:
                            form[name] = value.decode("utf-8", "replace")
                        value.clear()
                    elif name == field:
                        size += len(event)
                        if size > most:
                            raise Problem(400, "invalidPayload", "File is too large.", param=field)
                        out.write(event)
                    else:
                        value += event
                        if len(value) > FIELD_BYTES_MAX:
                            raise Problem(400, "invalidPayload", f"The field {name!r} is too long.")
    except multipart.MultipartError as error:
        raise Problem(400, "invalidPayload", f"The multipart body is broken: {error}") from None
    return form


# -- lists -------------------------------------------------------------------------------------------------------------


def page(query: Mapping[str, str], items: list[dict[str, Any]], *, default: int, most: int) -> Response:
    """One page of a list that is newest first: ``limit``, ``after`` or ``before`` an id, ``order`` asc or desc.

    Raises:
        Problem: 400, a limit out of range, an unknown order or cursor.
    """
    text = query.get("limit", str(default))
    limit = int(text) if re.fullmatch(r"\d{1,9}", text) else 0
    if not 1 <= limit <= most:
        raise Problem(400, "invalid_value", f"Invalid value for limit: it is from 1 to {most}.", param="limit")
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise Problem(400, "invalid_value", f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.",
                      param="order")  # fmt: skip
    if order == "asc":
        items = items[::-1]
    start, stop, more = 0, len(items), False
    if after := query.get("after"):
        start = _place(items, after, "after") + 1
    if before := query.get("before"):
        stop = _place(items, before, "before")
        more = stop - limit > start
        start = max(start, stop - limit)
    chosen = items[start:stop][:limit]
    ids = [item["id"] for item in chosen]
    return JSONResponse(
        {"object": "list", "data": chosen, "first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None,
         "has_more": more or stop - start > limit}
    )  # fmt: skip


def empty_page() -> Response:
    """An empty page that says that there is more, as was seen (F§6)."""
    return JSONResponse({"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": True})


def _place(items: list[dict[str, Any]], cursor: str, param: str) -> int:
    for i, item in enumerate(items):
        if item["id"] == cursor:
            return i
    raise Problem(400, "invalid_value", f"There is no item {cursor!r} to go on from.", param=param)


def filtered(items: list[dict[str, Any]], where: str | None, order: str | None) -> list[dict[str, Any]]:
    """Azure's ``$filter`` and ``$orderby``.

    Raises:
        Problem: 400, the words make no sense.
    """
    try:
        return filters.filtered(items, where, order)
    except ValueError as error:
        raise Problem(400, "invalidPayload", str(error)) from None


# -- ranges ------------------------------------------------------------------------------------------------------------


def byte_range(header: str | None, size: int) -> tuple[int, int, int]:
    """(first byte, end, status) of ``bytes=5-9``, ``bytes=5-`` or ``bytes=-5``; anything else is the whole.

    Raises:
        Problem: 416, it begins behind the end.
    """
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header or "")
    if match is None or not (match[1] or match[2]):
        return 0, size, 200
    if not match[1]:
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
    if start >= size or start >= stop:
        problem = Problem(416, "invalidRange", "The range is not satisfiable.")
        problem.headers["content-range"] = f"bytes */{size}"
        raise problem
    return start, stop, 206


# -- broken connections ------------------------------------------------------------------------------------------------

TRANSPORT: Final = "sluicegate.transport"


def with_transport(app: Callable[[Any, Any, Any], Awaitable[None]]) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """Let handlers reach the connection, so that a fault can break it."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope.setdefault("extensions", {})[TRANSPORT] = send.__self__.transport
        await app(scope, receive, send)

    return outer


class Hangup(Response):
    """Close the connection without an answer."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"][TRANSPORT].abort()
