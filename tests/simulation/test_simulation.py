"""Seeded worlds with crashes keep every promise (docs/simulation.md)."""

from dataclasses import replace

import msgspec
import pytest

from tests.simulation.__main__ import Brief, promise, shrink
from tests.simulation.conftest import PLAYED
from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import Client, Plan, draw
from tests.simulation.play import play

pytestmark = pytest.mark.filterwarnings("ignore")  # the dead leave things open


@pytest.mark.parametrize("seed", range(1, 151))
def test_a_seed_keeps_every_promise(seed: int) -> None:
    """None lost, none twice, never offered over what fits, all done in time."""
    one = play(draw(seed))
    PLAYED[seed] = Brief.of(one)

    assert one.broken is None


def test_the_same_seed_gives_the_same_trace() -> None:
    """Byte for byte."""
    assert play(draw(4)).hash == play(draw(4)).hash


def test_two_processes_that_start_at_once_make_one_run() -> None:
    """Neither sees the other's rows when it looks, so the entering itself has to."""
    plan = Plan(
        seed=9, inputs=(10,), limit=10_000, late=True, validating_s=4.0, rate=1_000, processes=((0, ()), (0, ())),
        faults=(), lines=(),
    )  # fmt: skip
    assert play(plan).broken is None


def test_requests_as_large_as_a_part_do_not_wait_for_ever() -> None:
    """A part smaller than the next request was wanted again and again, and nothing was ever cut."""
    plan = Plan(
        seed=1, inputs=(10,), limit=600, late=True, validating_s=1.0, rate=100, processes=((0, ()),), faults=(), lines=(),
    )  # fmt: skip
    assert play(plan).broken is None


def test_a_request_of_the_whole_limit_gets_its_turn_beside_another_run() -> None:
    """It waited for the other run's end, and half of the gate stood empty for it meanwhile (seed 201299)."""
    plan = Plan(
        seed=201299, inputs=(10, 30), limit=600, late=True, validating_s=40.0, rate=20_000, processes=((0, ()), (1, ())),
        faults=(), lines=(), near=True,
    )  # fmt: skip
    one = play(plan)
    parts = [line for line in one.trace.lines if ": part part_" in line and " requests, " in line]
    alone = next(number for number, line in enumerate(parts) if "1 requests, 600 tokens" in line)

    assert one.broken is None
    assert sum("p1.0: part" in line for line in parts[alone:]) > 10


def test_a_batch_with_parts_under_way_keeps_its_lane_after_trouble() -> None:
    """It waited for a lane, and the batches in the lanes for the room that its parts had reserved."""
    assert play(draw(203710)).broken is None


def test_a_batch_that_is_cancelled_while_it_is_checked_leaves_no_run_wherever_the_gateway_dies() -> None:
    """It died when the run was written and the batch did not name it yet: nobody ever closed that run (seed 630184)."""
    plan = Plan(
        seed=1, inputs=(), limit=10_000, late=True, validating_s=4.0, rate=20_000, processes=(), faults=(), lines=(),
        clients=(Client(tenant=0, requests=1, at=0.0, ending="cancel"),), check_s=5.0,
    )  # fmt: skip
    worlds = [play(replace(plan, gateway=((number, "after"),))) for number in range(1, 61)]

    assert any("batch validating>cancelling" in one.trace.transitions for one in worlds)
    assert [one.broken for one in worlds if one.broken] == []


@pytest.mark.parametrize("damage", ["corrupt", "truncated"])
def test_others_count_in_full_though_their_file_arrives_damaged(damage: str) -> None:
    """A line that could not be read counted nothing, and room was taken that others held (D10)."""
    plan = Plan(
        seed=1, inputs=(10,), limit=10_000, late=True, validating_s=4.0, rate=1_000, processes=((0, ()),),
        faults=(("download", 1, damage),), lines=(), others=((0.0, 1.0, 60.0, True),),
    )  # fmt: skip
    assert play(plan).broken is None


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_seed_keeps_every_promise_through_the_real_adapter_and_sdk(seed: int) -> None:
    """The emulator's HTTP surface on an in-memory transport; the trace is the same each time."""
    plan = replace(draw(seed), wire=True)
    first = play(plan)
    assert first.broken is None
    assert play(plan).hash == first.hash


def test_a_failure_is_shrunk_and_still_fails() -> None:
    """Fewer requests, faults and deaths, and the same bug is still found by the shorter plan alone."""
    with MUTANTS["a hold that frees the reservation"]():
        seed = next(seed for seed in range(1, 11) if play(draw(seed)).broken)
        before, least = draw(seed), shrink(draw(seed))

        assert least.broken and play(least.plan).broken == least.broken
        assert promise(least.broken) == promise(play(before).broken)
        assert sum(least.plan.inputs) <= sum(before.inputs)
        assert sum(len(deaths) for _, deaths in least.plan.processes) == 0
        assert not least.plan.faults and not least.plan.lines
    assert play(least.plan).broken is None


def test_a_plan_goes_through_a_file() -> None:
    """What is printed for a failure can be replayed."""
    plans = [draw(seed) for seed in range(1, 40)]
    assert any(plan.clients for plan in plans)

    assert [msgspec.json.decode(msgspec.json.encode(plan), type=Plan) for plan in plans] == plans


def test_a_promise_is_the_same_whatever_its_numbers() -> None:
    """Shrinking goes on with the failure that it began with."""
    one, other = "part part_00ff00ff00ff: our books say 1,200", "part part_11ff00ff00ff: our books say 7"

    assert promise(one) == promise(other) != promise("a request was executed twice")


@pytest.mark.parametrize("name", ["a hold that frees the reservation", "off by one in a byte range"])
def test_a_planted_bug_is_found(name: str) -> None:
    """The simulation can fail."""
    with MUTANTS[name]():
        assert any(play(draw(seed)).broken for seed in range(1, 11))
