"""The whole service on a virtual clock, with deaths at every kind of port call (D1–D5, D12)."""

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks import workload

from sluicegate.adapters.store import SqlStore
from sluicegate.core import belief
from sluicegate.core.report import RunResult
from sluicegate.emulator.config import Account, Change
from tests.simulation.world import Deaths, Died, VirtualLoop, World, life, trace

# A process that dies leaves its tasks where they were; what the garbage collector says of them is no finding.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ACCOUNT = Account(limit=20_000, rate=6_000, validating_s=4, start_s=2, finalizing_s=1, headers=False)
HOURS = 900.0
"""Virtual seconds within which a run must end, whatever happened: a dozen times what it takes undisturbed."""

POLICY = {"poll_s": 1.0, "poll_max_s": 30.0}


def live(
    folder: Path, deaths: list[tuple[int, bool]], account: Account = ACCOUNT, **policy: Any
) -> tuple[World, RunResult]:
    """Start again after each death until the run ends; deaths are (port call, after its effect)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "provider").mkdir()
    source = folder / "requests.jsonl"
    workload.write(source, requests=120, tokens=50_000, largest=2_000)
    world = World(account, folder / "provider")
    loop = VirtualLoop()
    try:
        for number, (at, after) in enumerate([*deaths, (0, False)]):
            fate = Deaths(at or None, after=after)
            told = POLICY | policy | {"cap": account.limit}
            work = life(world, source, folder / "out.jsonl", folder / "state", fate, number, **told)
            try:
                return world, loop.run_until_complete(asyncio.wait_for(work, HOURS))
            except Died:
                continue
        raise AssertionError("the last life has no death")
    finally:
        loop.close()


def assert_all_is_well(folder: Path, world: World) -> None:
    got = [json.loads(line)["custom_id"] for line in (folder / "out.jsonl").read_text().splitlines()]
    assert got == [f"request-{i}" for i in range(120)]
    assert world.model.executed_again == 0
    assert world.model.held_max_ratio <= 1.0


def test_a_run_without_deaths_takes_virtual_minutes_and_real_moments(tmp_path: Path) -> None:
    """Complete, in order, nothing twice, and the model's books say that the limit held."""
    world, result = live(tmp_path / "a", [])

    assert_all_is_well(tmp_path / "a", world)
    assert result.completed == 120
    assert result.seconds > 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_same_seed_gives_the_same_trace(tmp_path: Path) -> None:
    """Byte for byte: that is what makes a failure replayable."""
    traces = [trace(live(tmp_path / name, [(40, True)])[0]) for name in ("a", "b")]

    assert traces[0] == traces[1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the dead leave things open
@pytest.mark.parametrize("seed", range(12))
def test_deaths_at_random_port_calls_lose_nothing_and_repeat_nothing(tmp_path: Path, seed: int) -> None:
    """Up to five lives, each ended right before or right after some commit, upload, create, list, download or delete."""
    dice = random.Random(seed)
    deaths = [(dice.randint(1, 160), dice.random() < 0.5) for _ in range(dice.randint(1, 5))]

    world, _ = live(tmp_path / "x", deaths)
    assert_all_is_well(tmp_path / "x", world)


def test_others_who_come_between_create_and_validation_are_not_taken_for_late_release(tmp_path: Path) -> None:
    """A part that their arrival refuses is offered again as soon as they are seen; nothing is kept after its end."""
    changes = tuple(Change(at_s=at, tokens=9_000, for_s=4.0) for at in range(6, 120, 9))
    account = replace(ACCOUNT, timetable=changes, headers=True)
    world, _ = live(tmp_path / "a", [], account)

    got = [json.loads(line)["custom_id"] for line in (tmp_path / "a" / "out.jsonl").read_text().splitlines()]
    assert got == [f"request-{i}" for i in range(120)]
    store = SqlStore(tmp_path / "a" / "state" / "s.sqlite3", inline=True)
    (row,) = asyncio.run(store.transact(lambda tx: tx.deployments()))
    known = belief.load(row.belief)
    assert world.model.refusals
    assert known.refused_at > 0.0
    assert known.release_lag_s == 0.0


def test_a_run_with_more_parts_than_files_may_be_kept_goes_on_to_its_end(tmp_path: Path) -> None:
    """Found by the simulation: parts that had been cleaned were counted as kept until the next start, 500 on Azure."""
    world, result = live(tmp_path / "a", [], files_max=4)

    assert_all_is_well(tmp_path / "a", world)
    assert result.completed == 120
    assert len(world.model.batches) > 4
    store = SqlStore(tmp_path / "a" / "state" / "s.sqlite3", inline=True)
    (row,) = asyncio.run(store.transact(lambda tx: tx.deployments()))
    assert asyncio.run(store.transact(lambda tx: tx.files_kept(row.resource))) == 0
