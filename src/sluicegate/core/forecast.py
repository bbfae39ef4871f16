"""Rough forecasts: how the work would be cut, how long it would hold a deployment, when it would be done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sluicegate.core.admission import PARTS_USUAL
from sluicegate.core.belief import Pace
from sluicegate.core.report import QuotaRow

USUAL_LIFE_S: Final = 600.0
"""How long a provider batch lives where nothing was measured: published samples end after 4 to 13 minutes (F§2.2)."""


def drain_s(tokens: int, *, limit: int | None, pace: Pace) -> float | None:
    """Seconds until ``tokens`` have gone through a deployment: one life of a batch, and their time at its rate.

    The rate is one limit per life of a batch, or the one that was measured, whichever is slower. None if a batch's life or
    the limit is not known.
    """
    if pace.hold_s is None or not limit:
        return None
    rate = limit / max(pace.hold_s, 1e-3)
    if pace.rate is not None and pace.ended >= 3:
        rate = min(rate, pace.rate)
    return (pace.hold_s if tokens else 0.0) + tokens / rate


def plan(
    groups: Iterable[tuple[int, int]], *, limit: int | None, pace: Pace, requests_max: int, bytes_max: int, size: int
) -> tuple[int, float | None]:
    """(parts, seconds): into how many parts the work would be cut, and how long it would hold the deployment.

    Args:
        groups: (requests, tokens) of each set of requests that may share a part.
        limit: Enqueued tokens, or None if not known: then the seconds are None, since everything hangs on it.
        pace: What was measured of the deployment; where nothing was, a batch is taken to live for :data:`USUAL_LIFE_S`.
        size: Bytes of all requests.
    """
    groups = list(groups)
    tokens = sum(t for _, t in groups)
    least = sum(max(1, -(-requests // requests_max)) for requests, _ in groups if requests)
    least = max(least, -(-size // bytes_max)) if groups else 0
    if limit is None:
        return least, None
    if tokens <= limit:
        return least, (pace.hold_s or USUAL_LIFE_S) if tokens else 0.0
    each = max(1, limit // PARTS_USUAL)
    return max(least, -(-tokens // each)), drain_s(tokens, limit=limit, pace=_usual(pace))


def _usual(pace: Pace) -> Pace:
    return pace if pace.hold_s is not None else Pace(hold_s=USUAL_LIFE_S)


def when(row: QuotaRow, *, tokens: int, largest: int, now: float, pace: Pace) -> dict[str, Any]:
    """What the provider's books mean for new work of ``tokens``: what fits now, when it would start and be done."""
    if row.limit is None or row.headroom is None:
        note = "the deployment's limit is not known yet: the first submit learns it; --limit tells it"
        return {"fits_now": None, "first_part_at": None, "done_at": None, "note": note}
    fits = min(tokens, row.headroom)
    starts = now if row.headroom >= min(largest, row.limit) else row.next_release_at
    usual = _usual(pace)
    takes_s = usual.hold_s if tokens <= row.limit else drain_s(tokens, limit=row.limit, pace=usual)
    done = None if starts is None or takes_s is None else max(starts, row.idle_at or starts) + takes_s
    basis = f"a batch lives about {usual.hold_s:,.0f} s" + (
        "" if usual is pace else ", as published; none has ended here"
    )
    note = (
        f"of {tokens:,} tokens, {fits:,} fit now; the limit is {row.limit:,} (known from: {row.limit_source}); {basis}"
    )
    return {"fits_now": fits, "first_part_at": starts, "done_at": done, "note": note}


def together(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What :func:`when` says of each deployment, as one: the first part is the earliest, all is done with the last.

    What one deployment does not tell, the whole does not either, but for what fits and the first part.
    """
    if len(answers) == 1:
        return dict(next(iter(answers.values())))
    fits = [one["fits_now"] for one in answers.values() if one["fits_now"] is not None]
    starts = [one["first_part_at"] for one in answers.values() if one["first_part_at"] is not None]
    ends = [one["done_at"] for one in answers.values()]
    return {
        "fits_now": sum(fits) if fits else None,
        "first_part_at": min(starts, default=None),
        "done_at": None if None in ends else max(ends, default=None),
        "note": "; ".join(f"{name}: {one['note']}" for name, one in answers.items()),
    }
