"""``python -m tests.simulation simulate|replay|mutants`` (docs/simulation.md)."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections import Counter
from multiprocessing import get_context

from sluicegate.core.lifecycle import TRANSITIONS
from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import Plan, draw, smaller
from tests.simulation.play import Outcome, play


def _brief(seed: int) -> tuple[int, str | None, str, Counter[str], set[str], set[str]]:
    one = play(draw(seed))
    return seed, one.broken, one.hash, one.trace.deaths, one.trace.points, one.trace.transitions


def shrink(plan: Plan, tries: int = 60) -> Outcome:
    """The smallest plan found that still breaks a promise."""
    best = play(plan)
    again = True
    while again and tries:
        again = False
        for candidate in smaller(best.plan):
            tries -= 1
            found = play(candidate)
            if found.broken:
                best, again = found, True
                break
            if not tries:
                break
    return best


def simulate(first: int, seeds: int) -> int:
    """Run seeds on every core; the hash is over the seeds in order, so the number of processes does not matter."""
    began = time.monotonic()
    digest, deaths = hashlib.sha256(), Counter[str]()
    points: set[str] = set()
    moves: set[str] = set()
    failed: list[int] = []
    with get_context("fork").Pool(os.cpu_count()) as pool:
        for seed, broken, trace, died, seen, moved in pool.imap(_brief, range(first, first + seeds), chunksize=4):
            digest.update(trace.encode())
            deaths.update(died)
            points |= seen
            moves |= moved
            if broken:
                failed.append(seed)
                print(f"seed {seed}: {broken}", flush=True)
    minutes = (time.monotonic() - began) / 60
    wanted = {f"{point}:{how}" for point in points for how in ("before", "after")} | {"write:torn", "write:full"}
    legal = {f"{before}>{after}" for before, afters in TRANSITIONS.items() for after in afters}
    print(f"{seeds} seeds, {sum(deaths.values())} crashes, {len(failed)} failed, {seeds / minutes:.0f} seeds a minute")
    print(f"hash {digest.hexdigest()}")
    print(f"failpoints {len(wanted & set(deaths))} of {len(wanted)}; never died at {sorted(wanted - set(deaths))}")
    print(f"transitions {len(legal & moves)} of {len(legal)}; never seen {sorted(legal - moves)}")
    if failed:
        least = shrink(draw(failed[0]))
        print(f"shortest found for seed {failed[0]}: {least.broken}\n  {least.plan}")
        print(f"replay: PYTHONHASHSEED=0 python -m tests.simulation replay --first {failed[0]}")
    return 1 if failed else 0


def mutants(seeds: int) -> int:
    """Find each planted bug; prints the first seed that does."""
    missed = 0
    for name, planted in MUTANTS.items():
        with planted():
            found = next(((s, b) for s in range(1, seeds + 1) if (b := play(draw(s)).broken)), None)
        missed += found is None
        print(f"{name}: {f'seed {found[0]}: {found[1]}' if found else f'not found in {seeds} seeds'}", flush=True)
    print(f"{len(MUTANTS) - missed} of {len(MUTANTS)} found")
    return 1 if missed else 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("what", choices=("simulate", "replay", "mutants"))
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1_000)
    given = parser.parse_args()
    if given.what == "simulate":
        return simulate(given.first, given.seeds)
    if given.what == "mutants":
        return mutants(given.seeds)
    one = play(draw(given.first))
    print("\n".join(one.trace.lines), one.plan, one.broken or "all promises kept", one.hash, sep="\n")
    return 1 if one.broken else 0


if __name__ == "__main__":
    sys.exit(main())
