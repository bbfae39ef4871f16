"""Bring one part to the provider, at most once per intent (D4): upload, wait for the file, intent, POST, record.

Every step starts from the part's row and is guarded by its stage, so the whole may be broken off anywhere and begun
again by whoever has the run's lock next (D12).
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from sluicegate.core import belief, submission
from sluicegate.core.ledger import Dimension, Verb
from sluicegate.core.lifecycle import Stage
from sluicegate.core.refusal import Refusal
from sluicegate.core.report import EventKind
from sluicegate.core.rows import DeploymentRow, PartRow
from sluicegate.core.types import Accepted, BatchStatus, ProviderBatch
from sluicegate.errors import (
    BackendError,
    CallRefused,
    Conflict,
    FileNotReady,
    FileQuotaExceeded,
    NotFound,
    OutcomeUnknown,
    ProviderRefused,
    Throttled,
    TokenLimitExceeded,
    Unavailable,
    retry_after_of,
)
from sluicegate.ports import Tx
from sluicegate.service import scheduler
from sluicegate.service.assemble import Lines, assemble
from sluicegate.service.context import Context, Record, note
from sluicegate.service.work import Work, requests_of, waits_again

FIRST_WAIT_S: Final = 0.2
LONGEST_WAIT_S: Final = 60.0
GRACE_LEAST_S, GRACE_MOST_S = 2.0, 15.0
"""Between the two looks for a create whose answer is missing: one poll, within these bounds. Lists lag behind."""

LOOKED_AT_LEAST: Final = 100
"""Batches of the list that are looked at for a lost create, however old they seem: our clock may be hours ahead."""

FILE_PENDING_S: Final = 1_800.0
"""A file that is not processed after this long is given up and sent anew (the SDK's own helper waits as long)."""


async def submit(ctx: Context, work: Work, part_id: str, *, fresh: bool) -> None:
    """Drive a part from ``reserved`` (or ``submitting``, after a crash) to ``held``, ``refused`` or ``void``.

    Args:
        fresh: The part was cut just now, so nothing of it can be at the provider yet.

    Raises:
        ProviderRefused: the provider refuses for good. A part that is surely not at the provider is void, and its requests
            wait; one whose create has no answer yet stays ``submitting``, for whoever has the run next.
    """
    wait_s = FIRST_WAIT_S
    while True:
        part = await ctx.store.transact(lambda tx: tx.part(part_id))
        if part is None or part.stage not in (Stage.RESERVED, Stage.SUBMITTING):
            return
        # What is said to a look says nothing of the create whose answer is missing (D4).
        unknown = part.stage is Stage.SUBMITTING
        try:
            await (settle(ctx, part) if unknown else _advance(ctx, work, part, fresh))
        except ProviderRefused as error:
            if not unknown:
                await _void(ctx, part_id, str(error))
            raise
        except BackendError as error:
            if (
                not unknown
                and isinstance(error, CallRefused)
                and not isinstance(error, FileQuotaExceeded | FileNotReady)
            ):
                await _void(ctx, part_id, str(error))
                raise ProviderRefused(f"the provider refused a batch: {error}") from error
            fresh = False
            pause = max(retry_after_of(error), wait_s * (0.75 + 0.5 * ctx.ids.random()))
            wait_s = min(LONGEST_WAIT_S, wait_s * 2)
            await note(
                ctx, EventKind.TROUBLE, f"{error}; trying again in {pause:,.1f} s", run=part.run, part=part.id,
                where="submit", message=str(error), retry_in_s=round(pause, 1),
            )  # fmt: skip
            await ctx.clock.sleep(pause)


async def _advance(ctx: Context, work: Work, part: PartRow, fresh: bool) -> None:
    """One step of a reserved part: upload it, or, once its file is ready, create its batch."""
    if part.file_id is None:
        await _upload(ctx, work, part, fresh)
    elif await _file_ready(ctx, part):
        await _create(ctx, work, part)


async def _upload(ctx: Context, work: Work, part: PartRow, fresh: bool) -> None:
    name = submission.filename(part.id, part.attempt)
    path = ctx.blobs.path(part.blob)
    if not fresh:
        # After a crash or a lost answer the file may be there already.
        for file in await ctx.backend.find_files(frozenset({name})):
            await _file_is(ctx, part, file.id)
            return
    if not await ctx.workers.blocking(path.exists):
        lines, model = lines_of(ctx, work, part)
        await ctx.workers.run(assemble, str(path), lines, model)
    try:
        uploaded = await ctx.backend.upload(path, filename=name, expires_after_s=ctx.policy.file_expiry_s)
    except OutcomeUnknown:
        found = await ctx.backend.find_files(frozenset({name}))
        if not found:
            raise
        uploaded = found[0]
    await _file_is(ctx, part, uploaded.id)


async def _file_is(ctx: Context, part: PartRow, file_id: str) -> None:
    if not await ctx.store.transact(lambda tx: tx.update_part(part.id, Stage.RESERVED, file_id=file_id)):
        await ctx.backend.delete_file(file_id)  # withdrawn while it was uploaded


def lines_of(ctx: Context, work: Work, part: PartRow) -> tuple[list[Lines], str | None]:
    """What :func:`~sluicegate.service.assemble.assemble` needs to write a part's file."""
    columns: dict[int, dict[str, array[int]]] = {}
    names = ("offset", "length", "model_at", "model_length", "flags")
    for number, start, stop in work.by_batch(requests_of(part)):
        found = {name: getattr(work, name)[start:stop] for name in names} | {"ordinal": work.ordinals(start, stop)}
        if number in columns:
            for name, column in found.items():
                columns[number][name].extend(column)
        else:
            columns[number] = found
    lines = [Lines(path=str(ctx.blobs.path(work.batches[b].input)), **mine) for b, mine in sorted(columns.items())]
    # The part is bound to the deployment that it was cut for, whatever the run's settings say now.
    target = part.deployment.rpartition("#")[2]
    return lines, None if target == work.groups[part.group].model else target


async def _file_ready(ctx: Context, part: PartRow) -> bool:
    """True once the file is ``processed``; False if it has to be uploaded anew."""
    assert part.file_id is not None
    wait_s, waited = FIRST_WAIT_S, 0.0
    while True:
        try:
            file = await ctx.backend.file(part.file_id)
        except NotFound:
            file = None
        if file is not None and file.status in ("processed", "uploaded"):
            return True
        if file is None or file.status in ("error", "deleted", "deleting") or waited >= FILE_PENDING_S:
            state = f"is {file.status!r} ({file.detail or 'no reason given'})" if file else "is gone"
            await note(
                ctx, EventKind.FINDING, f"part {part.id}: its input file {state}; it is uploaded anew",
                run=part.run, part=part.id, message=f"input file {state}",
            )  # fmt: skip
            await ctx.backend.delete_file(part.file_id)
            await ctx.store.transact(
                lambda tx: tx.update_part(part.id, Stage.RESERVED, file_id=None, attempt=part.attempt + 1)
            )
            return False
        await ctx.clock.sleep(wait_s)
        waited += wait_s
        wait_s = min(10.0, wait_s * 1.5)


async def _create(ctx: Context, work: Work, part: PartRow) -> None:
    attempt = part.attempt + 1
    now = ctx.clock.now()
    written = await ctx.store.transact(
        lambda tx: tx.move_part(part.id, Stage.RESERVED, Stage.SUBMITTING, attempt=attempt, intent_at=now)
    )
    if not written:
        return
    assert part.file_id is not None
    try:
        answer = await ctx.backend.create(
            input_file_id=part.file_id,
            endpoint=part.url,
            metadata=submission.metadata(part.id, attempt, work.run.digest),
        )
    except TokenLimitExceeded as error:
        said = Refusal(limit=error.limit, dimension=Dimension(error.dimension), deployment=None, message=str(error))
        await refuse(ctx, part.id, Stage.SUBMITTING, said)
    except (FileNotReady, Throttled, Unavailable):
        # Nothing was made: the intent is over, the file stays.
        await ctx.store.transact(lambda tx: tx.move_part(part.id, Stage.SUBMITTING, Stage.RESERVED))
        raise
    except (OutcomeUnknown, Conflict) as error:
        # A conflict says that something is under way with it: whether that made the batch, the list tells.
        await note(
            ctx, EventKind.TROUBLE, f"part {part.id}: no answer to its create ({error}); looking whether it was made",
            run=part.run, part=part.id, where="create", message=str(error), retry_in_s=0,
        )  # fmt: skip
    else:
        await hold(ctx, part.id, answer)


async def hold(ctx: Context, part_id: str, answer: Accepted) -> None:
    """Record that the provider accepted a part's create."""
    now = ctx.clock.now()
    record = Record(now)

    def write(tx: Tx) -> None:
        part = tx.part(part_id)
        if part is None or not tx.move_part(
            part_id, Stage.SUBMITTING, Stage.HELD, provider_batch=answer.batch.id, held_at=now, progress_at=now,
            status=answer.batch.status.value,
        ):  # fmt: skip
            return
        scheduler.close(tx, part, Verb.HOLD, now)
        row, before = deployment_of(tx, part)
        after = belief.header_seen(
            before, now, maximum=answer.headers.maximum, enqueued=answer.headers.enqueued,
            quarter_chars=part.quarter_chars,
        )  # fmt: skip
        tx.update_deployment(row.id, belief=belief.dump(after))
        scheduler.recharge(tx, row, before, after, ctx.policy, now)
        record.add(
            EventKind.ACCEPTED, f"part {part.id} is {answer.batch.id} at the provider", run=part.run, part=part.id,
            deployment=row.name, provider_batch=answer.batch.id,
        )  # fmt: skip
        say_learned(record, row, before, after, part.run)
        record.store(tx)

    await ctx.store.transact(write)
    record.tell(ctx)


async def refuse(ctx: Context, part_id: str, stage: Stage, refusal: Refusal) -> None:
    """A part was refused for want of enqueued tokens or requests: its requests wait again, at no cost of attempts (D11)."""
    now = ctx.clock.now()
    record = Record(now)
    await ctx.store.transact(lambda tx: refuse_in(tx, ctx, record, part_id, stage, refusal, now))
    record.tell(ctx)


def refuse_in(
    tx: Tx, ctx: Context, record: Record, part_id: str, stage: Stage, refusal: Refusal, now: float, *,
    crowded: bool = False,
) -> None:  # fmt: skip
    """:func:`refuse` within a transaction; ``stage`` is SUBMITTING (at create) or HELD (after validating).

    Args:
        crowded: The look that shows the refusal also shows batches of others that were not known yet.
    """
    part = tx.part(part_id)
    if part is None or not tx.move_part(part_id, stage, Stage.REFUSED, error=refusal.message):
        return
    row, before = deployment_of(tx, part)
    if refusal.dimension is Dimension.REQUESTS:
        after = _requests_refused(tx, ctx, part, row, before, refusal.limit, now)
    else:
        after = _tokens_refused(tx, part, row, before, refusal.limit, now, crowded=crowded)
    scheduler.close(tx, part, Verb.VOID if stage is Stage.SUBMITTING else Verb.RELEASE, now)
    scheduler.wait_again(tx, part, waits_again(part, requests_of(part), sent=False))
    if stage is Stage.SUBMITTING:
        after = msgspec.structs.replace(after, creates_answered=after.creates_answered + 1)
    tx.update_deployment(row.id, belief=belief.dump(after))
    record.add(
        EventKind.REFUSED, f"part {part.id} of {part.charge:,} tokens was refused: {refusal.message}", run=part.run,
        part=part.id, deployment=row.name, message=refusal.message, limit=refusal.limit, dimension=refusal.dimension,
    )  # fmt: skip
    say_learned(record, row, before, after, part.run)
    record.store(tx)


def _tokens_refused(
    tx: Tx, part: PartRow, row: DeploymentRow, before: belief.Belief, limit: int | None, now: float, *, crowded: bool
) -> belief.Belief:
    offered_at = part.intent_at or now
    hold_s = before.pace.hold_s or 60.0
    left = tx.left_since(row.id, now - 4 * hold_s)
    return belief.refused(
        before, now, offered_at=offered_at, fill=part.fill, others=part.fill - part.charge, limit=limit,
        freed=min((now - p.left_at for p in left if p.left_at is not None), default=None),
        returned=sum(p.charge for p in left), probing=part.probing,
        crowded=crowded or any(f.seen_at >= offered_at for f in tx.foreign(row.resource) if f.deployment in (row.name, "*")),
    )  # fmt: skip


def _requests_refused(
    tx: Tx, ctx: Context, part: PartRow, row: DeploymentRow, before: belief.Belief, limit: int | None, now: float
) -> belief.Belief:
    """What counted when the part was offered: what counts now and what ended meanwhile, without what was offered later."""
    offered_at = part.intent_at or now
    counting = tx.parts(deployment=row.id, stages=scheduler.COUNTING)
    later = sum(p.count for p in counting if p.intent_at is None or p.intent_at > offered_at)
    ended = sum(p.count for p in tx.left_since(row.id, offered_at))
    fill = scheduler.enqueued_requests(tx, row, before, ctx.policy, ctx.backend.dialect, now) + ended - later
    return belief.requests_refused(before, now, offered_at=offered_at, fill=max(fill, part.count), limit=limit)


def deployment_of(tx: Tx, part: PartRow) -> tuple[DeploymentRow, belief.Belief]:
    """A part's deployment and what is believed of it."""
    row = tx.deployment(part.deployment)
    assert row is not None, "a part's deployment has a row"
    return row, belief.load(row.belief)


def say_learned(
    record: Record, row: DeploymentRow, before: belief.Belief, after: belief.Belief, run: str | None = None
) -> None:
    """Events for what a piece of evidence changed in a belief."""
    at = record.at
    old, new = (belief.allowance(b, row.cap_override, at) for b in (before, after))
    if new.limit is not None and new.limit != old.limit:
        told = f" (it was {old.limit:,})" if old.limit is not None else ""
        record.add(
            EventKind.LIMIT_CHANGED,
            f"{row.name}: the enqueued-token limit is taken as {new.limit:,} now{told}, known from: {new.source}",
            run=run, deployment=row.name, limit=new.limit, previous=old.limit, source=new.source,
        )  # fmt: skip
    if (most := after.requests_limit(at)) != (previous := before.requests_limit(at)):
        record.add(
            EventKind.LIMIT_CHANGED,
            f"{row.name}: the limit of enqueued requests is taken as {most:,} now (it was {previous:,}), known from: refusal",
            run=run, deployment=row.name, requests_limit=most, previous=previous, source="refusal",
        )  # fmt: skip
    if after.lag_s(at) > before.lag_s(at):
        record.add(
            EventKind.LIMIT_CHANGED,
            f"{row.name}: the provider seems to free tokens up to {after.release_lag_s:,.0f} s late; waiting for that",
            run=run, deployment=row.name, limit=new.limit, previous=old.limit, source="release lag",
        )  # fmt: skip
    factors = [(b.tokens_factor, b.chars_factor) for b in (before, after)]
    if max(abs(x - y) for x, y in zip(*factors, strict=True)) >= 0.01:
        record.add(
            EventKind.CALIBRATED,
            f"{row.name}: the provider counts {after.tokens_factor:.2f} × our tokens and {after.chars_factor:.2f} × "
            "characters ÷ 4; reservations follow",
            run=run, deployment=row.name, factor=round(after.tokens_factor, 3), previous=round(before.tokens_factor, 3),
        )  # fmt: skip


async def _void(ctx: Context, part_id: str, reason: str) -> None:
    now = ctx.clock.now()

    def write(tx: Tx) -> None:
        part = tx.part(part_id)
        # A part that another process brought further meanwhile is not given up.
        if part is None or part.stage not in (Stage.RESERVED, Stage.SUBMITTING):
            return
        if not tx.move_part(part_id, part.stage, Stage.VOID, error=reason):
            return
        scheduler.close(tx, part, Verb.VOID, now)
        scheduler.wait_again(tx, part, waits_again(part, requests_of(part), sent=False))

    await ctx.store.transact(write)


async def withdraw(ctx: Context, part_id: str) -> None:
    """Give up a part that has not been sent (the run is stopped or cancelled); a sent one stays as it is."""
    part = await ctx.store.transact(lambda tx: tx.part(part_id))
    if part is not None and part.stage is Stage.RESERVED:
        await _void(ctx, part_id, "withdrawn before it was sent")


async def settle(ctx: Context, part: PartRow) -> None:
    """Find out whether a create whose answer is missing was committed, before anything else is tried (D4).

    First the provider's list; if it shows nothing, the input file is deleted, so that a create that is still on its
    way must fail, and after a grace the list is read once more.

    Raises:
        BackendError, ProviderRefused: it could not be found out; the part stays as it is.
    """
    intent_at = part.intent_at or part.created_at
    found = await _look_for(ctx, part, intent_at)
    if found.batch is None:
        if part.file_id is not None:
            await ctx.backend.delete_file(part.file_id)
        await ctx.clock.sleep(min(GRACE_MOST_S, max(GRACE_LEAST_S, ctx.policy.poll_s)))
        found = await _look_for(ctx, part, intent_at)
    if found.batch is None:
        await ctx.store.transact(lambda tx: tx.move_part(part.id, Stage.SUBMITTING, Stage.RESERVED, file_id=None))
        return
    for twin in found.twins:
        await cancel_twin(ctx, part, twin)
    await hold(ctx, part.id, Accepted(batch=found.batch))


async def _look_for(ctx: Context, part: PartRow, intent_at: float) -> submission.Found:
    seen: list[ProviderBatch] = []
    async for batch in newest_first(ctx):
        seen.append(batch)
        old = batch.created_at is not None and batch.created_at < intent_at - submission.CLOCKS_DIFFER_S
        if old and len(seen) >= LOOKED_AT_LEAST:
            break
    # A refused part's batch has the same input file as the part that is offered again in its place.
    others = await ctx.store.transact(lambda tx: {p.provider_batch for p in tx.parts(run=part.run) if p.id != part.id})
    return submission.find(
        (batch for batch in seen if batch.id not in others), part=part.id, attempt=part.attempt, file_id=part.file_id
    )


async def newest_first(ctx: Context) -> AsyncIterator[ProviderBatch]:
    """The provider's list, page after page."""
    after: str | None = None
    while True:
        page = await ctx.backend.list_batches(after=after)
        for batch in page.batches:
            yield batch
        if page.next_after is None:
            return
        after = page.next_after


async def cancel_twin(ctx: Context, part: PartRow, twin: ProviderBatch) -> None:
    """Cancel a batch that a create made beside the one that was answered, or that was made though the answer was a refusal
    (something on the way sent it twice); before it runs if there is time."""
    if twin.status.terminal or twin.status is BatchStatus.CANCELLING:
        return
    try:
        await ctx.backend.cancel(twin.id)
    except BackendError as error:
        message = f"part {part.id} was made twice; cancelling the one too many, {twin.id}, failed: {error}"
    else:
        message = f"part {part.id} was made twice by one create; the one too many, {twin.id}, is cancelled"
    await note(ctx, EventKind.TWIN, message, run=part.run, part=part.id, provider_batch=twin.id)
