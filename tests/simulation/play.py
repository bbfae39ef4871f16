"""Play one plan to its end on a virtual clock, checking the promises all the time."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import json
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from unittest import mock

from sluicegate.adapters.counters import default_counter
from sluicegate.adapters.store import SqlStore
from sluicegate.core.report import Event, RunResult
from sluicegate.core.rules import CheckRules
from sluicegate.emulator.config import Account, Change, Fault
from sluicegate.emulator.model import LIVE
from sluicegate.errors import (
    AuthenticationFailed,
    DeploymentNotFound,
    Interrupted,
    ProviderRefused,
    SluicegateError,
    StateUnusable,
)
from sluicegate.service import prepare, runs
from sluicegate.service.context import Context, Policy
from tests.simulation import judge
from tests.simulation.books import Books
from tests.simulation.gatehouse import KEEP_S, Gatehouse
from tests.simulation.judge import Echo
from tests.simulation.plan import Plan
from tests.simulation.ports import Blobs, Fate, Locks, Network, Store, Trace, Workers
from tests.simulation.wire import FAULTS_HERE, KINDS_HERE, WireWorld, one_thread
from tests.simulation.world import EPOCH, Died, SeededIds, VirtualClock, VirtualLoop, World

USUAL_TOKENS = 60
"""What a request of the inputs has on average, rounded up."""

UNFAIR = 6.0
"""Where nobody told the limit, or it shrinks, or others take of it, the work is refused and waits in between: so many times the
lives of batches that it needs otherwise."""

UNDISTURBED_S = 7_200.0
"""Virtual seconds after which a world is given up, whatever disturbs it."""


def bound_s(plan: Plan, again: Mapping[str, int] = MappingProxyType({})) -> float:
    """Virtual seconds after the last disturbance within which the work must be done, though none of it was.

    Args:
        again: By deployment, how often requests went again: a fault that hits a line of each file hits every request of
            files that have only one.

    One life of a batch is its validating, start and finalizing, what counts late, and the longest time until somebody looks.
    The work needs as many lives, one after the other, as it fills the limit, one more for what does not divide evenly,
    one for lines that failed, four for a twin, which holds tokens until it is cancelled and whose refusal is taken for tokens
    that are freed so late, and one for each time that clients' batches take turns where few are driven at once; the service
    works off its tokens beside that. Where a limit is divided each share may leave most of a request empty. What waits may
    have been put off by as much as the faults so far doubled a pause to, a minute at most.
    """
    life = plan.validating_s + 1.5 + plan.lag_s + plan.list_lag_s + POLICY.poll_max_s
    least = min([1.0, *(by for _, by in plan.changes)])
    fills = sum(count * USUAL_TOKENS / plan.limit_of(which) for which, count in enumerate(plan.inputs))
    fills += sum(client.requests for client in plan.clients) * USUAL_TOKENS / plan.limit
    fills += sum(count * USUAL_TOKENS / plan.limit_of(int(name.startswith("m1"))) for name, count in again.items())
    if plan.clients:
        share = plan.limit / (len({client.tenant for client in plan.clients}) + len(plan.inputs))
        fills *= min(2.0, share / max(1.0, share - USUAL_TOKENS))
    requests = sum(plan.inputs) + sum(client.requests for client in plan.clients)
    lives = 1.0 + fills / least + bool(plan.lines) + plan.near + 4 * plan.twins + len(plan.clients) // plan.active
    pause = 60.0 if plan.clients else min(60.0, POLICY.poll_s * 2.0 ** len(plan.faults)) if plan.faults else 0.0
    checks_s = plan.check_s * (len(plan.clients) + len(plan.inputs))
    return life * lives * (1.0 if plan.fair else UNFAIR) + requests * USUAL_TOKENS / plan.rate + pause + checks_s


AUDIT_EVERY = 20
"""Every so many commits the kept balances are compared with the sums of the ledger's entries."""

STUCK_S = 300.0
"""After so long without a move a batch is taken for stuck."""

POLICY = Policy(poll_s=2.0, poll_max_s=30.0, stuck_validating_s=STUCK_S, stuck_in_progress_s=STUCK_S)

