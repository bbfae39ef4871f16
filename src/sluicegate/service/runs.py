"""A run from the person's request to its result: prepare, drive or follow, and the batches commands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sluicegate.core import submission
from sluicegate.core.ledger import Dimension
from sluicegate.core.lifecycle import RunState, Stage
from sluicegate.core.prices import cost
from sluicegate.core.report import Event, EventKind, Progress, RunResult
from sluicegate.core.rows import BatchRow, PartRow, RunRow
from sluicegate.core.types import ProviderBatch, Usage
from sluicegate.errors import Conflict, Interrupted, NotFound, Throttled, Unavailable, UsageError, retry_after_of
from sluicegate.ports import Store, Tx
from sluicegate.service import overview, submitter, watcher
from sluicegate.service.adopt import adopt
from sluicegate.service.context import Context, note
from sluicegate.service.drive import SHOW_S, Driver
from sluicegate.service.names import lock_name
from sluicegate.service.prune import forget_run
from sluicegate.service.salvage import reopen

FOLLOW_S: Final = 0.5
"""How often a follower looks at the rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How a run is to be treated when it meets others: ``adopt`` and ``new`` as on the command line."""

    adopt: bool = False
    new: bool = False


async def perform(
    ctx: Context, run: RunRow, *, ways: Ways, stop: asyncio.Event, show: Callable[[Progress], None] | None,
    started_at: float, resumed: bool, show_s: float = SHOW_S, sight: watcher.Sight | None = None,
    written: Callable[[bytes], None] | None = None,
    take_up: Callable[[RunRow, bool], Awaitable[RunRow | None]] | None = None,
) -> RunResult:  # fmt: skip
    """Drive ``run``, or follow the process that does, until every request is settled.

    Args:
        sight: What this process has seen of the provider's list, where it drives several runs.
        written: As the driver's.
        take_up: Called once the lock is ours, with the run and whether another process has just finished it: brings the
            run to what this caller wants, or says None where nothing is to be done.

    Raises:
        Interrupted, ProviderRefused, CostLimitExceeded: as :meth:`Driver.run`; Interrupted also when a follower is stopped.
        UsageError: the provider has batches of the same inputs that this data folder does not know, or cannot adopt.
    """
    followed: overview.Ear | None = None
    while not ctx.lock.acquire(lock_name(run.id)):
        if followed is None:
            followed = overview.Ear()
            await note(
                ctx, EventKind.FOLLOWING,
                f"run {run.id} is driven by another process of yours; following it", run=run.id,
            )  # fmt: skip
        if stop.is_set():
            # Without the lock nothing may be touched: the run is another process's.
            raise Interrupted(f"stopped following; the process that drives run {run.id} goes on")
        await _follow(ctx, run, show, started_at, followed)
        await ctx.clock.sleep(FOLLOW_S)
    try:
        if followed is not None:
            await _follow(ctx, run, show, started_at, followed)  # its last words
        fresh = await ctx.store.transact(lambda tx: tx.run(run.id))
        if fresh is None:
            raise UsageError(f"run {run.id} has just been removed (sluicegate prune); the same command runs it anew")
        finished = followed is not None and fresh.state is RunState.FINISHED
        if take_up is not None:
            taken = await take_up(fresh, finished)
            finished, fresh = finished and taken is None, taken or fresh
        if not finished:
            if not ways.new and not await ctx.store.transact(lambda tx: tx.parts(run=run.id)):
                await _meet_others_at_last(ctx, run, ways, stop)
            await note(
                ctx, EventKind.RUN_STARTED,
                f"run {run.id} {'goes on' if resumed else 'starts'}: {run.requests:,} requests, {run.tokens:,} tokens",
                run=run.id, requests=run.requests, tokens=run.tokens, resumed=resumed,
            )  # fmt: skip
            await Driver(ctx, fresh, sight=sight or watcher.Sight(), stop=stop, show=show, started_at=started_at,
                         show_s=show_s, written=written).run()  # fmt: skip
        return await result(ctx, run.id, started_at)
    finally:
        ctx.lock.release(lock_name(run.id))


async def _follow(
    ctx: Context, run: RunRow, show: Callable[[Progress], None] | None, started_at: float, ear: overview.Ear
) -> None:
    """Show what the process that drives the run does, and tell what it tells from now on."""
    if show is None:
        return
    now = ctx.clock.now()
    begins = ear.after == 0

    def read(tx: Tx) -> tuple[Progress, list[Event]]:
        told = ear.hear(tx, run.id)
        row = tx.run(run.id) or run
        batches = tx.batches(run.id)
        failed = sum(batch.err_lines for batch in batches)
        settled = sum(batch.written for batch in batches)
        progress = overview.progress(
            tx, row, ctx.policy, now, frozenset({run.id}), settled=settled, failed=failed, started_at=started_at,
            waits_for="another process drives this run", last_refusal=ear.refusal, learned=ear.learned,
        )  # fmt: skip
        return progress, told

    progress, told = await ctx.store.transact(read)
    for event in told:
        if not begins and event.kind is not EventKind.FOLLOWING:
            ctx.listen(event)
    show(progress)


async def _meet_others_at_last(ctx: Context, run: RunRow, ways: Ways, stop: asyncio.Event) -> None:
    """:func:`_meet_others`, however long it takes until the provider answers."""
    wait_s = 1.0
    while True:
        try:
            return await _meet_others(ctx, run, ways)
        except (Unavailable, Throttled) as error:
            pause = max(retry_after_of(error), wait_s)
            await note(
                ctx, EventKind.TROUBLE, f"the provider does not answer: {error}; trying again in {pause:,.0f} s",
                run=run.id, where="list", message=str(error), retry_in_s=pause,
            )  # fmt: skip
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
            if stop.is_set():
                raise Interrupted("stopped; nothing was submitted yet. The same command goes on") from error
            wait_s = min(60.0, wait_s * 2)


async def _meet_others(ctx: Context, run: RunRow, ways: Ways) -> None:
    """Before the first submit: does the provider have batches of the same inputs that these rows do not know?"""
    strangers: list[ProviderBatch] = []
    horizon = ctx.clock.now() - watcher.HISTORY_S

    async for batch in submitter.newest_first(ctx):
        if batch.created_at is not None and batch.created_at < horizon:
            break
        if submission.digest_of(batch) == run.digest:
            strangers.append(batch)
    # Of any resource: one account may be known here under several (a key's project, an organisation).
    known = {part.provider_batch for part in await ctx.store.transact(lambda tx: tx.parts())}
    strangers = [batch for batch in strangers if batch.id not in known]
    if not strangers:
        return
    if not ways.adopt:
        await forget_run(ctx, run)
        raise UsageError(
            f"the provider has batches ({len(strangers)}) of the very same inputs that this data folder knows nothing of "
            f"({strangers[0].id} …). Use --adopt to collect them, --new to pay for the work again, or --state with the "
            "folder that they were submitted from"
        )
    try:
        await adopt(ctx, run, strangers)
    except UsageError:
        await forget_run(ctx, run)
        raise


async def result(ctx: Context, run_id: str, started_at: float) -> RunResult:
    """The result of a finished run."""

    def read(tx: Tx) -> tuple[RunRow, list[BatchRow], list[PartRow]]:
        run = tx.run(run_id)
        assert run is not None, "a result belongs to a run"
        return run, tx.batches(run_id), tx.parts(run=run_id)

    run, batches, parts = await ctx.store.transact(read)
    usage = Usage()
    for part in parts:
        usage = usage + usage_of(part)
    return RunResult(
        run=run.id, exit_code=run.exit_code or 0, total=run.requests,
        completed=sum(b.out_lines for b in batches), failed=sum(b.err_lines for b in batches),
        parts=sum(1 for part in parts if part.provider_batch), salvaged=sum(part.salvaged for part in parts),
        refusals=sum(1 for part in parts if part.stage is Stage.REFUSED), usage=usage,
        cost=cost_of(ctx, run, parts), seconds=ctx.clock.now() - started_at,
        outputs=tuple(b.output for b in batches),
        errors=tuple(b.errors if b.err_lines else None for b in batches),
    )  # fmt: skip


def usage_of(part: PartRow) -> Usage:
    """The provider's tokens for a part."""
    return Usage(
        input_tokens=part.input_tokens, cached_tokens=part.cached_tokens, output_tokens=part.output_tokens,
        reasoning_tokens=part.reasoning_tokens,
    )  # fmt: skip


