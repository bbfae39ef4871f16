"""What one seed means: the workload, the account, what fails and who dies when. Plain values, so that they can shrink."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

HOWS: Final = ("before", "after", "before", "after", "torn", "full")
FAULTS: Final = {
    "create": ("lost", "reset", "late", "429", "delay"),
    "upload": ("lost", "reset", "429", "delay"),
    "list_batches": ("503", "429", "delay"),
    "file": ("503",),
    "delete_file": ("503", "lost"),
    "find_files": ("503",),
    "download": ("broken", "503"),
}
LINES: Final = ("missing", "doubled", "unknown", "0", "429", "500")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One simulated world.

    Attributes:
        inputs: Requests of each input file.
        processes: For each process the input it runs and how its lives end: (port call, how).
        faults: (call, its number, kind); ``lines``: (line of each file, kind), hit once.
        late: Refusals come after validating, not at create.
    """

    seed: int
    inputs: tuple[int, ...]
    limit: int
    late: bool
    validating_s: float
    rate: int
    processes: tuple[tuple[int, tuple[tuple[int, str], ...]], ...]
    faults: tuple[tuple[str, int, str], ...]
    lines: tuple[tuple[int, str], ...]


def draw(seed: int) -> Plan:
    """The plan of a seed; the same on every machine."""
    dice = random.Random(f"plan-{seed}")
    inputs = tuple(
        dice.choice((1, 10, 10, 20, 30, 40)) if dice.random() < 0.97 else 300 for _ in range(dice.choice((1, 1, 2)))
    )
    owners = [*range(len(inputs)), *([0] if dice.random() < 0.3 else [])]
    processes = tuple(
        (which, tuple((dice.randint(1, 130), dice.choice(HOWS)) for _ in range(dice.choice((2, 4, 6, 8)))))
        for which in owners
    )
    calls = [dice.choice(tuple(FAULTS)) for _ in range(dice.choice((0, 1, 3, 6)))]
    return Plan(
        seed=seed, inputs=inputs, limit=dice.choice((600, 1_500, 5_000, 10_000, 40_000, 1_000_000)), late=dice.random() < 0.7,
        validating_s=dice.choice((1.0, 4.0, 40.0)), rate=dice.choice((1_000, 20_000)), processes=processes,
        faults=tuple((call, dice.randint(1, 6), dice.choice(FAULTS[call])) for call in calls),
        lines=tuple((dice.randint(1, 5), dice.choice(LINES)) for _ in range(dice.choice((0, 0, 1, 2)))),
    )  # fmt: skip


def smaller(plan: Plan) -> Iterator[Plan]:
    """Plans with one thing less, the biggest steps first."""
    for i in range(len(plan.processes)):
        which, deaths = plan.processes[i]
        others = plan.processes[:i] + plan.processes[i + 1 :]
        if any(w == which for w, _ in others):
            yield replace(plan, processes=others)
        for j in range(len(deaths)):
            fewer = (which, deaths[:j] + deaths[j + 1 :])
            yield replace(plan, processes=(*plan.processes[:i], fewer, *plan.processes[i + 1 :]))
    for i in range(len(plan.faults)):
        yield replace(plan, faults=plan.faults[:i] + plan.faults[i + 1 :])
    for i in range(len(plan.lines)):
        yield replace(plan, lines=plan.lines[:i] + plan.lines[i + 1 :])
    for i, count in enumerate(plan.inputs):
        if count > 1:
            yield replace(plan, inputs=(*plan.inputs[:i], count // 2, *plan.inputs[i + 1 :]))
