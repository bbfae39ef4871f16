"""``python -m tests.simulation simulate|same|replay|mutants`` (docs/simulation.md)."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections import Counter
from multiprocessing import get_context
from typing import Final

from sluicegate.core.lifecycle import TRANSITIONS
from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import Plan, draw, smaller
from tests.simulation.play import Outcome, play

COVERED_BY: Final = 2_000
"""So many seeds must die at every failpoint and see every legal transition."""

TELL_EVERY_S: Final = 20.0
"""How often `simulate` says how far it is."""

HUNT_REQUESTS_MAX: Final = 1_000
"""Planted bugs are hunted in worlds of at most so many requests: the large ones take long and show nothing more."""


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
    told = began
    with get_context("fork").Pool(os.cpu_count()) as pool:
        for seed, broken, trace, died, seen, moved in pool.imap(_brief, range(first, first + seeds), chunksize=4):
            if time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                print(f"{seed - first} seeds, {sum(deaths.values())} crashes, {len(failed)} failed", flush=True)
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
    complete = wanted <= set(deaths) and legal <= moves
    if seeds >= COVERED_BY and not complete:
        print("not everything was covered")
    if failed:
        least = shrink(draw(failed[0]))
        print(f"shortest found for seed {failed[0]}: {least.broken}\n  {least.plan}")
        print(f"replay: PYTHONHASHSEED=0 python -m tests.simulation replay --first {failed[0]}")
    return 1 if failed or (seeds >= COVERED_BY and not complete) else 0


def same(first: int, seeds: int) -> int:
    """Play seeds twice, in two processes each: the traces must be equal, byte for byte."""
    hashes: list[str] = []
    for _ in range(2):
        digest = hashlib.sha256()
        with get_context("fork").Pool(os.cpu_count()) as pool:
            for brief in pool.imap(_brief, range(first, first + seeds)):
                digest.update(brief[2].encode())
        hashes.append(digest.hexdigest())
        print(f"{seeds} seeds: hash over all traces {hashes[-1]}", flush=True)
    return 0 if len(set(hashes)) == 1 else 1


STARTS: Final = (1, 20_001, 40_001)
"""First seeds of the hunts for each planted bug; the median over them is told."""


def _hunt(hunt: tuple[str, int, int]) -> tuple[int | None, str]:
    """(seeds until a planted bug was found, the promise that it broke)."""
    name, start, seeds = hunt
    with MUTANTS[name]():
        for number in range(1, seeds + 1):
            plan = draw(start + number - 1)
            broken = play(plan).broken if sum(plan.inputs) <= HUNT_REQUESTS_MAX else None
            if broken:
                return number, broken
    return None, ""


def mutants(seeds: int, only: str = "") -> int:
    """Find each planted bug whose name contains ``only``, from several first seeds; prints how many seeds it took."""
    missed = 0
    names = [name for name in MUTANTS if only in name]
    hunts = [(name, start, seeds) for name in names for start in STARTS]
    with get_context("fork").Pool(os.cpu_count()) as pool:
        results = pool.imap(_hunt, hunts)
        for name in names:
            found = [next(results) for _ in STARTS]
            numbers = sorted(number for number, _ in found if number is not None)
            missed += len(numbers) < len(STARTS)
            told = f"median {numbers[len(numbers) // 2]} of {numbers}: {found[0][1]}" if numbers else "not found"
            print(f"{name}: {told}", flush=True)
    print(f"{len(names) - missed} of {len(names)} found within {seeds} seeds from each of {len(STARTS)} first seeds")
    return 1 if missed else 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("what", choices=("simulate", "same", "replay", "mutants"))
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--only", default="", help="mutants whose name contains this")
    given = parser.parse_args()
    if given.what == "simulate":
        return simulate(given.first, given.seeds)
    if given.what == "same":
        return same(given.first, given.seeds)
    if given.what == "mutants":
        return mutants(given.seeds, given.only)
    one = play(draw(given.first))
    print("\n".join(one.trace.lines), one.plan, one.broken or "all promises kept", one.hash, sep="\n")
    return 1 if one.broken else 0


if __name__ == "__main__":
    sys.exit(main())