REFUSALS_USUAL, REFUSALS_EACH = 12, 12
"""Refusals in one world that is not fair: at most so many, and so many more for each surprise."""


class Broken(BaseException):
    """A promise is broken: nothing may handle it."""


@dataclass
class Outcome:
    """How a plan ended; ``broken`` is the sentence of the first broken promise."""

    plan: Plan
    trace: Trace
    broken: str | None = None
    hash: str = field(default="")
    took_s: float = 0.0
    excepted: Counter[str] = field(default_factory=Counter)
    refusals: int = 0


EXPECTED: Final = (SluicegateError, Died, Broken, asyncio.CancelledError)
"""What may end a task; anything else is a bug, whoever catches it."""


class _Listener(logging.Handler):
    """Hears what the service only logs: the gateway's loops catch everything and try again."""

    def __init__(self, heard: Callable[[BaseException, str], None]) -> None:
        super().__init__(logging.WARNING)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        given = (
            next((a for a in record.args if isinstance(a, Exception)), None) if isinstance(record.args, tuple) else None
        )
        if (found := error or given) is not None:
            self._heard(found, record.getMessage())


class _Quick(SqlStore):
    """The store on a copy of a migrated file."""

    def _migrate(self) -> None:
        with self._engine.connect() as connection:
            connection.exec_driver_sql("ROLLBACK")
            connection.exec_driver_sql("PRAGMA synchronous=OFF")
            connection.exec_driver_sql("BEGIN")


@cache
def _template() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.sqlite3"
        store = SqlStore(path, inline=True)
        store._engine.dispose()
        return path.read_bytes()


NEAR: Final = 0.985
"""Of the limit, in tokens, has a request that fits only without the margin."""


def words(i: int, which: int, *, mixed: bool) -> str:
    """A request's text: words, or Chinese, of which each character is a token or so."""
    count = 5 + (i * 37 + which * 11) % 90
    return "的" * count if mixed and i % 5 == 2 else "word " * count


