"""Open requests again that ended in the error file for a passing reason (``sluicegate batches salvage``)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sluicegate.core.join import Settled, is_passing
from sluicegate.core.lifecycle import RunState, Stage
from sluicegate.core.rows import PartRow, RunRow
from sluicegate.core.waiting import Spans
from sluicegate.ports import Tx
from sluicegate.service.context import Context
from sluicegate.service.names import result_key, sidecar_key


async def reopen(ctx: Context, run: RunRow) -> int:
    """Let them wait again, in one transaction; returns how many. The run must not be driven meanwhile."""
    parts = await ctx.store.transact(lambda tx: tx.parts(run=run.id, stages=frozenset({Stage.COLLECTED})))
    newest: dict[int, tuple[PartRow, bool]] = {}
    for part in parts:
        for position, passing in await ctx.workers.blocking(_failures, part, ctx.blobs.path):
            newest[position] = (part, passing)
    by_group: dict[int, list[int]] = {}
    for position, (part, passing) in newest.items():
        if passing:
            by_group.setdefault(part.group, []).append(position)
    if not by_group:
        return 0

    def write(tx: Tx) -> None:
        waiting = tx.waiting(run.id)
        for group, positions in by_group.items():
            # Attempt 1: it was sent before, so its old failure no longer counts.
            tx.set_waiting(run.id, group, 1, waiting.get((group, 1), Spans()) | Spans.of(positions))
        for batch in tx.batches(run.id):
            tx.update_batch(batch.id, written=0, out_bytes=0, err_bytes=0, out_lines=0, err_lines=0)
        tx.update_run(run.id, state=RunState.ACTIVE, finished_at=None, exit_code=None)

    await ctx.store.transact(write)
    return sum(map(len, by_group.values()))


def _failures(part: PartRow, path: Callable[[str], Path]) -> list[tuple[int, bool]]:
    """(position, passing) of each request that a part settled as failed."""
    settled = Settled.from_bytes(path(sidecar_key(part.id)).read_bytes())
    found = []
    for i, position in enumerate(settled.position):
        if settled.failed[i]:
            with path(result_key(part.id, settled.source[i])).open("rb") as lines:
                line = os.pread(lines.fileno(), settled.length[i], settled.offset[i])
            found.append((position, is_passing(line)))
        else:
            found.append((position, False))
    return found
