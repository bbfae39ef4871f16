"""Look at the provider's list, once for all batches of a resource, and act on what it shows (D3, D6, D10).

One look serves every process on the data folder: the row of the resource says when the last one was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from sluicegate.core import belief, submission
from sluicegate.core.ledger import Dimension, Verb
from sluicegate.core.lifecycle import PROVEN, Stage
from sluicegate.core.refusal import parse
from sluicegate.core.report import EventKind
from sluicegate.core.rows import DeploymentRow, PartRow, ResourceRow, scope
from sluicegate.core.types import BatchStatus, ProviderBatch
from sluicegate.errors import AuthenticationFailed, BackendError, Conflict, NotFound
from sluicegate.ports import Tx
from sluicegate.service import foreign, scheduler
from sluicegate.service.context import Context, Record, note
from sluicegate.service.submitter import cancel_twin, deployment_of, refuse_in, say_learned

HISTORY_S: Final = 8 * 86_400.0
"""The first look reads the list back this far: what is older has ended (both providers' window is 24 h)."""

PAGES_MAX: Final = 200
FIRST_PAGES_MAX: Final = 5_000
"""Of one look; the first one may have half a million batches to read (2,000 creates an hour, eight days)."""

LISTING_S: Final = 30.0
"""A look that takes longer than this is taken for dead, and another process may look."""


@dataclass(slots=True)
class Sight:
    """What this process has seen of a resource's list.

    Attributes:
        complete: A look has read the list back to :data:`HISTORY_S`; ``looked``: or has tried and ran out of pages.
        looking: A look is under way; the runs of one process share what it sees.
        newest: The creation time of the newest batch at the last look.
        refusals_read: Ids of others' batches whose errors have been read.
    """

    complete: bool = False
    looked: bool = False
    looking: bool = False
    newest: float = 0.0
    refusals_read: set[str] = field(default_factory=set)


async def look(ctx: Context, sight: Sight, *, at_least_s: float | None = None) -> bool:
    """Read the list if ``at_least_s`` (default: the policy's poll) passed since anybody did, and record what it shows.

    Returns:
        True if this process read the list now.

    Raises:
        BackendError: the list could not be read.
        AuthenticationFailed: also when the list shows none of several batches of ours that must be there.
    """
    resource = ctx.backend.resource
    now = ctx.clock.now()
    gap = ctx.policy.poll_s if at_least_s is None else at_least_s

    def claim(tx: Tx) -> bool:
        row = tx.resource(resource)
        # A process's first look is never put off: who claimed the last one may be dead, and two at once do no harm.
        if (
            row is not None
            and sight.looked
            and (now < row.listing_until <= now + LISTING_S or now < listed_at(row, now) + gap)
        ):
            return False
        tx.put_resource(
            ResourceRow(id=resource, listed_at=row.listed_at if row else 0.0, listing_until=now + LISTING_S)
        )
        return True

    if sight.looking:
        return False
    sight.looking = True
    try:
        return await ctx.store.transact(claim) and await _look(ctx, sight)
    finally:
        sight.looking = False


def listed_at(row: ResourceRow, now: float) -> float:
    """When the list was read last; never in the future, though the clock was set back since."""
    return row.listed_at if row.listed_at <= now else 0.0


async def _look(ctx: Context, sight: Sight) -> bool:
    resource = ctx.backend.resource
    try:
        tracked = await ctx.store.transact(lambda tx: _tracked(tx, resource))
        batches, complete = await _read(ctx, sight, tracked)
        await _apply(ctx, sight, batches)
        if complete:
            await _missing(ctx, set(tracked) - {batch.id for batch in batches})
    finally:
        done = ctx.clock.now()
        await ctx.store.transact(
            lambda tx: tx.put_resource(ResourceRow(id=resource, listed_at=done, listing_until=0.0))
        )
    return True


def _tracked(tx: Tx, resource: str) -> dict[str, float]:
    """Batches that must be in the list, and when each was created at the earliest, Unix seconds."""
    ours = tx.parts(resource=resource, stages=frozenset({Stage.HELD}))
    others = {row.provider_batch: row.seen_at - HISTORY_S for row in tx.foreign(resource)}
    mine = {
        p.provider_batch: (p.intent_at or p.created_at) - submission.CLOCKS_DIFFER_S for p in ours if p.provider_batch
    }
    return others | mine


async def _read(ctx: Context, sight: Sight, tracked: Mapping[str, float]) -> tuple[list[ProviderBatch], bool]:
    """Pages, newest first, until all that is tracked and all that is new was seen or must have been; whether it got that far."""
    found: dict[str, ProviderBatch] = {}
    missing = dict(tracked)
    back_to = ctx.clock.now() - HISTORY_S if not sight.complete else sight.newest - 60.0
    after: str | None = None
    sight.looked = True
    for _ in range(PAGES_MAX if sight.complete else FIRST_PAGES_MAX):
        page = await ctx.backend.list_batches(after=after)
        for batch in page.batches:
            found.setdefault(batch.id, batch)
            missing.pop(batch.id, None)
        oldest = min((b.created_at for b in page.batches if b.created_at is not None), default=None)
        after = page.next_after
        if after is None or (oldest is not None and oldest < min([back_to, *missing.values()])):
            sight.complete = True
            sight.newest = max((b.created_at or 0.0 for b in found.values()), default=sight.newest)
            return list(found.values()), True
    return list(found.values()), False


async def _apply(ctx: Context, sight: Sight, batches: Sequence[ProviderBatch]) -> None:
    """Act on batches as the list shows them, newest first."""
    now = ctx.clock.now()
    resource = ctx.backend.resource
    record = Record(now)
    strangers: list[ProviderBatch] = []
    twins: list[tuple[PartRow, ProviderBatch]] = []

    def write(tx: Tx) -> None:
        served: dict[str, bool] = {}
        known = {row.provider_batch for row in tx.foreign(resource)}
        arrived = {
            b.model for b in batches if not b.status.terminal and b.id not in known and not submission.part_of(b)
        }
        # Oldest first: of a burst of refusals the one at the lowest fill says most, and what was accepted comes first.
        for batch in reversed(batches):
            part_id = submission.part_of(batch)
            part = tx.part(part_id) if part_id else None
            if part is not None and part.provider_batch == batch.id:
                if part.stage is Stage.HELD:
                    moved = batch.requests_completed > part.seen_completed
                    served[part.deployment] = served.get(part.deployment, False) or moved
                    crowded = not arrived.isdisjoint((batch.model, None))
                    _observe(tx, ctx, record, part, batch, now, crowded=crowded)
                continue
            if part is not None and not batch.status.terminal and _is_twin(part):
                twins.append((part, batch))
            if part is not None and part.stage is Stage.SUBMITTING:
                continue  # its own process settles it
            strangers.append(batch)
        for deployment, moved in served.items():
            row = tx.deployment(deployment)
            assert row is not None, "a part's deployment has a row"
            tx.update_deployment(row.id, belief=belief.dump(belief.looked(belief.load(row.belief), served=moved)))
        record.store(tx)

    await ctx.store.transact(write)
    record.tell(ctx)
    for part, twin in twins:
        await cancel_twin(ctx, part, twin)
    await _learn_from_the_past(ctx, sight, strangers)
    await foreign.observe(ctx, resource, strangers)


def _is_twin(part: PartRow) -> bool:
    """Whether another batch of a part is one too many: it has its own, or its requests wait again or are elsewhere."""
    return part.provider_batch is not None or part.stage in (Stage.REFUSED, Stage.VOID)


def _observe(
    tx: Tx, ctx: Context, record: Record, part: PartRow, batch: ProviderBatch, now: float, *, crowded: bool = False
) -> None:
    """One batch of ours, as the list shows it now; ``crowded``: others' batches have come that were not known yet."""
    refusal = next((found for e in batch.errors if (found := parse(e.code, e.message)) is not None), None)
    if batch.status is BatchStatus.FAILED and refusal is not None:
        refuse_in(tx, ctx, record, part.id, Stage.HELD, refusal, now, crowded=crowded)
        return
    changes: dict[str, object] = {}
    if part.validated_at is None and batch.status in PROVEN:
        changes["validated_at"] = now
        row, before = deployment_of(tx, part)
        held_at = part.held_at or now
        after = belief.accepted(
            before, now, fill=part.fill, proven=_fill_proven(tx, ctx, row, before, part, now), offered_at=held_at,
            probing=part.probing,
        )  # fmt: skip
        after = belief.validated(after, now - held_at)
        tx.update_deployment(row.id, belief=belief.dump(after))
        say_learned(record, row, before, after, part.run)
    moved = (batch.status.value, batch.requests_completed, batch.requests_failed)
    if moved != (part.status, part.seen_completed, part.seen_failed):
        changes |= {
            "status": moved[0], "seen_completed": moved[1], "seen_failed": moved[2], "progress_at": now, "stuck": False,
        }  # fmt: skip
        record.add(
            EventKind.STATUS, f"{batch.id} is {moved[0]}: {moved[1]:,} of {part.count:,} done", run=part.run,
            part=part.id, provider_batch=batch.id, status=moved[0], completed=moved[1], failed=moved[2],
        )  # fmt: skip
    if not batch.status.terminal:
        if changes:
            tx.update_part(part.id, Stage.HELD, **changes)
        return
    _end(tx, record, part, batch, now, changes)


def _fill_proven(tx: Tx, ctx: Context, row: DeploymentRow, known: belief.Belief, part: PartRow, now: float) -> int:
    """What surely counted when the provider validated a part: it, others' batches, and ours from before it."""
    stands = scheduler.standing(tx, row, known, ctx.policy, now)
    before = sum(
        p.charge for p in stands.parts if p.stage is Stage.HELD and (p.held_at or now) <= (part.held_at or now)
    )
    return min(part.fill, before + stands.foreign)


def _end(tx: Tx, record: Record, part: PartRow, batch: ProviderBatch, now: float, changes: dict[str, object]) -> None:
    errors = "; ".join(f"{e.code}: {e.message}" for e in batch.errors) or None
    changes |= {
        "left_at": now, "output_file_id": batch.output_file_id, "error_file_id": batch.error_file_id, "error": errors,
        "status": batch.status.value, "objections": _objections(part, batch),
    }  # fmt: skip
    if not tx.move_part(part.id, Stage.HELD, Stage.ENDED, **changes):
        return
    scheduler.close(tx, part, Verb.RELEASE, now)
    row, before = deployment_of(tx, part)
    if batch.status is BatchStatus.COMPLETED and part.held_at is not None:
        held = tx.parts(deployment=row.id, stages=frozenset({Stage.HELD}))
        after = belief.batch_ended(
            before, now, hold_s=max(0.0, now - part.held_at), tokens=part.charge, overlap=1.0 + len(held)
        )
        tx.update_deployment(row.id, belief=belief.dump(after))
    record.add(
        EventKind.ENDED, f"{batch.id} ended as {batch.status.value}" + (f": {errors}" if errors else ""), run=part.run,
        part=part.id, deployment=row.name, provider_batch=batch.id, status=batch.status.value,
    )  # fmt: skip


def _objections(part: PartRow, batch: ProviderBatch) -> str | None:
    """What validation refused line by line; None where it names no line, or one that the part's file does not have."""
    named = [(e.line, e.code, e.message) for e in batch.errors if e.line is not None]
    if batch.status is not BatchStatus.FAILED or not named or not all(1 <= line <= part.count for line, *_ in named):
        return None
    return msgspec.json.encode(named).decode()


async def _missing(ctx: Context, missing: set[str]) -> None:
    """Batches that a complete list did not show (D3): a 404 for that very batch settles it, nothing else does."""
    if not missing:
        return
    resource = ctx.backend.resource
    ours = await ctx.store.transact(lambda tx: tx.parts(resource=resource, stages=frozenset({Stage.HELD})))
    by_batch = {part.provider_batch: part for part in ours if part.provider_batch}
    gone: list[str] = []
    for batch_id in sorted(missing):
        try:
            batch = await ctx.backend.batch(batch_id)
        except NotFound:
            gone.append(batch_id)
        else:
            await _apply(ctx, Sight(complete=True), [batch])
    mine = [by_batch[b] for b in gone if b in by_batch]
    if mine and len(mine) == len(ours):
        names = ", ".join(part.provider_batch or "" for part in mine[:3])
        raise AuthenticationFailed(
            f"none of the {len(mine)} provider batches of this data folder is visible at {resource} ({names} …): these "
            "credentials or this address belong to another account, or the batches are gone with the resource. "
            "Nothing is released. Use the credentials that they were submitted with, or give them up by hand: "
            "`sluicegate batches forget ID` for each"
        )
    for part in mine:
        await forget(ctx, part, f"{part.provider_batch} is gone: the list does not show it and it answers 404")
    for batch_id in gone:
        if batch_id not in by_batch:
            await ctx.store.transact(lambda tx, b=batch_id: tx.delete_foreign(b))  # type: ignore[misc]


async def forget(ctx: Context, part: PartRow, reason: str) -> bool:
    """Give up a provider batch that is gone; its tokens are released and its requests are collected as missing."""
    now = ctx.clock.now()
    record = Record(now)

    def write(tx: Tx) -> bool:
        if not tx.move_part(
            part.id, Stage.HELD, Stage.ENDED, left_at=now, status="gone", error=reason, output_file_id=None,
            error_file_id=None,
        ):  # fmt: skip
            return False
        scheduler.close(tx, part, Verb.RELEASE, now)
        record.add(EventKind.FINDING, reason, run=part.run, part=part.id, message=reason)
        record.store(tx)
        return True

    done = await ctx.store.transact(write)
    record.tell(ctx)
    return done


async def _learn_from_the_past(ctx: Context, sight: Sight, batches: list[ProviderBatch]) -> None:
    """Refusals of batches that failed before we came tell the limit (D9); only the newest of each deployment counts."""
    newest: dict[tuple[str, Dimension], tuple[float, int]] = {}
    for batch in batches:
        if batch.id in sight.refusals_read or not batch.errors or not batch.model:
            continue
        sight.refusals_read.add(batch.id)
        for error in batch.errors:
            found = parse(error.code, error.message)
            at = batch.created_at or 0.0
            if found is None or found.limit is None:
                continue
            if at >= newest.get((batch.model, found.dimension), (0.0, 0))[0]:
                newest[batch.model, found.dimension] = (at, found.limit)
    if not newest:
        return
    record = Record(ctx.clock.now())

    def write(tx: Tx) -> None:
        for (name, dimension), (_, number) in newest.items():
            row = tx.deployment(scope(ctx.backend.resource, name))
            if row is None:
                row = DeploymentRow(id=scope(ctx.backend.resource, name), resource=ctx.backend.resource, name=name,
                                    model=None, belief=belief.dump(belief.Belief()))  # fmt: skip
                tx.insert(row)
            before = belief.load(row.belief)
            if dimension is Dimension.REQUESTS:
                after = belief.requests_told(before, record.at, number)
            elif before.known is None:
                after = msgspec.structs.replace(
                    before, known=number, known_source="refusal", known_at=record.at, refused_at=record.at
                )
            else:
                continue
            tx.update_deployment(row.id, belief=belief.dump(after))
            say_learned(record, row, before, after)
        record.store(tx)

    await ctx.store.transact(write)
    record.tell(ctx)


async def unstick(ctx: Context) -> None:
    """Notice batches that stand still, report each once, and cancel them if the policy says so."""
    now = ctx.clock.now()
    policy = ctx.policy
    resource = ctx.backend.resource
    for part in await ctx.store.transact(lambda tx: tx.parts(resource=resource, stages=frozenset({Stage.HELD}))):
        still = now - (part.progress_at or part.held_at or now)
        validating = part.status == BatchStatus.VALIDATING
        allowed = policy.stuck_validating_s if validating else policy.stuck_in_progress_s
        if still < allowed or part.stuck or part.provider_batch is None:
            continue
        cancelled = False
        if policy.stuck_resubmit and part.status != BatchStatus.CANCELLING:
            try:
                await ctx.backend.cancel(part.provider_batch)
                cancelled = True
            except Conflict:
                continue  # it ended just now; the next look sees it
            except BackendError as error:
                await note(ctx, EventKind.TROUBLE, f"cancelling the stuck {part.provider_batch} failed: {error}",
                           run=part.run, part=part.id, where="cancel", message=str(error))  # fmt: skip
                continue
        await ctx.store.transact(lambda tx, p=part: tx.update_part(p.id, Stage.HELD, stuck=True))  # type: ignore[misc]
        remedy = "it is cancelled, and its unanswered requests go again" if cancelled else "nothing is done about it"
        await note(
            ctx, EventKind.STUCK, f"{part.provider_batch} has been {part.status} for {still:,.0f} s: {remedy}",
            run=part.run, part=part.id, provider_batch=part.provider_batch, status=part.status, for_s=round(still),
            cancelled=cancelled,
        )  # fmt: skip
