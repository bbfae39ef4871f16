"""Choose, at the moment of admission, which waiting requests form the next part (D8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sluicegate.core.waiting import Spans

LOOKAHEAD: Final = 2_000
"""How many requests beyond the first that does not fit are tried, to fill what is left of the room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What the cut needs of each request, by ordinal: tokens, characters of the body, bytes of the line."""

    tokens: Sequence[int]
    chars: Sequence[int]
    length: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The chosen requests and their sums. ``quarter_chars`` is characters ÷ 4, summed as the provider sums."""

    requests: Spans
    count: int
    tokens: int
    quarter_chars: int
    bytes: int
    charge: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a part may not exceed: tokens by the ledger's charge, requests, bytes (``extra`` is added to each line)."""

    charge: int
    requests: int
    bytes: int
    extra_bytes: int = 0


def cut(waiting: Spans, columns: Columns, bounds: Bounds, charge: Callable[[int, int], int]) -> Slice | None:
    """The earliest waiting requests that fit into ``bounds``; None if not even one of the first few does.

    Requests are taken in input order, so that results become complete in order. When the next one does not fit, up
    to :data:`LOOKAHEAD` later ones are tried, so that the room is used to the last small request.

    Args:
        charge: (tokens, quarter_chars) of a set → tokens to reserve; never decreasing in either.
    """
    tokens, chars, length = columns.tokens, columns.chars, columns.length
    chosen: list[tuple[int, int]] = []
    count = sum_tokens = sum_quarters = sum_bytes = 0
    start = stop = -1
    misses = 0
    for ordinal in waiting:
        next_tokens = sum_tokens + tokens[ordinal]
        next_quarters = sum_quarters + chars[ordinal] // 4
        next_bytes = sum_bytes + length[ordinal] + 1 + bounds.extra_bytes
        if next_bytes > bounds.bytes or charge(next_tokens, next_quarters) > bounds.charge:
            misses += 1
            if misses > LOOKAHEAD:
                break
            continue
        count += 1
        sum_tokens, sum_quarters, sum_bytes = next_tokens, next_quarters, next_bytes
        if ordinal == stop:
            stop += 1
        else:
            if stop > start:
                chosen.append((start, stop))
            start, stop = ordinal, ordinal + 1
        if count >= bounds.requests:
            break
    if not count:
        return None
    chosen.append((start, stop))
    return Slice(
        requests=Spans(tuple(chosen)) if len(chosen) == 1 else Spans.from_spans(chosen),
        count=count,
        tokens=sum_tokens,
        quarter_chars=sum_quarters,
        bytes=sum_bytes,
        charge=charge(sum_tokens, sum_quarters),
    )
