"""Drive one run to its end: turns of scheduler, watcher and collector on one event loop, until all is answered.

Whoever has the run's lock drives it. Everything in memory is derived from the rows at the start, so a process that
takes over goes on where the last one died (D12).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn

from sluicegate.core import belief
from sluicegate.core.admission import HoldBack
from sluicegate.core.join import Settled
from sluicegate.core.lifecycle import UNUSED, RunState, Stage
from sluicegate.core.report import EventKind, Progress, few
from sluicegate.core.rows import PartRow, RunRow
from sluicegate.core.watch import Pending, next_look_at
from sluicegate.errors import BackendError, CostLimitExceeded, DeploymentNotFound, Interrupted, retry_after_of
from sluicegate.ports import Tx
from sluicegate.service import closing as closer
from sluicegate.service import collector, output, overview, scheduler, submitter, watcher
from sluicegate.service.context import Context, Record, note
from sluicegate.service.deployments import ensure_deployment
from sluicegate.service.giving_up import give_up
from sluicegate.service.names import live_runs, set_aside, sidecar_key
from sluicegate.service.scheduler import TooLarge
from sluicegate.service.spending import means
from sluicegate.service.tasks import Tasks
from sluicegate.service.work import Work, load, requests_of

LANES: Final = 3
"""Parts of one run that are uploaded and created at the same time."""

AHEAD: Final = 12
"""Parts of one run that are reserved or under way at most: room is taken at once, though its parts go one by one."""

GLANCE_S: Final = 1.0
GLANCE_SHARED_S: Final = 0.05
"""Between two glances at whether another process has committed something (a person's ``pause`` or ``cancel``); more often
while another live run shares a deployment: its looks release for us too. Among many, each glances seldom: whichever does
next takes the room, and their turns together cost no more than those of a few."""

TURN_S: Final = 5.0
"""Between two turns at most, though nothing is committed: a process that died frees its lock without a word."""

SHOW_S: Final = 1.0
"""Between two turns at most where a person watches."""

CLEAN_AGAIN_S: Final = 60.0
"""Between two tries to delete files that the provider did not delete."""

STOP_WAIT_S: Final = 10.0
"""How long a stop waits for creates whose answer is on its way."""

SUBMIT: Final = "submit-"
COLLECT: Final = "collect-"
CLEAN: Final = "clean-"
"""What the names of tasks begin with; the part's id follows."""

NO_DEPLOYMENT: Final = ("model_not_found", "DeploymentNotFound")
"""Errors of a whole batch that no waiting mends."""


@dataclass(slots=True)
class _State:
    """What the loop remembers between turns; all of it can be lost."""

    reasons: dict[str, HoldBack] = field(default_factory=dict)
    look_trouble: int = 0
    look_again_at: float = 0.0
    collect_again_at: dict[str, float] = field(default_factory=dict)
    clean_again_at: dict[str, float] = field(default_factory=dict)
    shown_at: float = 0.0
    ear: overview.Ear = field(default_factory=overview.Ear)
    cancelled: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)