def _write(path: Path, which: int, plan: Plan) -> None:
    model, count = f"m{which % 2 if plan.second is not None else 0}-batch", plan.inputs[which]
    with path.open("w", encoding="utf-8") as out:
        for i in range(count):
            content = words(i, which, mixed=plan.mixed)
            if plan.near and which == 0 and i == count - 1:
                content = "的" * int(NEAR * plan.limit - 10)
            body = {"model": model, "messages": [{"role": "user", "content": content}]}
            line = {"custom_id": f"r{which}-{i}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


def _on_the_wire(plan: Plan) -> tuple[Fault, ...]:
    """The plan's faults that the emulator makes."""
    found = [
        Fault(on=FAULTS_HERE[call], kind=KINDS_HERE[kind], nth=nth)
        for call, nth, kind in plan.faults
        if call in FAULTS_HERE and kind in KINDS_HERE
    ]
    if plan.list_lag_s:
        found.append(Fault(on="list", kind="lag", times=0, seconds=plan.list_lag_s))
    return tuple(found)


class _Play:
    policy = POLICY

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder, self.trace = plan, folder, Trace()
        (folder / "provider").mkdir()
        (folder / "state").mkdir()
        (folder / "state" / "s.sqlite3").write_bytes(_template())
        self.store = _Quick(folder / "state" / "s.sqlite3", inline=True)
        for which in range(len(plan.inputs)):
            _write(folder / f"in{which}.jsonl", which, plan)
        faults = tuple(Fault(on="line", kind=kind, nth=nth) for nth, kind in plan.lines)
        faults += tuple(
            Fault(on="batch", kind=kind, nth=nth, seconds=25.0, factor=1.3 if kind == "count" else 1.0)
            for nth, kind in plan.batches
        )
        faults += tuple(Fault(on="file", kind=kind, nth=nth) for nth, kind in plan.files)
        others = tuple(
            Change(at_s=at, tokens=int(share * plan.limit), for_s=for_s, listed=listed, deployment="m0-batch")
            for at, share, for_s, listed in sorted(plan.others)
        )
        others += tuple(
            Change(at_s=at, limit=int(by * plan.limit), deployment="m0-batch") for at, by in sorted(plan.changes)
        )
        account = Account(
            limit=plan.limit, rate=plan.rate, validating_s=plan.validating_s, fail_fast=not plan.late,
            headers=plan.headers, dialect="openai" if plan.openai and not plan.wire else "azure", seed=plan.seed,
            faults=faults, timetable=others, release_lag_s=plan.lag_s,
        )  # fmt: skip
        self.world: World | WireWorld
        if plan.wire:
            self.world = WireWorld(replace(account, faults=faults + _on_the_wire(plan)), folder / "provider")
        else:
            self.world = World(account, folder / "provider")
            self.world.list_lag_s = plan.list_lag_s
        self.world.answers = Echo()
        if plan.second is not None:
            self.world.model.deployments.set_limit(plan.second, "m1-batch")
        self.books = Books(
            self.world.model, self.store, self.trace, told=self.told_of, lag_s=plan.list_lag_s, fail=self.fail,
            cancel_faults=sum(call == "cancel" for call, _, _ in plan.faults),
            damage_unknown=plan.wire and plan.damaged_twice,
        )  # fmt: skip
        self.trace.books, self.trace.aim = self.books, ":".join(plan.aim) if plan.aim else None
        self.locks: dict[str, Fate] = {}
        self.broken: str | None = None
        self.asked = -1
        self.took_s = 0.0
        self.results: list[tuple[int, RunResult]] = []

    def fail(self, sentence: str) -> None:
        self.broken = self.broken or sentence
        raise Broken(sentence)

    def swallowed(self, error: BaseException, where: str) -> None:
        """Something was caught, logged or dropped; what is no trouble of the world breaks a promise, and it may go on."""
        reasons: dict[type, str] = {ProviderRefused: "400", AuthenticationFailed: "", DeploymentNotFound: ""}
        unreasoned = type(error) in reasons and not any(kind == reasons[type(error)] for _, _, kind in self.plan.faults)
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC and self.trace.was_full
        if unreasoned or not (full or isinstance(error, EXPECTED)):
            self.broken = self.broken or f"{where}: {type(error).__name__}: {error}".splitlines()[0]

    def check(self) -> None:
        """The promises that hold at every commit."""
        model = self.world.model
        plan = self.plan
        self.books.at_commit()
        if plan.fair and not plan.twins and model.offered_max > 1.0:
            self.fail(f"offered {model.offered_max:.3f} of what fits")
        refused = sum(model.refusals.values())
        refusing = sum(kind in ("count", "release_late", "release_never") for _, kind in plan.batches)
        surprises = (
            len(plan.others)
            + 2 * len(plan.changes)
            + refusing
            + 2 * (plan.lag_s > 0)
            + (plan.told != "exact")
            + plan.twins
        )
        if refused > (REFUSALS_USUAL + REFUSALS_EACH * surprises if surprises else 0):
            self.fail(f"{refused} refusals")
        self.asked += 1
        if self.asked % AUDIT_EVERY == 0:
            self.audit()

    def audit(self) -> set[tuple[str, str, int, int]]:
        """The balances, compared with the sums of the entries; and nothing is booked for a part that holds nothing."""
        ask = self.store._connection.execute
        sums = "SELECT scope, dimension, sum(reserved), sum(held) FROM {} GROUP BY scope, dimension"
        ledger, kept = ({tuple(row) for row in ask(sums.format(t)).fetchall()} for t in ("ledger", "balances"))
        empty = {row for row in ledger ^ kept if not row[2] and not row[3]}
        if ledger ^ kept != empty:
            self.fail(f"the balances {kept} are not the sums of the entries {ledger}")
        left = ask(
            "SELECT p.stage FROM ledger l JOIN parts p ON p.id = l.part "
            "WHERE p.stage NOT IN ('reserved', 'submitting', 'held') "
            "GROUP BY l.part, l.dimension HAVING sum(l.reserved) <> 0 OR sum(l.held) <> 0 LIMIT 1"
        ).fetchone()
        if left is not None:
            self.fail(f"tokens are booked for a part that is {left[0]}")
        return {row for row in kept if row[2] or row[3]}

    async def life(self, number: int, which: int, attempt: int, fate: Fate) -> RunResult:
        ctx = self.context(fate, (self.plan.seed, number, attempt))
        request = prepare.Request(
            inputs=(str(self.folder / f"in{which}.jsonl"),), output=self.folder / f"out{which}.jsonl",
            errors=self.folder / f"err{which}.jsonl", cap=self.told(self.plan.limit_of(which)),
        )  # fmt: skip
        started_at = ctx.clock.now()
        copied = await prepare.copy_inputs(ctx, request, None)
        digest = prepare.digest_of(copied)
        known = await prepare.known_run(ctx, request, digest)
        if known is None:
            seen = await prepare.check(ctx, request, copied, CheckRules(dialect=ctx.backend.dialect), None)
            row = await prepare.enter(ctx, request, copied, seen, digest)
        elif ctx.lock.acquire(f"run-{known.id}"):  # as api.py does it: a follower changes nothing
            row = await prepare.resume(ctx, request, known)
        else:
            row = known
        show = (lambda _: None) if self.plan.shown else None
        return await runs.perform(
            ctx, row, ways=runs.Ways(), stop=fate.stop, show=show, started_at=started_at, resumed=known is not None,
        )  # fmt: skip

    async def process(self, number: int, which: int, deaths: tuple[tuple[int, str], ...]) -> None:
        await asyncio.sleep(0.3 * number * (self.plan.seed % 3))
        for attempt in itertools.count():
            at, how = deaths[attempt] if attempt < len(deaths) else (0, "never")
            fate = Fate(f"p{number}.{attempt}", self.trace, at, how)
            try:
                self.results.append((which, await self.life(number, which, attempt, fate)))
                return
            except Died:
                await asyncio.sleep(0.7)
            except (OSError, StateUnusable, Interrupted, ProviderRefused) as error:
                self.excuse(fate, error)
                await asyncio.sleep(0.7)
            finally:
                fate.dead = True

    def excuse(self, fate: Fate, error: Exception) -> None:
        """A process may give up for what happened in this very life of it, and for nothing else."""
        self.trace.add(f"{fate.name} gives up: {type(error).__name__}: {error}")
        excused: dict[type, bool] = {
            OSError: fate.was_full and getattr(error, "errno", None) == errno.ENOSPC, StateUnusable: fate.was_full,
            Interrupted: fate.stop.is_set(), ProviderRefused: fate.was_refused,
        }  # fmt: skip
        if not excused.get(type(error), False):
            self.fail(f"a process gave up without a reason: {type(error).__name__}: {error}")

    def context(self, fate: Fate, seed: object, listen: Callable[[Event], None] | None = None) -> Context:
        """The object graph of one life of a process."""

        def heard(event: Event) -> None:
            self.trace.add(f"  {fate.name}: {event.sentence}")
            if listen is not None:
                listen(event)

        return Context(
            clock=VirtualClock(), ids=SeededIds(seed), store=Store(self.store, fate, self.check),
            blobs=Blobs(self.folder / "state", fate), workers=Workers(fate, self.plan.check_s), lock=Locks(self.locks, fate),
            backend=Network(self.world, self.plan, fate), counter=default_counter, policy=POLICY, instance=fate.name,
            listen=heard,
        )  # fmt: skip

    def told(self, limit: int) -> int | None:
        """What the person says of a limit."""
        return {"exact": limit, "none": None, "high": 2 * limit}[self.plan.told]

    def told_of(self, deployment: str) -> int | None:
        """What the person says of a deployment's limit, by its name."""
        return self.told(self.plan.limit_of(int(deployment.startswith("m1"))))

    def calm_at(self) -> float:
        """When the last death, fault or change was over, loop time: from then on nothing is in the way of the work."""
        model = self.world.model
        began = model.began() or EPOCH
        times = [began + at + for_s for at, _, for_s, _ in self.plan.others]
        times += [began + at for at, _ in self.plan.changes]
        ended = [batch for batch in model.batches.values() if batch.fault is not None and batch.status not in LIVE]
        times += [batch.times[f"{batch.status}_at"] + min(batch.lag_s, STUCK_S) for batch in ended]
        times += [EPOCH + client.at for client in self.plan.clients]
        return max([self.trace.trouble_at, *(at - EPOCH for at in times)])

    async def all(self) -> None:
        plan = self.plan
        works = [asyncio.ensure_future(self.process(i, w, d)) for i, (w, d) in enumerate(plan.processes)]
        house = Gatehouse(self) if plan.gateway is not None else None
        if house is not None:
            works.append(asyncio.ensure_future(house.serve_all()))
        try:
            await asyncio.wait_for(
                asyncio.gather(*works), UNDISTURBED_S + bound_s(plan) * (1 + len(plan.lines)) + 2 * KEEP_S
            )
        except TimeoutError:
            self.fail("work was not done at all")
        self.took_s = asyncio.get_running_loop().time() - self.calm_at() if house is None else house.took_s
        enough_s = bound_s(plan, judge.sent_again(self.world.model, self.folder / "provider", self.trace.held))
        if self.took_s > enough_s:
            self.fail(f"work was done {self.took_s:.0f} s after the last disturbance, {enough_s:.0f} s are enough")
        await asyncio.sleep(300.0)  # what is still on its way arrives
        self.world.advance(VirtualClock().now())
        self.check()
        self.at_the_end()
        if house is not None:
            house.at_the_end()

    @property
    def early(self) -> frozenset[str]:
        """Error codes that need no attempt: of a request that can be taken for larger than the limit."""
        return frozenset({"request_exceeds_limit"} if self.plan.near or self.plan.changes else ())

    def past(self) -> dict[str, judge.Past]:
        """What became of each request, by the provider's books."""
        return judge.pasts(self.world.model, self.folder / "provider", self.trace.held, self.books.damaged)

    @staticmethod
    def lines_of(path: Path) -> list[str]:
        """A result file's lines; none if there is no such file."""
        return path.read_text().splitlines() if path.exists() else []

    def at_the_end(self) -> None:
        past = self.past()
        for which in range(len(self.plan.inputs)):
            wanted = judge.answers_to((self.folder / f"in{which}.jsonl").read_bytes().splitlines())
            lines = [self.lines_of(self.folder / f"{kind}{which}.jsonl") for kind in ("out", "err")]
            wrong = judge.misjudged(out=lines[0], err=lines[1], wanted=wanted, past=past, attempts=POLICY.attempts,
                                    early=self.early)  # fmt: skip
            if wrong:
                self.fail(f"input {which}: {wrong}")
            true = (len(wanted), *map(len, lines), int(bool(lines[1])))
            for result in (result for of, result in self.results if of == which):
                said = (result.total, result.completed, result.failed, result.exit_code)
                if said != true or [path is not None for path in result.errors] != [bool(lines[1])]:
                    self.fail(f"input {which}: the result says {said}, the files have {true}")
        if self.audit():
            self.fail("a reservation outlived its batch")
        if any(batch.status in LIVE and not batch.foreign for batch in self.world.model.batches.values()):
            self.fail("a batch that nobody waits for is still at the provider")


def play(plan: Plan) -> Outcome:
    """Play ``plan``; nothing is raised for what the service does wrong."""
    root = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=root))
    loop = VirtualLoop()
    broken: str | None = None
    one = _Play(plan, folder)

    def dropped(_loop: Any, context: dict[str, Any]) -> None:
        if (error := context.get("exception")) is not None:
            one.swallowed(error, "dropped by the loop")

    loop.set_exception_handler(dropped)
    log, listener = logging.getLogger("sluicegate"), _Listener(one.swallowed)
    log.addHandler(listener)
    before, log.propagate = log.propagate, False
    try:
        with mock.patch("os.fsync"), one_thread(plan.seed) if plan.wire or plan.clients else nullcontext():
            loop.run_until_complete(one.all())
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        broken = one.broken or f"{type(error).__name__}: {error}"
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        log.removeHandler(listener)
        log.propagate = before
        one.store._engine.dispose()
        shutil.rmtree(folder)
    text = "\n".join(one.trace.lines).replace(str(folder), "")
    broken = broken.replace(str(folder), "") if broken else one.broken
    return Outcome(plan, one.trace, broken, hashlib.sha256(text.encode()).hexdigest(), one.took_s, one.books.excepted,
                   sum(one.world.model.refusals.values()))  # fmt: skip
