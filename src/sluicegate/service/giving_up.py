"""End requests without an answer: error lines of ours, in the provider's shape, in the place of the provider's (D5, D9)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from sluicegate.core import join
from sluicegate.core.join import Settled
from sluicegate.core.lifecycle import Stage
from sluicegate.core.line import custom_id_of
from sluicegate.core.rows import PartRow, scope
from sluicegate.core.waiting import Spans
from sluicegate.ports import Tx
from sluicegate.service.context import Context
from sluicegate.service.names import result_key, sidecar_key
from sluicegate.service.work import Work


async def give_up(ctx: Context, work: Work, group: int, positions: Spans, code: str, message: str) -> str:
    """Let waiting requests of a group end with an error line each.

    Returns:
        The key of the sidecar that tells where the lines are, for the joiner.
    """
    run, key = work.run, ctx.ids.new("part")
    lines, settled = await ctx.workers.blocking(_error_lines, ctx, work, positions, code, message)
    await ctx.blobs.write(result_key(key, join.OWN), in_one(lines))
    await ctx.blobs.write(sidecar_key(key), in_one(settled.to_bytes()))
    part = PartRow(
        id=key, run=run.id, deployment=scope(run.resource, work.deployment_of(group)), resource=run.resource,
        url=work.groups[group].url, group=group, stage=Stage.COLLECTED, requests=str(positions), retries="{}",
        count=len(positions), tokens=0, quarter_chars=0, bytes=0, charge=0, attempt=0, fill=0, unproven=False,
        probing=False, reason=message, created_at=ctx.clock.now(), blob=f"parts/{key}", failed=len(positions),
        cleaned=True, error=code,
    )  # fmt: skip

    def write(tx: Tx) -> None:
        for (waits_in, attempt), spans in tx.waiting(run.id).items():
            if waits_in == group:
                tx.set_waiting(run.id, group, attempt, spans - positions)
        tx.insert(part)

    await ctx.store.transact(write)
    return key


def _error_lines(ctx: Context, work: Work, positions: Spans, code: str, message: str) -> tuple[bytes, Settled]:
    settled, lines, at = Settled(), [], 0
    handles: dict[str, int] = {}
    try:
        for position in positions:
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


async def in_one(content: bytes) -> AsyncIterator[bytes]:
    """A blob's content that is in memory already."""
    yield content
