"""When to look at the provider's list next: a pace that follows the expected end instead of a fixed beat."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

AHEAD: Final = 0.75
"""Of the time to the nearest expected end that is waited before looking, while that end is far."""

NEAR: Final = 3.0
"""From so many polls before an expected end on each poll looks: what has ended unseen holds room up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """One provider batch that has not ended.

    Attributes:
        since: When it was accepted. ``answer_awaited``: whether its answer to validation is.
        served_since: When it was seen to have passed validation; ``share`` of its requests that had an answer at the
            last look.
    """

    since: float
    answer_awaited: bool
    served_since: float | None = None
    share: float = 0.0


def next_look_at(
    pending: Iterable[Pending],
    *,
    last_look: float,
    poll_s: float,
    poll_max_s: float,
    hold_s: float | None,
    validating_s: float | None,
) -> float:
    """When the list should be read next, at least ``poll_s`` after ``last_look`` and at most ``poll_max_s`` after it.

    The time is reckoned from the last look, so that asking again later gives the same answer. Where nothing is known of
    how long batches live, the time that one has lived sets the pace: a look costs at most a quarter of that in delay.
    """
    wanted = last_look + poll_max_s
    for one in pending:
        start = max(last_look, one.since)
        awaited = one.answer_awaited and validating_s is not None
        expected = validating_s if awaited else hold_s
        lefts = [] if expected is None else [one.since + expected - start]
        if one.served_since is not None and one.share > 0.0:
            # The last batches have the service for themselves and end before others' lives would tell.
            lefts.append((start - one.served_since) * (1.0 - one.share) / one.share)
        if not lefts:
            at = start + (start - one.since) / 4
        elif (left := min(lefts)) > NEAR * poll_s:
            at = start + left * AHEAD
        else:
            at = start + (left if awaited else min(left, poll_s))
        wanted = min(wanted, at)
    return max(last_look + poll_s, wanted)
