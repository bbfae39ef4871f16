"""Close a tenant's run early (cancelled, or its time is up): what waits ends as errors, what was answered is kept (D5).

The run goes on being driven until every request is settled, so its output and error file come out as always.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from sluicegate.core import join
from sluicegate.core.join import Settled
from sluicegate.core.lifecycle import Stage
from sluicegate.core.line import custom_id_of
from sluicegate.core.report import EventKind
from sluicegate.core.rows import PartRow, scope
from sluicegate.core.waiting import Spans
from sluicegate.errors import BackendError, Conflict, NotFound
from sluicegate.ports import Tx
from sluicegate.service import collector
from sluicegate.service.context import Context, note
from sluicegate.service.work import Work


async def settle_waiting(ctx: Context, work: Work, closing: str) -> list[str]:
    """Let every waiting request end with an error line of ours.

    Args:
        closing: ``code: message`` of these lines.

    Returns:
        The keys of the sidecars that were written, for the joiner.
    """
    run = work.run.id
    code, _, message = closing.partition(": ")
    waits = await ctx.store.transact(lambda tx: tx.waiting(run))
    keys = []
    for (group, attempt), spans in waits.items():
        key = ctx.ids.new("part")
        lines, settled = await ctx.workers.blocking(_error_lines, ctx, work, spans, code, message)
        await ctx.blobs.write(collector.result_key(key, join.OWN), _once(lines))
        await ctx.blobs.write(collector.sidecar_key(key), _once(settled.to_bytes()))
        now = ctx.clock.now()
        part = PartRow(
            id=key, run=run, deployment=scope(work.run.resource, work.deployment_of(group)),
            resource=work.run.resource, url=work.groups[group].url, group=group, stage=Stage.COLLECTED,
            requests=str(spans), retries="{}", count=len(spans), tokens=0, quarter_chars=0, bytes=0, charge=0, attempt=0,
            fill=0, unproven=False, probing=False, reason=message, created_at=now, blob=f"parts/{key}",
            failed=len(spans), cleaned=True,
        )  # fmt: skip

        def write(tx: Tx, part: PartRow = part, group: int = group, attempt: int = attempt) -> None:
            tx.set_waiting(run, group, attempt, Spans())
            tx.insert(part)

        await ctx.store.transact(write)
        keys.append(key)
    return keys


def _error_lines(ctx: Context, work: Work, spans: Spans, code: str, message: str) -> tuple[bytes, Settled]:
    settled, lines, at = Settled(), [], 0
    handles: dict[str, int] = {}
    try:
        for position in spans:
            key = work.batches[work.batch_at(work.ordinal(position))].input
            if key not in handles:
                handles[key] = os.open(ctx.blobs.path(key), os.O_RDONLY)
            raw = os.pread(handles[key], work.length[position], work.offset[position])
            line = join.error_line(custom_id_of(raw), code, message)
            settled.add(position, join.OWN, True, at, len(line))
            lines.append(line + b"\n")
            at += len(line) + 1
    finally:
        for handle in handles.values():
            os.close(handle)
    return b"".join(lines), settled


async def cancel_held(ctx: Context, run: str, asked: set[str]) -> None:
    """Ask the provider, once each, to cancel what it holds for ``run``; a call that fails is made again next turn.

    Args:
        asked: Provider batches that were asked for already; grows.
    """
    for part in await ctx.store.transact(lambda tx: tx.parts(run=run, stages=frozenset({Stage.HELD}))):
        if part.provider_batch is None or part.provider_batch in asked:
            continue
        try:
            await ctx.backend.cancel(part.provider_batch)
        except (Conflict, NotFound):
            pass  # it has ended, or is about to be seen as gone: the watcher finds out which
        except BackendError as error:
            await note(ctx, EventKind.TROUBLE, f"{part.provider_batch} could not be cancelled yet: {error}", run=run,
                       part=part.id, where="cancel", message=str(error))  # fmt: skip
            continue
        asked.add(part.provider_batch)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
