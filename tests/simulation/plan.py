"""What one seed means: the workload, the account, what fails and who dies when. Plain values, so that they can shrink."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

GATEWAYS: Final = 0.2
"""The share of worlds that have a gateway."""

HOWS: Final = ("before", "after", "before", "after", "before", "after", "torn", "full", "stop")
"""How a life ends: at a port call, before or after its effect; torn writes and full disks; ``stop`` is a Ctrl-C."""

FAULTS: Final = {
    "create": ("lost", "reset", "late", "429", "delay", "twice", "twice_lost", "400"),
    "upload": ("lost", "reset", "429", "delay"),
    "list_batches": ("503", "429", "delay"),
    "file": ("503",),
    "delete_file": ("503", "lost"),
    "find_files": ("503",),
    "download": ("broken", "503", "truncated", "corrupt"),
}
MORE_FAULTS: Final = {
    "cancel": ("409", "lost", "503"),
    "batch": ("503", "lost"),
    "upload": ("quota",),
}  # fmt: skip
"""Of calls that few worlds make, and drawn apart, so that older plans stay as they were."""

MORE_BATCHES: Final = ("stuck_finalizing", "fail", "input_modified", "release_never")
FILES: Final = ("stuck_pending", "error")
"""What becomes of an uploaded file that is never ``processed``."""

LINES: Final = ("missing", "doubled", "unknown", "swapped", "content_filter", "0", "429", "500")
BATCHES: Final = ("expire", "stuck_validating", "stuck_in_progress", "slow_validating", "release_late", "count")
"""Faults of whole batches; ``release_late`` and ``slow_validating`` take 25 s, ``count`` counts 1.3 per token."""


AIMS: Final = (
    "batch", "batch", "cancel", "cancel", "find_files", "work.<lambda>", "work._absorb", "work._mark_shared_ids",
    "work._whole_file_rules", "work.finish", "work.good", "work.scan_range",
)  # fmt: skip
"""Calls of ports that come once in a life, or in few worlds, so that a death at a number hardly ever meets them."""

GATEWAY_AIMS: Final = (
    "work._digest", "work._error_lines", "work._first_model", "work.objections", "work.open", "work.read",
    "work.sha256_of", "work.touch",
)  # fmt: skip
"""The same, of a gateway."""

ENDINGS: Final = ("stay", "stay", "stay", "cancel", "expire", "delete", "parts")
"""What a client of the gateway does: waits for the end, cancels, meets the due time, deletes its input file at once, uploads
in parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One client of the gateway: whose it is, how many requests its batch has, when it comes, and what it does then."""

    tenant: int
    requests: int
    at: float
    ending: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One simulated world.

    Attributes:
        inputs: Requests of each input file.
        processes: For each process the input it runs and how its lives end: (port call, how).
        faults: (call, its number, kind); ``lines``: (line of each file, kind), hit once.
        late: Refusals come after validating, not at create.
        told: What the person says of the limit: ``exact``, ``none``, or ``high`` (twice as high).
        second: The limit of the deployment of every second input, None where all inputs go to one.
        batches: (number of the batch, kind of fault); ``others``: (from when, share of the limit, for how long, listed).
        wire: Through the real adapter and SDK, to the emulator's HTTP surface.
        changes: (when, by what the limit of the first deployment is multiplied from then on).
        gateway: How the gateway's lives end, None where there is none; ``clients``: who comes to it; ``active``: batches that
            it drives at once; ``unsure``: the share of clients' calls that are lost on the way there or back.
        files: (number of the upload, what becomes of the file).
        openai: The provider is OpenAI: its refusals' text, its fields. ``headers``: Azure's headers on a create.
        mixed: Some requests are not words but Chinese, of more tokens than characters ÷ 4; ``near``: the last request of the
            first input is one of those, and as large as the limit allows.
        shown: A person watches: who follows reads the rows.
        aim: (port call, how): whoever makes it first dies there, once.
        check_s: How long the check of each range of a file takes.
        lag_s: How long tokens count after a batch's end; ``list_lag_s``: how long a batch is in no list.
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
    told: str = "exact"
    second: int | None = None
    batches: tuple[tuple[int, str], ...] = ()
    others: tuple[tuple[float, float, float, bool], ...] = ()
    changes: tuple[tuple[float, float], ...] = ()
    lag_s: float = 0.0
    list_lag_s: float = 0.0
    wire: bool = False
    gateway: tuple[tuple[int, str], ...] | None = None
    clients: tuple[Client, ...] = ()
    active: int = 64
    unsure: float = 0.0
    files: tuple[tuple[int, str], ...] = ()
    openai: bool = False
    headers: bool = False
    mixed: bool = False
    near: bool = False
    shown: bool = False
    aim: tuple[str, str] | None = None
    check_s: float = 0.0

    @property
    def fair(self) -> bool:
        """Whether the person told the limit, the provider keeps to it, and nobody else takes of it."""
        odd = {"count", "release_late", "release_never"}
        kept = not self.changes and not self.lag_s and odd.isdisjoint(kind for _, kind in self.batches)
        return self.told == "exact" and kept and not self.others

    @property
    def twins(self) -> bool:
        """Whether the provider commits a create twice."""
        return any(kind.startswith("twice") for _, _, kind in self.faults)

    @property
    def damaged_twice(self) -> bool:
        """Whether two downloads may be damaged alike, so that nobody can tell that from what the provider has."""
        return sum(kind in ("truncated", "corrupt") for _, _, kind in self.faults) > 1

    def limit_of(self, which: int) -> int:
        """The limit of an input's deployment."""
        return self.second if self.second is not None and which % 2 else self.limit


