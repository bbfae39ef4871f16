"""Lists as the SDKs page through them: ``after``, ``before``, ``limit``, ``order``."""

from __future__ import annotations

from typing import Any, TypeVar

from starlette.requests import Request

from sluicegate.core.tenancy import ClientBatchRow, FileRow
from sluicegate.ports import Tx
from sluicegate.web.dialects import Problem
from sluicegate.web.state import gateway_of

R = TypeVar("R", ClientBatchRow, FileRow)


async def page(request: Request, kind: type[R], *, default: int, most: int, **equal: Any) -> tuple[list[R], bool]:
    """One page of rows, and whether there are more beyond it."""
    query = request.query_params
    limit = _limit(request, default, most)
    order = query.get("order") or "desc"
    if order not in ("asc", "desc"):
        raise Problem(400, "invalid_value", "Invalid value for order: it is asc or desc.", param="order")
    after, before = query.get("after"), query.get("before")
    mark = after or before
    backwards = bool(before and not after)
    newest_first = (order == "desc") != backwards

    def read(tx: Tx) -> list[R]:
        beyond = None
        if mark:
            known = tx.find(kind, id=mark, **equal)
            if not known:
                name = "after" if after else "before"
                raise Problem(400, "invalid_value", f"There is no item {mark[:100]!r} to go on {name}.", param=name)
            beyond = (known[0].created_at, known[0].id)
        return tx.page(kind, newest_first=newest_first, beyond=beyond, limit=limit + 1, **equal)

    rows = await gateway_of(request).ctx.store.read(read)
    more, rows = len(rows) > limit, rows[:limit]
    return (rows[::-1] if backwards else rows), more


def cut_out(
    request: Request, items: list[dict[str, Any]], *, default: int, most: int
) -> tuple[list[dict[str, Any]], bool]:
    """One page of ``items``, which are in order already: ``after`` and ``limit``; and whether there are more."""
    limit = _limit(request, default, most)
    after = request.query_params.get("after")
    start = next((i + 1 for i, item in enumerate(items) if item["id"] == after), 0)
    if after and not start:
        raise Problem(400, "invalid_value", f"There is no item {after[:100]!r} to go on after.", param="after")
    return items[start : start + limit], len(items) > start + limit


def _limit(request: Request, default: int, most: int) -> int:
    text = request.query_params.get("limit") or str(default)
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
    if not 1 <= limit <= most:
        raise Problem(400, "invalid_value", f"Invalid value for limit: it is from 1 to {most:,}.", param="limit")
    return limit


def listing(items: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    """The list object."""
    ids = [item["id"] for item in items]
    return {
        "object": "list", "data": items, "first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None,
        "has_more": more,
    }  # fmt: skip