class Driver:
    """One run in this process.

    Args:
        started_at: When the person started it, Unix seconds.
        show: Called every ``show_s`` seconds or so with where the run stands.
        stop: Set by the person's Ctrl-C: no new parts.
        written: Called with a byte for each further request, in input order, once its line stands in a file that grows:
            0 with the results, 1 with the errors.
    """

    def __init__(
        self, ctx: Context, run: RunRow, *, sight: watcher.Sight, stop: asyncio.Event,
        show: Callable[[Progress], None] | None, started_at: float, show_s: float = SHOW_S,
        written: Callable[[bytes], None] | None = None,
    ) -> None:  # fmt: skip
        self._ctx = ctx
        self._run_id = run.id
        self._run = run
        self._sight = sight
        self._stop = stop
        self._show, self._show_s = show, show_s
        self._written, self._told = written, 0
        self._started_at = started_at
        self._state = _State()
        self._tasks = Tasks()
        self._lanes = asyncio.Semaphore(LANES)

    async def run(self) -> None:
        """Return when every request is settled and written.

        Raises:
            Interrupted: ``stop`` was set; what is at the provider goes on there.
            ProviderRefused: the provider refuses for good.
        """
        self._work = await self._load()
        self._joiner = output.Joiner(self._ctx, self._work)
        try:
            await self._recover()
            await self._loop()
            await self._finish()
        finally:
            await self._tasks.end()
            self._joiner.close()

    # -- start -----------------------------------------------------------------------------------------------------

    async def _load(self) -> Work:
        ctx = self._ctx
        batches = await ctx.store.transact(lambda tx: tx.batches(self._run_id))
        return await ctx.workers.blocking(load, self._run, batches, ctx.blobs)

    async def _recover(self) -> None:
        ctx, work = self._ctx, self._work
        parts = await ctx.store.transact(lambda tx: tx.parts(run=self._run_id))
        bad = set_aside(self._run_id)
        sidecar = ctx.blobs.path(sidecar_key(bad))
        if await ctx.workers.blocking(sidecar.exists):
            await self._take_in(bad)
        waits = await ctx.store.transact(lambda tx: tx.waiting(self._run_id))
        pending = {p for spans in waits.values() for p in spans} if any(attempt for _, attempt in waits) else set()
        pending |= {p for part in parts if not part.stage.final and part.retries != "{}" for p in requests_of(part)}
        for part in parts:
            if part.stage is Stage.COLLECTED:
                await self._take_in(part.id, pending)
        await ctx.workers.blocking(self._joiner.restart)
        for group in range(len(work.groups)):
            await ensure_deployment(ctx, self._run.resource, work.deployment_of(group))
        for part in parts:
            if part.stage in (Stage.RESERVED, Stage.SUBMITTING):
                self._start_submit(part, fresh=False)
            elif part.stage.final and not part.cleaned and part.stage is not Stage.REFUSED:
                self._start_clean(part)

    async def _take_in(self, part: str, pending: Container[int] = ()) -> None:
        path = self._ctx.blobs.path(sidecar_key(part))
        settled = Settled.from_bytes(await self._ctx.workers.blocking(path.read_bytes))
        self._joiner.add(part, settled, pending)

    # -- the loop -------------------------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        while True:
            self._tasks.wake.clear()
            if self._tasks.error is not None:
                raise self._tasks.error
            if self._stop.is_set():
                await self._interrupt("stopped")
            run, due, unused = await self._glimpse()
            if run is None:
                raise Interrupted(f"run {self._run_id} is gone from the data folder (sluicegate prune)")
            if run.state is RunState.CANCELLING:
                await self._interrupt("cancelled by hand (sluicegate batches cancel)")
            live = live_runs(self._ctx) | {self._run_id}
            await self._look(due)
            await self._collect_ended()
            if run.closing is not None:
                await self._close(run.closing)
            else:
                await self._settle_missing()
                await self._admit(live, unused)
            if self._joiner.settled == self._run.requests and not self._joiner.complete:
                await self._report(live, at_once=True)  # the rest of the output is yet to be written
            await self._write()
            await self._report(live)
            if self._joiner.complete and not self._tasks.count(SUBMIT):
                return
            await self._sleep(len(live))

    async def _glimpse(self) -> tuple[RunRow | None, float, bool]:
        """What a turn begins with: the run, when a look is due, and whether parts keep files that may be of no use."""
        now = self._ctx.clock.now()

        def read(tx: Tx) -> tuple[RunRow | None, float, bool]:
            unused = any(not part.cleaned for part in tx.parts(run=self._run_id, stages=UNUSED))
            return tx.run(self._run_id), self._look_due(tx, now), unused

        return await self._ctx.store.read(read)

    async def _close(self, closing: str) -> None:
        """Let what waits end, withdraw what has not been sent, and cancel what is held."""
        reserved = frozenset({Stage.RESERVED})
        for part in await self._ctx.store.transact(lambda tx: tx.parts(run=self._run_id, stages=reserved)):
            await submitter.withdraw(self._ctx, part.id)  # its task finds that out at its next step
        for key in await closer.settle_waiting(self._ctx, self._work, closing):
            await self._take_in(key)
        await closer.cancel_held(self._ctx, self._run_id, self._state.cancelled)
        await self._drop_unused_files()

    async def _settle_missing(self) -> None:
        """A tenant's requests for a deployment that the provider does not have end; its other requests go on."""
        for name in sorted(self._state.missing) if self._run.tenant is not None else ():
            for key in await closer.settle_missing(self._ctx, self._work, name):
                await self._take_in(key)

    async def _lacks(self, error: DeploymentNotFound, part: PartRow) -> None:
        """The provider has no such deployment: raise it, but for a tenant's run, which goes on without."""
        self._state.missing.add(part.deployment.rpartition("#")[2])
        if self._run.tenant is None:
            raise error
        await note(self._ctx, EventKind.FINDING, str(error), run=part.run, part=part.id, message=str(error))

    async def _look(self, due: float) -> None:
        ctx, state = self._ctx, self._state
        now = ctx.clock.now()
        if now < max(due, state.look_again_at):
            return
        try:
            await watcher.look(ctx, self._sight)
            await watcher.unstick(ctx)
            state.look_trouble = 0
        except BackendError as error:
            pause = max(retry_after_of(error), min(60.0, ctx.policy.poll_s * 2.0 ** min(state.look_trouble, 6)))
            state.look_trouble += 1
            state.look_again_at = now + pause
            await note(ctx, EventKind.TROUBLE, f"the provider's list cannot be read: {error}; again in {pause:,.0f} s",
                       run=self._run_id, where="list", message=str(error), retry_in_s=round(pause, 1))  # fmt: skip

    def _look_due(self, tx: Tx, now: float) -> float:
        row = tx.resource(self._run.resource)
        if row is None or not self._sight.looked:
            return now + self._ctx.policy.poll_s if self._sight.looking else now
        last_look = watcher.listed_at(row, now)
        held = tx.parts(resource=self._run.resource, stages=frozenset({Stage.HELD}))
        paces = {d.id: belief.load(d.belief).pace for d in tx.deployments(resource=self._run.resource)}
        policy = self._ctx.policy
        times = [
            next_look_at(
                [_pending(part, now)], last_look=last_look, poll_s=policy.poll_s, poll_max_s=policy.poll_max_s,
                hold_s=paces[part.deployment].hold_s, validating_s=paces[part.deployment].validating_s,
            )
            for part in held
        ]  # fmt: skip
        if tx.foreign(self._run.resource):
            times.append(last_look + policy.poll_s)
        return min(times, default=last_look + policy.poll_max_s)

    async def _collect_ended(self) -> None:
        ended = await self._ctx.store.read(lambda tx: tx.parts(run=self._run_id, stages=frozenset({Stage.ENDED})))
        now = self._ctx.clock.now()
        for part in ended:
            if now >= self._state.collect_again_at.get(part.id, 0.0):
                self._tasks.start(f"{COLLECT}{part.id}", self._collect(part))

    async def _collect(self, part: PartRow) -> None:
        ctx = self._ctx
        if part.status == "failed" and (part.error or "").startswith(NO_DEPLOYMENT):
            self._state.missing.add(part.deployment.rpartition("#")[2])  # before its requests wait again
            await collector.give_back(ctx, part)
            name = self._work.deployment_of(part.group)
            why = (part.error or "").rstrip(".")
            error = DeploymentNotFound(
                f"the provider cannot run batches on {name!r}: {why}. On Azure, `model` is the name of a Global "
                "Batch or Data Zone Batch deployment of this very resource; --deployment NAME sends every line to one. "
                "The same command goes on once that is mended"
            )
            await self._lacks(error, part)
            return
        try:
            collected = await collector.collect(ctx, self._work, part)
        except BackendError as error:
            self._state.collect_again_at[part.id] = ctx.clock.now() + max(5.0, ctx.policy.poll_s)
            await note(ctx, EventKind.TROUBLE, f"the results of {part.provider_batch} cannot be fetched yet: {error}",
                       run=part.run, part=part.id, where="download", message=str(error))  # fmt: skip
            return
        if collected:
            await self._take_in(part.id)
            self._tasks.wake.set()
            await self._clean(part)

    async def _admit(self, live: frozenset[str], unused: bool) -> None:
        ctx, state, work = self._ctx, self._state, self._work
        for name in dict.fromkeys(work.deployment_of(group) for group in range(len(work.groups))):
            while self._tasks.count(SUBMIT) < AHEAD and (most := await self._affordable(name)) != 0:
                verdict = await scheduler.turn(ctx, work, name, live, requests_most=most)
                if isinstance(verdict, TooLarge):
                    await self._give_up(verdict.part)
                    continue
                if isinstance(verdict, HoldBack):
                    await self._held_back(name, verdict)
                    break
                state.reasons.pop(name, None)
                self._start_submit(verdict, fresh=True)
        if unused:
            await self._drop_unused_files()

    async def _held_back(self, name: str, verdict: HoldBack) -> None:
        before = self._state.reasons.get(name)
        self._state.reasons[name] = verdict
        if before is None or before.reason.split(":")[0] != verdict.reason.split(":")[0]:
            await note(self._ctx, EventKind.HELD_BACK, f"{name}: {verdict.reason}", run=self._run_id, deployment=name,
                       reason=verdict.reason)  # fmt: skip

    async def _give_up(self, part: PartRow) -> None:
        """A request that was refused alone at an empty gate, twice, ends in the error file (D9)."""
        ctx = self._ctx
        message = (
            f"This request alone is estimated at {part.charge:,} enqueued tokens, and the provider refused it at an "
            f"empty deployment twice: {part.error}"
        )
        key = await give_up(ctx, self._work, part.group, requests_of(part), "request_exceeds_limit", message)
        await self._take_in(key)
        await note(ctx, EventKind.FINDING, message, run=self._run_id, part=part.id, message=message)

    async def _drop_unused_files(self) -> None:
        """Delete the files of parts that were withdrawn, and of refused ones whose requests have been cut anew."""
        ctx = self._ctx

        def stale(tx: Tx) -> list[PartRow]:
            waits = list(tx.waiting(self._run_id).values())

            def offered_again(part: PartRow) -> bool:
                return part.stage is Stage.REFUSED and sum(len(requests_of(part) & s) for s in waits) >= part.count

            unused = tx.parts(run=self._run_id, stages=UNUSED)
            return [part for part in unused if not part.cleaned and not offered_again(part)]

        for part in await ctx.store.transact(stale):
            if f"{SUBMIT}{part.id}" not in self._tasks:  # it may still read the file
                self._start_clean(part)

    def _start_clean(self, part: PartRow) -> None:
        if self._ctx.clock.now() >= self._state.clean_again_at.get(part.id, 0.0):
            self._tasks.start(f"{CLEAN}{part.id}", self._clean(part))

    async def _clean(self, part: PartRow) -> None:
        if not await collector.clean(self._ctx, part):
            self._state.clean_again_at[part.id] = self._ctx.clock.now() + CLEAN_AGAIN_S

    async def _affordable(self, name: str) -> int | None:
        """How many more requests may go to a deployment under ``--max-cost``; None: no bound."""
        most = self._ctx.policy.max_cost
        if most is None:
            return None
        left = await self._ctx.store.transact(lambda tx: means(tx, self._work, self._ctx.policy, name))
        if left is None or left.requests != 0:
            return left.requests if left is not None else None
        busy = await self._ctx.store.transact(
            lambda tx: any(not part.stage.final for part in tx.parts(run=self._run_id))
        )
        if not busy:
            waiting = await self._ctx.store.transact(lambda tx: sum(map(len, tx.waiting(self._run_id).values())))
            error = CostLimitExceeded(
                f"about {left.spent:,.4g} USD are spent, and the next request would exceed --max-cost {most:,.4g}; "
                f"{waiting:,} requests have not been sent. The same command with a higher --max-cost goes on"
            )
            self._tasks.fail(error)
        return 0

    async def _write(self) -> None:
        while moved := await self._ctx.workers.blocking(self._joiner.advance):
            await self._ctx.store.transact(lambda tx, m=moved: output.record(tx, m))  # type: ignore[misc]
        if self._written is not None and (failed := self._joiner.failed_from(self._told)):
            self._told += len(failed)
            self._written(failed)

    async def _report(self, live: frozenset[str], *, at_once: bool = False) -> None:
        now = self._ctx.clock.now()
        due = at_once or self._joiner.complete or now >= self._state.shown_at + self._show_s
        if self._show is None or not due:
            return
        self._state.shown_at = now
        reasons = [f"{name}: {held.reason}" for name, held in self._state.reasons.items()]
        waits_for = few(reasons, between="; ") or "room is being filled"
        ear = self._state.ear

        def read(tx: Tx) -> Progress:
            ear.hear(tx, self._run_id)
            return overview.progress(
                tx, tx.run(self._run_id) or self._run, self._ctx.policy, now, live, settled=self._joiner.settled,
                failed=self._joiner.failed, started_at=self._started_at, waits_for=waits_for,
                last_refusal=ear.refusal, learned=ear.learned,
            )  # fmt: skip

        self._show(await self._ctx.store.read(read))

    async def _sleep(self, live: int) -> None:
        """Until something of ours is done, another process has changed something, or the next turn is due.

        Or until the clock is set back: then whatever is due was reckoned by another one.
        """
        ctx, state = self._ctx, self._state
        now = ctx.clock.now()
        due = await ctx.store.read(lambda tx: self._look_due(tx, now))
        again = [held.until for held in state.reasons.values() if held.until is not None]
        look_at = max(due, state.look_again_at, now + GLANCE_SHARED_S)
        soonest = min(at for at in (look_at, *again, *state.collect_again_at.values()) if at > now)
        until = min(now + (TURN_S if self._show is None else self._show_s), soonest)
        glance = min(GLANCE_S, GLANCE_SHARED_S * live / 2) if live > 1 else GLANCE_S
        seen = await ctx.store.version()
        began = now
        while began <= now < until and not self._tasks.wake.is_set() and not self._stop.is_set():
            await self._doze(min(glance, until - now))
            if await ctx.store.version() != seen:
                return
            now = ctx.clock.now()

    async def _doze(self, seconds: float) -> None:
        """Sleep so long at most; a task that is done or a Ctrl-C wakes."""
        sleeper = asyncio.ensure_future(self._ctx.clock.sleep(seconds))
        waiters = [sleeper, asyncio.ensure_future(self._tasks.wake.wait()), asyncio.ensure_future(self._stop.wait())]
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)

    # -- submitting ----------------------------------------------------------------------------------------------------

    def _start_submit(self, part: PartRow, *, fresh: bool) -> None:
        self._tasks.start(f"{SUBMIT}{part.id}", self._submit(part, fresh=fresh))

    async def _submit(self, part: PartRow, *, fresh: bool) -> None:
        """Bring a part to the provider when a lane is free, unless the world has changed while it waited for one."""
        async with self._lanes:
            if self._stop.is_set() and part.stage is Stage.RESERVED:
                return  # it is withdrawn when all lanes are still
            if fresh and not await scheduler.still_fits(self._ctx, part):
                await submitter.withdraw(self._ctx, part.id)
                return
            try:
                await submitter.submit(self._ctx, self._work, part.id, fresh=fresh)
            except DeploymentNotFound as error:
                await self._lacks(error, part)

    # -- ends ------------------------------------------------------------------------------------------------------

    async def _interrupt(self, why: str) -> NoReturn:
        ctx = self._ctx
        for name in dict.fromkeys(self._work.deployment_of(g) for g in range(len(self._work.groups))):
            await scheduler.turn(ctx, self._work, name, frozenset({self._run_id}), stopping=True)
        await self._tasks.wait(SUBMIT, timeout_s=STOP_WAIT_S)
        await self._tasks.end()
        parts = await ctx.store.transact(lambda tx: tx.parts(run=self._run_id))
        for part in parts:
            if part.stage is Stage.RESERVED:
                await submitter.withdraw(ctx, part.id)
        held = sum(1 for part in parts if part.stage in (Stage.SUBMITTING, Stage.HELD))
        raise Interrupted(
            f"{why}; {held} provider batches of run {self._run_id} go on at the provider and are collected by the next "
            "start of the same command"
        )

    async def _finish(self) -> None:
        ctx = self._ctx
        await ctx.workers.blocking(self._joiner.finish)
        now = ctx.clock.now()
        code = 1 if any(batch.err_lines for batch in self._joiner.batches) else 0
        completed = sum(batch.out_lines for batch in self._joiner.batches)
        failed = sum(batch.err_lines for batch in self._joiner.batches)
        record = Record(now, self._run_id)
        record.add(
            EventKind.RUN_FINISHED, f"every request is answered: {completed:,} results, {failed:,} errors",
            exit_code=code, completed=completed, failed=failed, seconds=round(now - self._started_at, 3),
        )  # fmt: skip

        def write(tx: Tx) -> None:
            for row in tx.deployments(resource=self._run.resource):
                for demand in tx.demands(row.id, runs=frozenset({self._run_id})):
                    tx.put_demand(replace(demand, tokens=0))
            tx.update_run(self._run_id, state=RunState.FINISHED, finished_at=now, exit_code=code)
            record.store(tx)

        await ctx.store.transact(write)
        record.tell(ctx)
        await self._drop_unused_files()
        await self._tasks.wait(CLEAN, COLLECT, timeout_s=STOP_WAIT_S)


def _pending(part: PartRow, now: float) -> Pending:
    """What is known of when a held part will end."""
    return Pending(
        since=part.held_at or now, answer_awaited=part.unproven and part.validated_at is None,
        served_since=part.validated_at, share=min(1.0, (part.seen_completed + part.seen_failed) / max(1, part.count)),
    )  # fmt: skip
