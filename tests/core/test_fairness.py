"""Fair shares of one limit."""

from hypothesis import given
from hypothesis import strategies as st

from sluicegate.core.fairness import shares


@given(st.integers(0, 10_000), st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 9_000)))
def test_shares_are_fair_and_use_everything(limit: int, demands: dict[str, int]) -> None:
    """Nobody gets more than it asks for, nothing is left idle, and whoever is short has at least an equal share."""
    granted = shares(limit, demands)

    assert all(granted[run] <= demands[run] for run in demands)
    assert sum(granted.values()) >= min(limit, sum(demands.values())) - len(demands)
    assert sum(granted.values()) <= limit
    for run in demands:
        if granted[run] < demands[run]:
            assert granted[run] >= limit // len(demands) - 1


def test_a_run_alone_may_use_all() -> None:
    """Work conserving: a share is no quota."""
    assert shares(60_000, {"a": 500_000}) == {"a": 60_000}
    assert shares(60_000, {"a": 500_000, "b": 1_000}) == {"a": 59_000, "b": 1_000}