def cost_of(ctx: Context, run: RunRow, parts: list[PartRow]) -> float | None:
    """What the parts cost by the price table, USD, or None if a model's price is not known."""
    total = 0.0
    for part in parts:
        if part.input_tokens or part.output_tokens:
            name = part.deployment.rpartition("#")[2]
            one = cost(
                ctx.policy.models.get(name, name), part.input_tokens, part.output_tokens,
                cached_tokens=part.cached_tokens, prices=ctx.policy.prices,
            )  # fmt: skip
            if one is None:
                return None
            total += one
    return total


async def find(store: Store, id_: str) -> tuple[RunRow | None, list[PartRow]]:
    """The run, or the parts, that an id of ours or of the provider names.

    Raises:
        UsageError: nothing has that id.
    """

    def read(tx: Tx) -> tuple[RunRow | None, list[PartRow]]:
        run = tx.run(id_)
        if run is not None:
            return run, tx.parts(run=id_)
        for batch in tx.batches():
            if batch.id == id_:
                return tx.run(batch.run), tx.parts(run=batch.run)
        return None, [part for part in tx.parts() if id_ in (part.id, part.provider_batch)]

    run, parts = await store.transact(read)
    if run is None and not parts:
        raise UsageError(f"no run, batch, part or provider batch has the id {id_}; `sluicegate batches list` shows all")
    return run, parts


