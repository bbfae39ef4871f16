"""When to look at the provider's list next: a pace that follows the expected end instead of a fixed beat."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

AHEAD: Final = 0.75
"""Of the time to the nearest expected end that is waited before looking, while that end is far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """One provider batch that has not ended: when it was accepted, and whether its answer to validation is awaited."""

    since: float
    answer_awaited: bool


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
        expected = validating_s if one.answer_awaited and validating_s is not None else hold_s
        if expected is None:
            at = start + (start - one.since) / 4
        else:
            left = one.since + expected - start
            # A near end is looked for when it is due; a far one in a few steps that get shorter.
            at = start + (left if left <= 3 * poll_s else left * AHEAD)
        wanted = min(wanted, at)
    return max(last_look + poll_s, wanted)
