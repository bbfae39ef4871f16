"""Fair shares of one limit."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sluicegate.core.fairness import SMALL, Claim, Grant, goes_whole, grant, in_turn, shares
from sluicegate.core.tenancy import ClientBatchRow
from sluicegate.core.types import BatchStatus

NAMES = st.text("abcdef", min_size=1, max_size=3)
WEIGHTS = {"t1": 1.0, "t2": 2.5, "t3": 0.5}
CLAIMS = st.dictionaries(
    NAMES,
    st.builds(
        lambda held, waits, **given: Claim(tokens=held + waits, held=held, **given), held=st.integers(0, 300) | st.just(0),
        waits=st.integers(0, 400) | st.integers(0, 9_000), tenant=st.sampled_from(sorted(WEIGHTS)), due_at=st.floats(0, 100),
        since=st.floats(0, 100),
    ),
)  # fmt: skip


@given(st.integers(0, 10_000), CLAIMS)
def test_shares_are_fair_and_use_everything(limit: int, claims: dict[str, Claim]) -> None:
    """Nobody gets more than it asks for, and a tenant that is short has its weight's share; but for less than one small run."""
    granted = shares(limit, claims, WEIGHTS)

    assert granted.keys() == claims.keys()
    assert all(0 <= granted[run] <= claims[run].tokens for run in claims)
    asked = sum(claim.tokens for claim in claims.values())
    assert min(limit, asked) - len(WEIGHTS) - SMALL * limit <= sum(granted.values()) <= limit
    present = {claim.tenant for claim in claims.values()}
    for tenant in present:
        runs = [run for run in claims if claims[run].tenant == tenant]
        if sum(granted[run] for run in runs) < sum(claims[run].tokens for run in runs):
            fair = limit * WEIGHTS[tenant] / sum(WEIGHTS[t] for t in present)
            assert sum(granted[run] for run in runs) >= fair - len(WEIGHTS) - SMALL * limit


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


@given(st.integers(1, 10_000), CLAIMS, st.floats(0, 1e4), st.none() | st.floats(1, 100))
def test_without_needs_a_grant_is_the_fair_share(
    limit: int, claims: dict[str, Claim], now: float, life_s: float | None
) -> None:
    """And nothing is set aside."""
    for run, fair in shares(limit, claims, WEIGHTS).items():
        granted = grant(run, claims, WEIGHTS, limit=limit, most=limit, life_s=life_s, now=now)
        assert (granted.share, granted.fair, granted.set_aside) == (fair, fair, 0)


def test_shares_are_rounded_to_whole_small_runs() -> None:
    """Eight tenants whose shares are two and a half runs: four have three, and none of the limit is left empty."""
    claims = {
        f"{tenant}{i}": Claim(tokens=500, held=500 * (i < 2), tenant=tenant, run=f"{tenant}{i}", since=i)
        for tenant in "abcdefgh" for i in range(9)
    }  # fmt: skip
    granted = shares(10_000, claims)

    assert set(granted.values()) == {0, 500} and sum(granted.values()) == 10_000
    each = sorted(sum(granted[run] for run in claims if claims[run].tenant == tenant) for tenant in "abcdefgh")
    assert each == [1_000] * 4 + [1_500] * 4

    winner = next(run for run in claims if run.endswith("2") and granted[run])
    loser = next(run for run in claims if run.endswith("2") and not granted[run])
    began = claims | {loser: replace(claims[loser], held=500)}
    assert shares(10_000, began)[loser] == 500  # who has begun keeps its place
    pieces = claims | {"i0": Claim(tokens=9_000, tenant="i", run="i0")}
    assert sum(shares(10_000, pieces).values()) == 10_000 and shares(10_000, pieces)["i0"] >= 1_111
    assert granted[winner] == 500


