"""How fast running batches are served: disciplines, day and night, delays with tails. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from sluicegate.emulator.batch import Batch
from sluicegate.emulator.config import DAY_S, Account

HOUR_S: Final = 3_600.0
TAIL_MOST: Final = 1_000.0
"""A delay is at most so many times its median, so that a run ends."""


def factor_at(account: Account, now: float) -> float:
    """The rhythm's factor of the rate at a time of day (UTC)."""
    if not account.rhythm:
        return 1.0
    hour = now % DAY_S / HOUR_S
    begun = [factor for start, factor in account.rhythm if start <= hour]
    return begun[-1] if begun else account.rhythm[-1][1]


def next_factor_at(account: Account, now: float) -> float | None:
    """When the rhythm's factor changes next."""
    if len(account.rhythm) < 2:
        return None
    midnight = now - now % DAY_S
    return min(
        at
        for start, _ in account.rhythm
        for at in (midnight + start * HOUR_S, midnight + DAY_S + start * HOUR_S)
        if at > now
    )


def speeds(account: Account, rate: float, running: Sequence[Batch]) -> list[float]:
    """Tokens per second for each of the running batches, in the order in which they began to be served.

    ``shared``: equal parts of the rate (bound by work). ``fifo``: all of it for the first. ``slots``: the first
    ``account.slots`` get the rate of a slot each, whoever else is there; the others wait for one.
    """
    if account.discipline == "fifo":
        return [rate if i == 0 else 0.0 for i in range(len(running))]
    if account.discipline == "slots":
        return [rate / account.slots if i < account.slots else 0.0 for i in range(len(running))]
    return [rate / len(running)] * len(running)


def delay(account: Account, median_s: float, key: str) -> float:
    """A phase's time: the median itself, or drawn around it by the account's seed and the phase's ``key``.

    ``lognormal``: ``spread`` is the standard deviation of the logarithm; as service times are usually fitted.
    ``pareto``: ``spread`` is the tail's exponent, the median is kept; below 1.5 a few batches take very long.
    """
    if account.delays == "fixed" or median_s <= 0:
        return median_s
    dice = random.Random(f"{account.seed}:{key}")
    if account.delays == "lognormal":
        return median_s * min(dice.lognormvariate(0.0, account.spread), TAIL_MOST)
    return median_s * min(float(dice.paretovariate(account.spread)) / 2 ** (1 / account.spread), TAIL_MOST)
