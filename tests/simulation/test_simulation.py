"""Seeded worlds with crashes keep every promise (docs/simulation.md)."""

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import Plan, draw
from tests.simulation.play import play

pytestmark = pytest.mark.filterwarnings("ignore")  # the dead leave things open


@pytest.mark.parametrize("seed", range(1, 26))
def test_a_seed_keeps_every_promise(seed: int) -> None:
    """None lost, none twice, never offered over what fits, all done in time."""
    assert play(draw(seed)).broken is None


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


@pytest.mark.parametrize("name", ["a hold that frees the reservation", "off by one in a byte range"])
def test_a_planted_bug_is_found(name: str) -> None:
    """The simulation can fail."""
    with MUTANTS[name]():
        assert any(play(draw(seed)).broken for seed in range(1, 11))
