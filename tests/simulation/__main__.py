"""``python -m tests.simulation simulate|same|replay|mutants`` (docs/simulation.md)."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import msgspec

from tests.simulation import coverage
from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import Plan, draw, smaller
from tests.simulation.play import Outcome, play

COVERED_BY: Final = 2_000
"""So many seeds must die at every failpoint and see every legal move."""

TELL_EVERY_S: Final = 20.0
"""How often `simulate` says how far it is."""

HUNT_REQUESTS_MAX: Final = 1_000
"""Planted bugs are hunted in worlds of at most so many requests: the large ones take long and show nothing more."""


LAST_LINES: Final = 40
"""Of a failure's trace are printed."""


@dataclass(frozen=True, slots=True)
class Brief:
    """What is kept of one world."""

    seed: int
    broken: str | None
    hash: str
    deaths: Counter[str]
    moves: set[str]
    excepted: Counter[str]
    refusals: int

    @classmethod
    def of(cls, one: Outcome) -> Brief:
        """The brief of an outcome."""
        trace = one.trace
        return cls(one.plan.seed, one.broken, one.hash, trace.deaths, trace.transitions, one.excepted, one.refusals)


def _brief(seed: int) -> Brief:
    return Brief.of(play(draw(seed)))


def promise(broken: str | None) -> str:
    """The sentence of a broken promise without its ids and numbers."""
    return re.sub(r"\b\w+_[0-9a-f]{8,}|\d[\d,.]*", "#", broken or "")


def shrink(plan: Plan, tries: int = 60) -> Outcome:
    """The smallest plan found that still breaks the same promise."""
    best = play(plan)
    wanted, again = promise(best.broken), True
    while again and tries:
        again = False
        for candidate in smaller(best.plan):
            tries -= 1
            found = play(candidate)
            if found.broken and promise(found.broken) == wanted:
                best, again = found, True
                break
            if not tries:
                break
    return best


def totals(briefs: list[Brief]) -> tuple[list[str], bool]:
    """What several worlds show together, and whether they covered everything; the hash is over them in order."""
    digest, deaths, excepted = hashlib.sha256(), Counter[str](), Counter[str]()
    seen: set[str] = set()
    for brief in briefs:
        digest.update(brief.hash.encode())
        deaths.update(brief.deaths)
        excepted.update(brief.excepted)
        seen |= brief.moves
    covered, complete = coverage.report(deaths, seen)
    odd = ", ".join(f"{what} {count:,}" for what, count in sorted(excepted.items())) or "none"
    refused = sum(brief.refusals for brief in briefs)
    return [f"hash {digest.hexdigest()}", f"refusals {refused:,}; excepted, counted: {odd}", *covered], complete


def simulate(first: int, seeds: int) -> int:
    """Run seeds on every core; the hash is over the seeds in order, so the number of processes does not matter."""
    told = began = time.monotonic()
    briefs: list[Brief] = []
    crashes = 0
    with get_context("fork").Pool(os.cpu_count()) as pool:
        for brief in pool.imap(_brief, range(first, first + seeds), chunksize=4):
            briefs.append(brief)
            crashes += sum(brief.deaths.values())
            if brief.broken:
                print(f"seed {brief.seed}: {brief.broken}", flush=True)
            if time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                print(
                    f"{len(briefs)} seeds, {crashes} crashes, {sum(bool(b.broken) for b in briefs)} failed", flush=True
                )
    minutes = (time.monotonic() - began) / 60
    failed = [brief.seed for brief in briefs if brief.broken]
    print(f"{seeds} seeds, {crashes} crashes, {len(failed)} failed, {seeds / minutes:.0f} seeds a minute")
    lines, complete = totals(briefs)
    print("\n".join(lines))
    if seeds >= COVERED_BY and not complete:
        print("not everything was covered")
    if failed:
        _tell_shortest(failed[0])
    return 1 if failed or (seeds >= COVERED_BY and not complete) else 0


def _tell_shortest(seed: int) -> None:
    """Shrink a failing seed; its plan goes to a file from which it can be replayed."""
    least = shrink(draw(seed))
    path = Path("build") / f"simulation-seed-{seed}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(least.plan)))
    print(f"shortest found for seed {seed}: {least.broken}\n  {least.plan}\n  the end of its trace:")
    print("\n".join(least.trace.lines[-LAST_LINES:]))
    print(f"replay: PYTHONHASHSEED=0 python -m tests.simulation replay --plan {path}")


def same(first: int, seeds: int) -> int:
    """Play seeds twice, in two processes each: the traces must be equal, byte for byte."""
    hashes: list[str] = []
    for _ in range(2):
        digest = hashlib.sha256()
        with get_context("fork").Pool(os.cpu_count()) as pool:
            for brief in pool.imap(_brief, range(first, first + seeds)):
                digest.update(brief.hash.encode())
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
    parser.add_argument("--plan", type=Path, help="replay this plan, in place of a seed's")
    parser.add_argument("--only", default="", help="mutants whose name contains this")
    given = parser.parse_args()
    if given.what == "simulate":
        return simulate(given.first, given.seeds)
    if given.what == "same":
        return same(given.first, given.seeds)
    if given.what == "mutants":
        return mutants(given.seeds, given.only)
    one = play(msgspec.json.decode(given.plan.read_bytes(), type=Plan) if given.plan else draw(given.first))
    print("\n".join(one.trace.lines), one.plan, one.broken or "all promises kept", one.hash, sep="\n")
    return 1 if one.broken else 0


if __name__ == "__main__":
    sys.exit(main())
