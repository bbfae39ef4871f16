"""Fair shares of one limit."""

from hypothesis import given
from hypothesis import strategies as st

from sluicegate.core.fairness import Claim, shares

NAMES = st.text("abcdef", min_size=1, max_size=3)
WEIGHTS = {"t1": 1.0, "t2": 2.5, "t3": 0.5}
CLAIMS = st.dictionaries(
    NAMES,
    st.builds(
        Claim, tokens=st.integers(0, 9_000), tenant=st.sampled_from(sorted(WEIGHTS)), due_at=st.floats(0, 100),
        since=st.floats(0, 100),
    ),
)  # fmt: skip


@given(st.integers(0, 10_000), CLAIMS)
def test_shares_are_fair_and_use_everything(limit: int, claims: dict[str, Claim]) -> None:
    """Nobody gets more than it asks for, nothing is left idle, and a tenant that is short has at least its weight's share."""
    granted = shares(limit, claims, WEIGHTS)

    assert granted.keys() == claims.keys()
    assert all(0 <= granted[run] <= claims[run].tokens for run in claims)
    asked = sum(claim.tokens for claim in claims.values())
    assert min(limit, asked) - len(WEIGHTS) <= sum(granted.values()) <= limit
    present = {claim.tenant for claim in claims.values()}
    for tenant in present:
        runs = [run for run in claims if claims[run].tenant == tenant]
        if sum(granted[run] for run in runs) < sum(claims[run].tokens for run in runs):
            fair = limit * WEIGHTS[tenant] / sum(WEIGHTS[t] for t in present)
            assert sum(granted[run] for run in runs) >= fair - len(WEIGHTS)


@given(st.integers(0, 10_000), CLAIMS)
def test_within_a_tenant_the_earlier_due_goes_first(limit: int, claims: dict[str, Claim]) -> None:
    """A run gets something only if every run of its tenant that is due earlier has all it asks for."""
    granted = shares(limit, claims, WEIGHTS)

    for run, claim in claims.items():
        for other, earlier in claims.items():
            if earlier.tenant == claim.tenant and earlier.due_at < claim.due_at and granted[run]:
                assert granted[other] == earlier.tokens


def test_a_run_alone_may_use_all() -> None:
    """Work conserving: a share is no quota."""
    many = Claim(tokens=500_000, tenant="a")
    assert shares(60_000, {"a": many}) == {"a": 60_000}
    assert shares(60_000, {"a": many, "b": Claim(tokens=1_000, tenant="b")}) == {"a": 59_000, "b": 1_000}


def test_a_tenant_with_many_runs_gets_no_more_than_one_with_a_single_run() -> None:
    """It is tenants that share, not batches."""
    claims = {f"a{i}": Claim(tokens=9_000, tenant="a", since=i) for i in range(50)} | {
        "b": Claim(tokens=40_000, tenant="b")
    }

    granted = shares(60_000, claims)

    assert granted["b"] == 30_000 and granted["a0"] == granted["a1"] == 9_000