async def cancel(ctx: Context, id_: str) -> dict[str, Any]:
    """Cancel what is at the provider for a run or part; results that exist are still collected by the next start.

    Raises:
        UsageError: it is a run of the gateway's, or at another address.
    """
    run, parts = await find(ctx.store, id_)
    if run is not None:
        _not_the_gateways(run, "cancel that with the gateway's POST /v1/batches/{id}/cancel")
    cancelled, ended = [], []
    held = [part for part in parts if part.stage is Stage.HELD and part.provider_batch is not None]
    for part in held:
        if part.resource != ctx.backend.resource:
            raise UsageError(
                f"{part.provider_batch} is at {part.resource}, and this command speaks with {ctx.backend.resource}, so "
                "nothing was cancelled; give the address that it was submitted to (--base-url or --azure-endpoint)"
            )
    for part in held:
        assert part.provider_batch is not None, "only what is at the provider is cancelled"
        try:
            await ctx.backend.cancel(part.provider_batch)
        except (Conflict, NotFound):
            ended.append(part.provider_batch)
        else:
            cancelled.append(part.provider_batch)
            await note(ctx, EventKind.STATUS, f"{part.provider_batch} is cancelled by hand", run=part.run, part=part.id,
                       provider_batch=part.provider_batch, status="cancelling")  # fmt: skip
    if run is not None and not ctx.lock.is_free(lock_name(run.id)):
        await ctx.store.transact(lambda tx: _ask_to_stop(tx, run.id))
    return {"id": id_, "cancelled": cancelled, "ended_already": ended}


def _ask_to_stop(tx: Tx, run_id: str) -> None:
    """Its driver finds that out in its next turn, unless the run has finished meanwhile."""
    run = tx.run(run_id)
    if run is not None and not run.state.final:
        tx.update_run(run_id, state=RunState.CANCELLING)


def _not_the_gateways(run: RunRow, remedy: str) -> None:
    if run.tenant is not None:
        raise UsageError(
            f"run {run.id} belongs to a batch of the gateway's tenant {run.tenant!r}, so nothing was done; {remedy}"
        )