def draw(seed: int) -> Plan:
    """The plan of a seed; the same on every machine."""
    plan = _wider(_served(_draw(seed), seed), random.Random(f"wider-{seed}"))
    return _aimed(plan, random.Random(f"aimed-{seed}"))


def _aimed(plan: Plan, dice: random.Random) -> Plan:
    """With a death at a call that is seldom made, and checks that take their time."""
    if plan.clients:
        plan = replace(plan, check_s=dice.choice((0.0, 0.0, 1.0, 5.0)))
    if dice.random() < (0.8 if plan.clients else 0.3):
        aims = GATEWAY_AIMS if plan.clients else AIMS
        plan = replace(plan, aim=(dice.choice(aims), dice.choice(("before", "after"))))
    return plan


def _wider(plan: Plan, dice: random.Random) -> Plan:
    """What few worlds have, or few need."""
    plan = replace(
        plan, mixed=dice.random() < 0.3, shown=dice.random() < 0.4, headers=dice.random() < 0.3,
        openai=dice.random() < 0.25 and not plan.wire and sum(plan.inputs) <= 300,
    )  # fmt: skip
    plan = replace(plan, headers=plan.headers and not plan.openai)
    cancels = any(client.ending in ("cancel", "expire") for client in plan.clients) or plan.twins
    calls = [call for call, some in (("cancel", cancels), ("batch", plan.list_lag_s), ("upload", True)) if some]
    if dice.random() < 0.3:
        call = dice.choice(calls)
        plan = replace(plan, faults=(*plan.faults, (call, dice.randint(1, 3), dice.choice(MORE_FAULTS[call]))))
    if dice.random() < 0.1:
        plan = replace(plan, files=((dice.randint(1, 4), dice.choice(FILES)),))
    if dice.random() < 0.15:
        kind = dice.choice(MORE_BATCHES)
        if kind != "release_never" or plan.limit >= 1_000_000:  # otherwise there may be no room for the rest, ever
            plan = replace(plan, batches=(*plan.batches, (dice.randint(1, 4), kind)))
    undisturbed = plan.told == "exact" and not (plan.others or plan.changes or plan.lag_s or plan.clients)
    if dice.random() < 0.3 and plan.inputs and plan.limit <= 5_000 and undisturbed:
        plan = replace(plan, near=True)
    return plan


def _served(plan: Plan, seed: int) -> Plan:
    """With a gateway, in a share of the worlds."""
    dice = random.Random(f"gateway-{seed}")
    if dice.random() >= GATEWAYS or sum(plan.inputs) > 300:
        return plan
    clients = tuple(
        Client(tenant=dice.randint(0, 2), requests=dice.choice((1, 5, 10, 20, 40)), at=dice.choice((0.0, 1.0, 5.0, 30.0)),
               ending=dice.choice(ENDINGS))
        for _ in range(dice.choice((1, 2, 4, 8)))
    )  # fmt: skip
    deaths = tuple((dice.randint(1, 90), dice.choice(HOWS)) for _ in range(dice.choice((4, 8, 16, 24))))
    if dice.random() < 0.7:  # otherwise runs on the same folder share the limit with it
        plan = replace(plan, inputs=(), processes=(), second=None)
    return replace(
        plan,
        gateway=deaths,
        clients=clients,
        active=dice.choice((2, 64)),
        unsure=dice.choice((0.0, 0.1, 0.3)),
        wire=False,
    )