def test_a_tenant_with_nothing_under_way_need_not_wait_for_room_for_all() -> None:
    """Its first run goes in pieces if it must: nothing of its own will return room."""
    claims = {f"a{i}": Claim(tokens=400, tenant="a", run=f"a{i}", since=i) for i in range(3)}

    assert [goes_whole(run, claims, 10_000) for run in sorted(claims)] == [False, True, True]
    assert goes_whole("a1", claims | {"a0": replace(claims["a0"], held=400)}, 10_000)
    assert not goes_whole("a1", claims | {"a1": replace(claims["a1"], tokens=501)}, 10_000)


LARGE = {
    "a": Claim(tokens=600, tenant="a", run="a", needs=500, needs_since=100.0),
    "b": Claim(tokens=9_000, tenant="b", run="b"),
}


def granted(
    run: str, now: float, claims: dict[str, Claim] = LARGE, *, most: int = 600, life_s: float | None = 40.0
) -> Grant:
    return grant(run, claims, limit=600, most=most, life_s=life_s, now=now)


def test_who_needs_more_than_its_share_leaves_it_to_others_until_its_turn() -> None:
    """Half of a gate stood empty while a request of more than half waited until the other run was done."""
    early = granted("b", 110.0)
    due_s = 40.0 * 500 / 300  # by then its share would have let as much through

    assert (early.share, early.fair, early.set_aside) == (600, 300, 0)
    assert not granted("b", 100.0 + due_s - 1).set_aside
    assert granted("b", 100.0 + due_s + 1).set_aside
    assert not granted("a", 100.0 + due_s + 1).set_aside


def test_a_turn_that_cannot_be_used_passes() -> None:
    """A batch that is stuck, or a process that is, does not stop all others."""
    due_s = 40.0 * 500 / 300

    assert not granted("b", 100.0 + due_s + 81).set_aside
    assert granted("b", 100.0 + due_s + 81 + due_s).set_aside
    assert not granted("b", 100.0 + due_s + 1, most=400).set_aside  # others hold so much that it could not go anyway
    assert not granted("b", 100.0 + due_s + 1, life_s=None).set_aside


def test_of_two_that_need_more_the_one_that_waits_longer_goes_first() -> None:
    """Neither waits for the other for ever; the rest waits for both."""
    later = Claim(tokens=400, tenant="c", run="c", needs=400, needs_since=120.0)
    three = {**LARGE, "c": later}
    due = 120.0 + 40.0 * 500 / 200 + 1

    assert granted("b", due, three).set_aside
    assert granted("c", due, three).set_aside
    assert not granted("a", due, three).set_aside


def waiting(tenant: str, due_at: float, number: int) -> ClientBatchRow:
    return ClientBatchRow(
        id=f"batch_{number}", tenant=tenant, key="k", input_file="f", input="i", input_bytes=1, endpoint="/v1/x",
        window="24h", metadata=None, status=BatchStatus.VALIDATING, fingerprint="p", created_at=0.0, due_at=due_at,
    )  # fmt: skip


QUEUES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=12)


@given(QUEUES, st.dictionaries(st.sampled_from("abc"), st.integers(0, 4)), st.integers(-2, 6), st.booleans())
def test_turns_go_to_who_has_fewest_and_nobody_waits_with_nothing(
    queue: list[tuple[str, int]], busy: dict[str, int], room: int, one_each: bool
) -> None:
    """The room is used, no tenant is two ahead of one that waits, and with one for each none waits with nothing under way."""
    rows = [waiting(tenant, due_at, i) for i, (tenant, due_at) in enumerate(queue)]
    chosen = in_turn(rows, busy, room=room, one_each=one_each)

    left = [row for row in rows if row not in chosen]
    has = {name: busy.get(name, 0) + sum(row.tenant == name for row in chosen) for name in "abc"}
    idle = {row.tenant for row in rows if not busy.get(row.tenant)} if one_each else set()
    assert min(len(rows), max(0, room)) <= len(chosen) <= max(0, room, len(idle))
    for row in left:
        assert all(has[one.tenant] <= max(has[row.tenant] + 1, busy.get(one.tenant, 0) + 1) for one in chosen)
        assert all(one.due_at <= row.due_at for one in chosen if one.tenant == row.tenant)
        assert not one_each or has[row.tenant]