async def salvage(ctx: Context, id_: str) -> dict[str, Any]:
    """Let requests that ended in the error file for a passing reason wait again, whatever ``--attempts`` says.

    Raises:
        UsageError: it is a run of the gateway's, or one that a process has.
    """
    run, parts = await find(ctx.store, id_)
    if run is None:
        run = await ctx.store.transact(lambda tx: tx.run(parts[0].run))
    assert run is not None, "a part belongs to a run"
    _not_the_gateways(run, "what failed in an ended batch goes again in a new batch")
    if not ctx.lock.acquire(lock_name(run.id)):
        raise UsageError(f"run {run.id} is being driven by a live process; stop it first, then salvage")
    try:
        count = await reopen(ctx, run)
    finally:
        ctx.lock.release(lock_name(run.id))
    return {"id": run.id, "waiting_again": count, "next": "run the same command again"}


async def forget(ctx: Context, id_: str) -> dict[str, Any]:
    """Give up provider batches that are gone, by hand and on record; their requests wait again."""
    _, parts = await find(ctx.store, id_)
    given_up = []
    for part in parts:
        if part.stage is Stage.HELD:
            reason = f"{part.provider_batch} was given up by hand (sluicegate batches forget)"
            if await watcher.forget(ctx, part, reason):
                given_up.append(part.provider_batch)
    if not given_up:
        raise UsageError(f"{id_} holds nothing at the provider, so there is nothing to give up")
    return {"id": id_, "forgotten": given_up}


async def describe(store: Store, id_: str) -> dict[str, Any]:
    """A run with its batches and parts, and the history of each part in words."""
    run, parts = await find(store, id_)

    def read(tx: Tx) -> dict[str, Any]:
        row = run or tx.run(parts[0].run)
        assert row is not None, "a part belongs to a run"
        return {
            "run": summary(tx, row),
            "batches": [
                {"id": b.id, "input": b.name, "requests": b.requests, "written": b.written, "output": b.output,
                 "errors": b.errors, "failed": b.err_lines}
                for b in tx.batches(row.id)
            ],
            "parts": [_part(tx, part) for part in parts],
        }  # fmt: skip

    return await store.transact(read)


def _part(tx: Tx, part: PartRow) -> dict[str, Any]:
    history = [{"at": event.at, "sentence": event.sentence} for _, event in tx.events(part=part.id)]
    for entry in tx.entries(part=part.id):
        amount = entry.reserved + entry.held or max(abs(entry.reserved), abs(entry.held))
        unit = "tokens" if entry.dimension is Dimension.TOKENS else "requests"
        history.append({"at": entry.at, "sentence": f"ledger: {entry.verb} {amount:,} {unit}"})
    return {
        "id": part.id, "provider_batch": part.provider_batch, "deployment": part.deployment.rpartition("#")[2],
        "stage": part.stage.value, "means": part.stage.phrase, "status": part.status, "requests": part.count,
        "tokens": part.tokens, "reserved": part.charge, "answered": part.answered, "failed": part.failed,
        "salvaged": part.salvaged, "reason": part.reason, "error": part.error,
        "history": sorted(history, key=lambda one: float(one["at"])),
    }  # fmt: skip


def summary(tx: Tx, run: RunRow) -> dict[str, Any]:
    """One line of ``batches list``."""
    batches, parts = tx.batches(run.id), tx.parts(run=run.id)
    return {
        "run": run.id, "state": run.state.value, "inputs": [b.name for b in batches], "requests": run.requests,
        "waiting": sum(len(s) for s in tx.waiting(run.id).values()),
        "enqueued": sum(p.count for p in parts if p.stage.counts),
        "answered": sum(p.answered for p in parts), "failed": sum(p.failed for p in parts),
        "parts": sum(1 for p in parts if p.provider_batch), "created_at": run.created_at,
        "finished_at": run.finished_at,
    }  # fmt: skip
