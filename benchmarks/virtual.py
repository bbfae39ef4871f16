"""The rows of `makespan` on a virtual clock, each over several workloads: `python -m benchmarks.virtual [ROW …]`.

For choosing what `core/admission.py`, `core/belief.py` and `core/watch.py` decide by: the real service runs against the
emulator's pure model, so a row takes seconds, is the same each time, and says what a single measurement cannot, whether a
change helps other workloads too. A process's start, its CPU time and the network are not in it: `makespan` has them.
``WORKLOADS=8`` plays more than four.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from statistics import mean
from typing import Final

from tests.simulation.world import EPOCH, Deaths, VirtualLoop, World, life

from benchmarks import workload
from benchmarks.makespan import LIMIT, OTHERS, OTHERS_S, ROWS, Row, ideal_of
from sluicegate.emulator.config import Account, Change, fields_of

DISCIPLINES: Final = ("shared", "fifo")
END_S: Final = 3_000.0


@dataclass(frozen=True, kw_only=True)
class Played:
    """One run: its time over the fluid bound, the refusals, the provider batches."""

    ratio: float
    refusals: int
    batches: int


def account(row: Row, discipline: str) -> Account:
    """The emulator of a row; its flags are those of `sluicegate emulate`."""
    values = dict(pairwise((*row.flags, "")))
    words = {"discipline": discipline, "limit": LIMIT, "count_factor": row.factor, **row.service}
    words |= {"headers": "--no-headers" not in row.flags, "fail_fast": "--fail-fast" in row.flags}
    if "--refusal" in values:
        words["refusal"] = values["--refusal"]
    changes = [Change(at_s=at, limit=round(limit)) for at, limit in row.limits[1:]]
    if row.others is False:
        changes.append(Change(at_s=0.0, tokens=OTHERS, for_s=OTHERS_S, listed=False))
    return Account(timetable=tuple(changes), **fields_of(words))


def play(row: Row, discipline: str, seed: int) -> Played:
    """Play a row with the workload of a seed."""
    loop = VirtualLoop()
    with tempfile.TemporaryDirectory(prefix="sluicegate-virtual-") as name:
        folder = Path(name)
        (folder / "provider").mkdir()
        source = folder / "requests.jsonl"
        workload.write(source, seed=seed)
        world = World(account(row, discipline), folder / "provider")
        if row.others:
            world.model.hold_listed(EPOCH - 0.2, OTHERS, OTHERS_S + 0.2, "gpt-4.1-batch")
        fate = Deaths(None, after=False)
        work = life(world, source, folder / "out", folder / "state", fate, seed, cap=row.told, poll_s=1.0)
        try:
            result = loop.run_until_complete(asyncio.wait_for(work, END_S))
        finally:
            loop.close()
    ideal = ideal_of(row, sum(workload.sizes(seed=seed)) * row.factor)
    return Played(
        ratio=result.seconds / ideal, refusals=sum(world.model.refusals.values()), batches=len(world.model.batches)
    )


def main(wanted: list[str]) -> None:
    """Print the table."""
    rows = [row for row in ROWS if not wanted or any(word in row.name for word in wanted)]
    seeds = range(7, 7 + int(os.environ.get("WORKLOADS", "4")))
    print("| row | must | " + " | ".join(f"{d}: mean, worst ratio, most refusals, batches" for d in DISCIPLINES) + " |")
    print("|---|---|---|---|")
    with ProcessPoolExecutor() as pool:
        cases = list(product(rows, DISCIPLINES, seeds))
        played = dict(
            zip([(r.name, d, s) for r, d, s in cases], pool.map(play, *zip(*cases, strict=True)), strict=True)
        )
    for row in rows:
        cells = []
        for discipline in DISCIPLINES:
            of = [played[row.name, discipline, seed] for seed in seeds]
            cells.append(
                f"{mean(p.ratio for p in of):.3f}, {max(p.ratio for p in of):.3f}, {max(p.refusals for p in of)}, "
                f"{max(p.batches for p in of)}"
            )
        print(f"| {row.name} | {row.bar} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
