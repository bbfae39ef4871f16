"""How much of one deployment's limit each live run may fill (max-min fair, work conserving)."""

from __future__ import annotations

from collections.abc import Mapping


def shares(limit: int, demands: Mapping[str, int]) -> dict[str, int]:
    """Divide ``limit`` among runs: nobody gets more than it asks for, what is left goes to the others equally.

    Args:
        limit: Tokens to divide: the limit less what others' batches hold.
        demands: For each run, what it holds and reserves plus what it could still submit, in tokens.

    Returns:
        Tokens for each run; the sum is at most ``limit``, and equals ``min(limit, sum of demands)`` but for rounding.
    """
    left, granted = max(0, limit), dict.fromkeys(demands, 0)
    open_runs = sorted(demands, key=lambda run: (demands[run], run))
    while open_runs:
        fair = left // len(open_runs)
        run = open_runs.pop(0)
        granted[run] = min(demands[run], fair)
        left -= granted[run]
    return granted