def _draw(seed: int) -> Plan:
    dice = random.Random(f"plan-{seed}")
    inputs = tuple(_size(dice) for _ in range(dice.choice((1, 1, 2))))
    owners = [*range(len(inputs)), *([0] if dice.random() < 0.3 else [])]
    processes = tuple(
        (which, tuple((dice.randint(1, 90), dice.choice(HOWS)) for _ in range(dice.choice((8, 12, 16, 24)))))
        for which in owners
    )
    calls = [dice.choice(tuple(FAULTS)) for _ in range(dice.choice((0, 1, 3, 6)))]
    limits = (600, 1_500, 5_000, 10_000, 40_000, 1_000_000)
    if max(inputs) > 300:
        limits = (100_000, 1_000_000)
    plan = Plan(
        seed=seed, inputs=inputs, limit=dice.choice(limits), late=dice.random() < 0.7,
        validating_s=dice.choice((1.0, 4.0, 40.0)), rate=dice.choice((1_000, 20_000)), processes=processes,
        faults=tuple((call, dice.randint(1, 6), dice.choice(FAULTS[call])) for call in calls),
        lines=tuple((dice.randint(1, 5), dice.choice(LINES)) for _ in range(dice.choice((0, 0, 1, 2)))),
    )  # fmt: skip
    if dice.random() < 0.1 and sum(inputs) <= 300:
        plan = replace(plan, wire=True)
    if dice.random() < 0.4:
        return plan
    return replace(
        plan, told=dice.choice(("exact", "exact", "none", "high")), second=dice.choice((None, None, *limits)),
        batches=tuple((dice.randint(1, 4), dice.choice(BATCHES)) for _ in range(dice.choice((0, 0, 1, 2)))),
        others=tuple(
            (dice.choice((0.0, 5.0, 20.0)), dice.choice((0.3, 0.6, 1.0)), dice.choice((10.0, 60.0)), dice.random() < 0.5)
            for _ in range(dice.choice((0, 0, 0, 1, 2)))
        ),
        changes=tuple((dice.choice((3.0, 30.0)), dice.choice((0.5, 0.5, 3.0))) for _ in range(dice.choice((0, 0, 0, 1)))),
        lag_s=dice.choice((0.0, 0.0, 0.0, 5.0, 20.0)), list_lag_s=dice.choice((0.0, 0.0, 0.0, 1.5)),
    )  # fmt: skip


def _size(dice: random.Random) -> int:
    if dice.random() < 0.97:
        return dice.choice((1, 10, 10, 20, 30, 40))
    return 300 if dice.random() < 0.88 else dice.choice((*[3_000] * 9, 100_000))


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
    for name in ("batches", "others", "changes", "files"):
        had = getattr(plan, name)
        for i in range(len(had)):
            yield replace(plan, **{name: had[:i] + had[i + 1 :]})
    for name, usual in (("told", "exact"), ("second", None), ("lag_s", 0.0), ("list_lag_s", 0.0), ("wire", False),
                        ("openai", False), ("headers", False), ("mixed", False), ("near", False), ("shown", False),
                        ("aim", None), ("check_s", 0.0)):  # fmt: skip
        if getattr(plan, name) != usual:
            yield replace(plan, **{name: usual})
    if plan.gateway is not None:
        for i in range(len(plan.gateway)):
            yield replace(plan, gateway=plan.gateway[:i] + plan.gateway[i + 1 :])
        for i, client in enumerate(plan.clients):
            if len(plan.clients) > 1:
                yield replace(plan, clients=plan.clients[:i] + plan.clients[i + 1 :])
            if client.requests > 1:
                fewer = replace(client, requests=client.requests // 2)
                yield replace(plan, clients=(*plan.clients[:i], fewer, *plan.clients[i + 1 :]))
        if plan.unsure:
            yield replace(plan, unsure=0.0)
    for i, count in enumerate(plan.inputs):
        if count > 1:
            yield replace(plan, inputs=(*plan.inputs[:i], count // 2, *plan.inputs[i + 1 :]))
