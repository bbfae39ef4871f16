"""Others' batches on the same deployments (D10): estimate what they hold, and leave room for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Final

from sluicegate.core.index import Flag
from sluicegate.core.limits import counts_requests
from sluicegate.core.report import EventKind
from sluicegate.core.rows import ForeignRow, scope
from sluicegate.core.types import ProviderBatch
from sluicegate.errors import BackendError, CallRefused, NotFound, ProviderRefused
from sluicegate.ports import Tx
from sluicegate.service.context import Context, Record
from sluicegate.service.intake import InputSource, inspect, lenient_rules

CONTENT_BYTES_MAX: Final = 200_000_000
USUAL_REQUEST_TOKENS: Final = 1_000
"""Taken for a request of which nothing is known, where no part of ours shows what is usual."""

ANY: Final = "*"

PROVISIONAL: Final = "provisional"
"""The basis of an estimate of a batch that tells nothing yet or whose file could not be read now: the next look tries again."""


async def observe(ctx: Context, resource: str, batches: list[ProviderBatch]) -> None:
    """Record others' batches that have not ended, forget those that have."""
    known = {row.provider_batch: row for row in await ctx.store.transact(lambda tx: tx.foreign(resource))}
    now = ctx.clock.now()
    rows: list[ForeignRow] = []
    ended: list[str] = []
    for batch in batches:
        if batch.status.terminal:
            if batch.id in known:
                ended.append(batch.id)
        elif batch.id not in known or known[batch.id].basis == PROVISIONAL:
            first = known.get(batch.id)
            rows.append(await _estimate(ctx, resource, batch, first.seen_at if first else now))
        elif known[batch.id].status != batch.status.value:
            before = known[batch.id]
            requests = max(before.requests, _requests(ctx, batch))
            rows.append(replace(before, status=batch.status.value, requests=requests, seen_at=now))
    if not rows and not ended:
        return
    record = Record(now)

    def write(tx: Tx) -> None:
        for row in rows:
            tx.put_foreign(row)
        for batch_id in ended:
            tx.delete_foreign(batch_id)
        if ended or any(row.provider_batch not in known for row in rows):
            held = tx.foreign(resource)
            tokens = sum(max(row.tokens, row.quarter_chars) for row in held)
            record.add(
                EventKind.FOREIGN, f"others hold about {tokens:,} tokens in {len(held)} batches on this resource",
                tokens=tokens, provider_batches=len(held),
            )  # fmt: skip
        record.store(tx)

    await ctx.store.transact(write)
    record.tell(ctx)


async def _estimate(ctx: Context, resource: str, batch: ProviderBatch, now: float) -> ForeignRow:
    """What a batch of others holds: from its file's content, else its bytes, else its number of requests."""
    deployment, tokens, quarters, basis = batch.model, 0, 0, "content"
    requests = _requests(ctx, batch)
    key = f"foreign/{ctx.ids.new('look')}.jsonl"  # of this look: another process may read the same batch now
    try:
        if batch.input_file_id is None:
            raise NotFound(f"{batch.id} names no input file")
        size = (await ctx.backend.file(batch.input_file_id)).bytes
        if size > CONTENT_BYTES_MAX:
            tokens = quarters = size // 4
            basis = "bytes"
        else:
            got = await ctx.blobs.write(key, ctx.backend.download(batch.input_file_id))
            seen = await inspect(
                [InputSource(name=batch.id, path=ctx.blobs.path(key))],
                rules=lenient_rules(ctx.backend.dialect, ctx.policy.models), workers=ctx.workers, counter=ctx.counter,
            )  # fmt: skip
            index = seen.indexes[0]
            tokens, quarters = sum(index.tokens), sum(c // 4 for c in index.chars)
            requests = len(index) if requests else 0
            models = Counter(group.model for group in index.groups)
            deployment = deployment or next(iter(models), None)
            total = max(batch.requests_total, len(index))
            lost = total - sum(1 for flags in index.flags if not flags & Flag.BAD)
            if got != size or lost:
                # Cut short or damaged on the way: each line that is lost counts as the largest of the others.
                tokens += lost * max((*index.tokens, USUAL_REQUEST_TOKENS if lost == total else 0))
                quarters += lost * max((c // 4 for c in index.chars), default=0)
                basis = "counts"
    except (CallRefused, ProviderRefused):
        usual = await ctx.store.transact(lambda tx: _usual(tx, resource, batch.model))
        tokens = quarters = max(1, batch.requests_total) * usual
        basis = "counts" if batch.requests_total else PROVISIONAL  # not counted yet, as while it validates
    except BackendError:
        # Not now: count generously until the next look can read it.
        tokens = quarters = max(1, batch.requests_total) * USUAL_REQUEST_TOKENS
        basis = PROVISIONAL
    finally:
        await ctx.blobs.delete(key)
    return ForeignRow(
        provider_batch=batch.id, resource=resource, deployment=deployment or ANY, status=batch.status.value,
        tokens=tokens, quarter_chars=quarters, basis=basis, seen_at=now, requests=requests,
    )  # fmt: skip


def _requests(ctx: Context, batch: ProviderBatch) -> int:
    """How many requests count against the limit of enqueued requests, as far as the list tells; 0 where there is none."""
    return max(1, batch.requests_total) if counts_requests(ctx.backend.dialect, batch.endpoint or "") else 0


def _usual(tx: Tx, resource: str, deployment: str | None) -> int:
    """Tokens of a usual request on the deployment: the mean over our own parts, rounded up."""
    wanted = scope(resource, deployment) if deployment else None
    parts = [p for p in tx.parts(resource=resource) if wanted is None or p.deployment == wanted]
    requests = sum(part.count for part in parts)
    return -(-sum(part.charge for part in parts) // requests) if requests else USUAL_REQUEST_TOKENS
