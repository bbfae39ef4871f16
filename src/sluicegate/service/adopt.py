"""Take in provider batches of the same inputs that another data folder submitted (``run --adopt``)."""

from __future__ import annotations

from array import array
from pathlib import Path

import msgspec
from xxhash import xxh3_64_intdigest

from sluicegate.core import ledger, submission
from sluicegate.core.ledger import Balance, Dimension, Verb
from sluicegate.core.lifecycle import Stage
from sluicegate.core.report import EventKind
from sluicegate.core.rows import PartRow, RunRow, scope
from sluicegate.core.types import ProviderBatch
from sluicegate.core.waiting import Spans
from sluicegate.errors import CallRefused, UsageError
from sluicegate.ports import Tx
from sluicegate.service import scheduler
from sluicegate.service.collector import wire_hash
from sluicegate.service.context import Context, Record
from sluicegate.service.deployments import ensure_deployment
from sluicegate.service.work import Work, load


class _Id(msgspec.Struct):
    custom_id: str | None = None


async def adopt(ctx: Context, run: RunRow, batches: list[ProviderBatch]) -> None:
    """Make parts of ``batches``, newest first: a request that went twice went again because the older one failed.

    All in one transaction: a run that has some parts has met the others' (``runs.perform``), so a half would pay for the rest.

    Raises:
        UsageError: a batch has answers, or may get some, and no file is left that says to which requests.
    """
    rows = await ctx.store.transact(lambda tx: tx.batches(run.id))
    work = await ctx.workers.blocking(load, run, rows, ctx.blobs)
    by_hash = {wire_hash(work, position): position for position in range(run.requests)}
    found: list[tuple[ProviderBatch, Spans]] = []
    for batch in sorted(batches, key=lambda b: b.created_at or 0.0, reverse=True):
        ids = await _ids_in(ctx, batch)
        if len(ids) < _answers_at_least(batch):
            raise UsageError(
                f"{batch.id} has answers to the very same inputs, but its files are deleted, so they cannot be adopted: "
                "the results are with the data folder that ran it (--state). --new pays for the work again"
            )
        found.append((batch, Spans.of(by_hash[h] for h in ids if h in by_hash)))
    for name in dict.fromkeys(map(work.deployment_of, range(len(work.groups)))):
        await ensure_deployment(ctx, run.resource, name)
    record = Record(ctx.clock.now(), run.id)

    def write(tx: Tx) -> None:
        for batch, positions in found:
            adopted = _enter(tx, ctx, work, batch, positions, record.at)
            if adopted:
                sentence = f"{batch.id} is adopted with {adopted:,} requests"
                record.add(EventKind.FINDING, sentence, message=f"adopted {batch.id}")
        record.store(tx)

    await ctx.store.transact(write)
    record.tell(ctx)


def _answers_at_least(batch: ProviderBatch) -> int:
    """To how many requests a batch has answers, or at least one while it may get some."""
    return batch.requests_completed or (0 if batch.status.terminal else 1)


async def _ids_in(ctx: Context, batch: ProviderBatch) -> array[int]:
    """Hashes of the custom_ids in a batch's input file, or, if that is gone, in its results."""
    hashes = array("Q")
    for sources in ((batch.input_file_id,), (batch.output_file_id, batch.error_file_id)):
        for file_id in sources:
            if file_id is None:
                continue
            key = f"foreign/{ctx.ids.new('look')}.jsonl"
            try:
                await ctx.blobs.write(key, ctx.backend.download(file_id))
                hashes.extend(await ctx.workers.blocking(_hashes, ctx.blobs.path(key)))
            except CallRefused:
                continue
            finally:
                await ctx.blobs.delete(key)
        if hashes:
            break
    return hashes


def _hashes(path: Path) -> array[int]:
    hashes = array("Q")
    with path.open("rb") as lines:
        for line in lines:
            try:
                custom_id = msgspec.json.decode(line, type=_Id).custom_id
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if custom_id is not None:
                hashes.append(xxh3_64_intdigest(custom_id.encode("utf-8", "surrogatepass")))
    return hashes


def _enter(tx: Tx, ctx: Context, work: Work, batch: ProviderBatch, positions: Spans, now: float) -> int:
    """Make a part of those of ``positions`` that still wait; returns how many."""
    groups = [
        (group, positions & Spans(((start, stop),)))
        for group, (start, stop) in enumerate(zip(work.starts, work.starts[1:], strict=False))
    ]
    group, mine = max(groups, key=lambda one: len(one[1]))
    waiting = tx.waiting(work.run.id).get((group, 0), Spans())
    chosen = mine & waiting
    if not chosen:
        return 0
    tx.set_waiting(work.run.id, group, 0, waiting - chosen)
    tokens, quarters = work.sums(chosen)
    part_id = submission.part_of(batch) or ctx.ids.new("part")
    part = PartRow(
        id=part_id, run=work.run.id, deployment=scope(work.run.resource, work.deployment_of(group)),
        resource=work.run.resource, url=work.groups[group].url, group=group, stage=Stage.HELD, requests=str(chosen),
        retries="{}", count=len(chosen), tokens=tokens, quarter_chars=quarters,
        bytes=sum(work.length[p] + 1 for p in chosen), charge=max(1, tokens, quarters), attempt=1, fill=0,
        unproven=False, probing=False, reason="adopted: another data folder submitted it", created_at=now,
        blob=f"parts/{part_id}.jsonl", file_id=batch.input_file_id, provider_batch=batch.id,
        status=batch.status.value, intent_at=batch.created_at, held_at=batch.created_at or now, progress_at=now,
    )  # fmt: skip
    tx.insert(part)
    tx.append(
        ledger.post(Verb.RESERVE, scope=part.deployment, dimension=Dimension.TOKENS, part=part.id,
                    before=Balance(), at=now, amount=part.charge)
    )  # fmt: skip
    scheduler.close(tx, part, Verb.HOLD, now)
    tx.delete_foreign(batch.id)
    return len(chosen)
