"""Admit or hold back (D1, D2): never over the limit, and always with a reason."""

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sluicegate.core.admission import Admit, Gate, HoldBack, decide
from sluicegate.core.belief import Allowance, Belief, Pace, requests_refused

PROVEN = Allowance(limit=60_000, source="header", proven=60_000, searching=False)


def gate(**changes: object) -> Gate:
    base = Gate(
        limits=PROVEN, belief=Belief(creates_answered=1), reserved=0, held=0, foreign=0, lagging=0, unproven=0,
        submitting=0, waiting=285_000, largest=3_200, mine=0, my_share=None, fair_share=None,
        tenant_share=None, whole=False, one_over_share=False, set_aside=0, lately=0, serial=0, paused=False,
        creates_left=100, creates_left_at=None, files_left=100, poll_s=1.0, part_s_least=0.0,
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


tokens = st.integers(0, 80_000)


@given(
    limit=st.integers(1, 100_000), proven=tokens, searching=st.booleans(), reserved=tokens, held=tokens, foreign=tokens,
    lagging=tokens, waiting=tokens, largest=st.integers(1, 5_000), serial=st.integers(0, 50),
    share=st.none() | tokens, hold=st.none() | st.floats(0.1, 1e6), lately=tokens, tenant_share=st.none() | tokens,
    whole=st.booleans(), one_over_share=st.booleans(), set_aside=tokens,
)  # fmt: skip
def test_what_is_admitted_always_fits(
    limit: int, proven: int, searching: bool, reserved: int, held: int, foreign: int, lagging: int, waiting: int,
    largest: int, serial: int, share: int | None, hold: float | None, lately: int, tenant_share: int | None, whole: bool,
    one_over_share: bool, set_aside: int,
) -> None:  # fmt: skip
    """``fill + size ≤ limit``, for every state there is; the only exception says so by ``alone``."""
    one = gate(
        limits=Allowance(limit=limit, source="x", proven=min(limit, proven), searching=searching), reserved=reserved,
        held=held, foreign=foreign, lagging=lagging, waiting=waiting, largest=min(largest, max(1, waiting)),
        lately=lately, serial=serial, my_share=share, tenant_share=tenant_share, whole=whole,
        one_over_share=one_over_share, set_aside=set_aside, belief=Belief(creates_answered=1, pace=Pace(hold_s=hold)),
    )  # fmt: skip

    verdict = decide(one, 0.0)

    assert verdict.reason
    if isinstance(verdict, Admit):
        assert verdict.size > 0
        assert verdict.alone or one.fill + verdict.size <= limit
        assert not verdict.alone or one.fill == 0


def test_all_that_fits_goes_as_one_part() -> None:
    """Nothing would be gained by cutting: 182 MB under a limit of 1 B are one batch."""
    verdict = decide(gate(limits=replace(PROVEN, limit=10**9, proven=10**9)), 0.0)

    assert isinstance(verdict, Admit)
    assert verdict.size >= 285_000


def test_what_others_leave_of_an_unseen_limit_is_filled_in_pieces() -> None:
    """Half of it is: one part of all would stand still until the last of its requests is answered."""
    unseen = Allowance(limit=60_000, source="configured", proven=0, searching=False)

    first = decide(gate(limits=unseen, foreign=36_000), 0.0)
    assert isinstance(first, Admit) and first.size <= 12_000 and first.unproven
    rest = decide(gate(limits=unseen, foreign=36_000, held=12_000, mine=12_000), 0.0)
    assert isinstance(rest, Admit) and rest.size == 12_000


def test_neighbouring_parts_differ_in_size() -> None:
    """Equal parts that share a rate end together and leave the service idle."""
    sizes = [decide(gate(serial=i), 0.0).size for i in range(10)]  # type: ignore[union-attr]

    assert all(abs(a - b) > 500 for a, b in itertools.pairwise(sizes))
    assert 4_000 < sum(sizes) / len(sizes) < 8_000


def test_an_unknown_limit_is_met_with_a_small_first_part_and_patience() -> None:
    """The first answer may tell the limit for nothing; until it is there, nothing else is sent."""
    unknown = Allowance(limit=None, source="", proven=0, searching=True)

    first = decide(gate(limits=unknown, belief=Belief()), 0.0)
    assert isinstance(first, Admit) and first.size == 14_250
    assert isinstance(decide(gate(limits=unknown, belief=Belief(), submitting=1, unproven=1), 0.0), HoldBack)

    second = decide(gate(limits=unknown, unproven=1), 0.0)
    assert isinstance(second, Admit) and second.size == 285_000
    assert isinstance(decide(gate(limits=unknown, unproven=2), 0.0), HoldBack)

    much = decide(gate(limits=unknown, belief=Belief(), waiting=10**9), 0.0)
    assert isinstance(much, Admit) and much.size == 20_000


def test_only_one_part_at_a_time_goes_beyond_what_is_proven_while_searching() -> None:
    """A wrong belief costs one refusal and not ten."""
    searching = Allowance(limit=50_000, source="learned", proven=30_000, searching=True)

    probe = decide(gate(limits=searching, held=30_000), 0.0)
    assert isinstance(probe, Admit) and probe.probing and probe.size == 20_000
    assert isinstance(decide(gate(limits=searching, held=50_000 - 1_000, unproven=1), 0.0), HoldBack)


def test_a_run_with_its_fair_share_lets_the_other_go_first() -> None:
    """Two processes take turns: room beyond one's share is left to the other."""
    verdict = decide(gate(held=40_000, mine=40_000, my_share=30_000), 0.0)

    assert isinstance(verdict, HoldBack)
    assert "fair share" in verdict.reason


def test_a_run_without_anything_under_way_may_send_one_request_beyond_its_share() -> None:
    """Two runs whose requests exceed half of the limit waited for each other for ever."""
    learned = Allowance(limit=172, source="learned", proven=172, searching=False)
    verdict = decide(gate(limits=learned, my_share=86, one_over_share=True, largest=125, waiting=400), 0.0)

    assert isinstance(verdict, Admit) and verdict.size_at_need == 125
    within = decide(gate(limits=learned, my_share=86, largest=125, waiting=400, held=40, mine=40), 0.0)
    assert isinstance(within, Admit) and max(within.size, within.size_at_need) <= 46


def test_small_runs_go_whole() -> None:
    """A tenant's many small batches were cut to what its share left of each: two to three provider batches for one."""
    small = gate(waiting=2_900, largest=1_000, my_share=2_900, tenant_share=12_000, held=40_000, whole=True)
    whole = decide(small, 0.0)
    assert isinstance(whole, Admit) and whole.size >= 2_900 and whole.reason.startswith("all that waits")
    beyond = decide(replace(small, my_share=2_400), 0.0)
    assert isinstance(beyond, HoldBack) and "fair share" in beyond.reason
    assert isinstance(decide(replace(small, held=57_500), 0.0), HoldBack)
    assert isinstance(decide(replace(small, held=57_500, whole=False), 0.0), Admit)


def test_a_single_large_request_does_not_keep_the_small_ones_back() -> None:
    """One request of nearly the whole limit among many made its run send one part at a time while another run waited."""
    verdict = decide(gate(my_share=30_000, largest=55_000, held=30_000, mine=2_000), 0.0)

    assert isinstance(verdict, Admit)


def test_a_request_of_more_than_half_goes_though_the_limit_is_only_told() -> None:
    """It waited until no other run was left: only half of what is not proven was open to it."""
    told = replace(PROVEN, proven=0)
    verdict = decide(gate(limits=told, my_share=60_000, waiting=50_000, largest=50_000), 0.0)

    assert isinstance(verdict, Admit) and verdict.unproven and verdict.size_at_need == 50_000


def test_the_gate_drains_for_another_runs_turn() -> None:
    """As far as that needs, and no further."""
    verdict = decide(gate(my_share=60_000, held=20_000, set_aside=40_000), 0.0)
    beside = decide(gate(my_share=60_000, held=20_000, set_aside=39_000), 0.0)

    assert isinstance(verdict, HoldBack) and "has its turn" in verdict.reason
    assert isinstance(beside, Admit) and beside.size <= 1_000


def test_what_returns_within_few_looks_goes_again_evenly() -> None:
    """At an end where four looks are a batch's life a quarter goes at each, or parts come back all at once for ever."""
    pace = Belief(creates_answered=1, pace=Pace(hold_s=4.0))
    crowded = gate(belief=pace, held=14_000, foreign=36_000)
    assert isinstance(decide(replace(crowded, lately=5_900), 0.0), Admit)
    held = decide(replace(crowded, lately=6_000), 0.0)

    assert isinstance(held, HoldBack) and held.until == 1.0
    assert isinstance(decide(replace(crowded, held=20_500, lately=6_000, waiting=3_000), 0.0), Admit)  # all there is
    assert isinstance(decide(replace(crowded, held=6_000, lately=6_000), 0.0), Admit)  # most of the gate is empty
    long_lived = Belief(creates_answered=1, pace=Pace(hold_s=10.0))
    assert isinstance(decide(replace(crowded, belief=long_lived, lately=6_000), 0.0), Admit)


def test_obstacles_are_named() -> None:
    """Paused, creation rate, files, calm after refusals: each holds back with its own sentence."""
    assert "paused" in decide(gate(paused=True), 0.0).reason
    assert "per hour" in decide(gate(creates_left=0, creates_left_at=99.0), 0.0).reason
    assert "files" in decide(gate(files_left=0), 0.0).reason
    calm = decide(gate(belief=Belief(creates_answered=1, calm_until=50.0)), 49.0)
    assert isinstance(calm, HoldBack) and calm.until == 50.0


def test_a_request_that_exceeds_the_limit_only_by_the_margin_goes_alone_at_an_empty_gate() -> None:
    """It may fit by the provider's count; only the provider can say (D9)."""
    alone = decide(gate(largest=61_000, waiting=61_000), 0.0)

    assert isinstance(alone, Admit) and alone.alone and (alone.size, alone.size_at_need) == (60_000, 61_000)
    shared = decide(gate(largest=61_000, waiting=99_000, held=1), 0.0)
    assert isinstance(shared, Admit) and not shared.alone and shared.size < 60_000


def test_a_gate_that_is_full_of_requests_says_so() -> None:
    """Where the provider limits enqueued requests as well, they have a sentence of their own."""
    told = requests_refused(Belief(creates_answered=1), 0.0, offered_at=0.0, fill=150, limit=60)
    held = decide(gate(belief=told, requests=60), 1.0)

    assert isinstance(held, HoldBack) and "limit of enqueued requests is reached: 60 of 60" in held.reason
    assert isinstance(decide(gate(belief=told, requests=59), 1.0), Admit)
    assert isinstance(decide(gate(belief=told, requests=None), 1.0), Admit)
