"""Azure's ``$filter`` and ``$orderby`` over a list of objects (F§1.2): the comparisons of OData that its documents show."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

T = TypeVar("T", bound=Mapping[str, Any])

_CLAUSE: Final = re.compile(r"\s*(\w+)\s+(eq|ne|gt|ge|lt|le)\s+(?:'([^']*)'|(\d{1,18}))\s*")
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
}  # fmt: skip


def filtered(items: Sequence[T], where: str | None, order: str | None) -> list[T]:
    """The items that ``where`` lets through (``created_at gt 1728860560 and status eq 'Completed'``), in that order.

    Texts compare without regard to case, clauses may be joined by ``and`` and ``or`` (``and`` binds tighter).

    Raises:
        ValueError: the words make no sense; the message says which.
    """
    found = list(items)
    if where and where.strip():
        ways = [
            [_clause(text) for text in re.split(r"\s+and\s+", way, flags=re.IGNORECASE)]
            for way in re.split(r"\s+or\s+", where, flags=re.IGNORECASE)
        ]
        found = [item for item in found if any(all(_holds(item, clause) for clause in way) for way in ways)]
    if order and order.strip():
        match = re.fullmatch(r"\s*(\w+)(?:\s+(asc|desc))?\s*", order, flags=re.IGNORECASE)
        if match is None:
            raise ValueError(f"The order {order!r} is not understood.")
        name, down = match[1], (match[2] or "asc").lower() == "desc"
        known = [item for item in found if isinstance(item.get(name), str | int)]
        rest = [item for item in found if not isinstance(item.get(name), str | int)]
        found = sorted(known, key=lambda item: (isinstance(item[name], str), item[name]), reverse=down) + rest
    return found


def _clause(text: str) -> tuple[str, str, str | int]:
    match = _CLAUSE.fullmatch(text)
    if match is None:
        raise ValueError(f"The filter {text!r} is not understood.")
    name, verb, word, number = match.groups()
    return name, verb, int(number) if number else word.lower()


def _holds(item: Mapping[str, Any], clause: tuple[str, str, str | int]) -> bool:
    name, verb, wanted = clause
    value = item.get(name)
    value = value.lower() if isinstance(value, str) else value
    return type(value) is type(wanted) and _COMPARE[verb](value, wanted)
