"""Remove what finished runs keep: rows, copies, results in the data folder, files at the provider."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from sluicegate.core.lifecycle import Stage
from sluicegate.core.rows import BatchRow, PartRow, RunRow
from sluicegate.core.tenancy import OPEN, ClientBatchRow, FileRow
from sluicegate.ports import Tx
from sluicegate.service import collector
from sluicegate.service.context import Context
from sluicegate.service.names import answer_keys, lock_name, set_aside

GRACE_S: Final = 7 * 86_400.0
"""So much longer a run is kept whose files the provider does not delete; then its rows and content go without them."""


async def prune(ctx: Context, *, keep_s: float, dry_run: bool, tenants: bool = False) -> dict[str, Any]:
    """Forget runs that finished more than ``keep_s`` seconds ago; their result files stay where the person put them.

    A run is left alone while a process has it, while a client's batch waits for its results, and while it has files at
    another address than the context's, or such as cannot be deleted now.

    Args:
        tenants: The runs of the gateway's tenants, else those of ``sluicegate run``.

    Returns:
        ``{"runs": [ids], "bytes": freed, "provider_files": deleted, "elsewhere": {resource: runs left alone},
        "failed": runs whose files the provider did not delete}``; with ``dry_run`` what would be.
    """
    before = ctx.clock.now() - keep_s

    def is_due(tx: Tx, run: RunRow) -> bool:
        return (
            run.state.final
            and (run.tenant is not None) == tenants
            and run.finished_at is not None
            and run.finished_at <= before
            # A client's batch may not have got its results yet, though the run is finished for long: storage did not answer.
            and not (tenants and tx.find(ClientBatchRow, run=run.id, status=OPEN))
        )

    def still(tx: Tx, id_: str) -> list[PartRow] | None:
        run = tx.run(id_)
        return tx.parts(run=id_) if run is not None and is_due(tx, run) else None

    due = await ctx.store.transact(lambda tx: [run for run in tx.runs() if is_due(tx, run)])
    done: dict[str, Any] = {"runs": [], "bytes": 0, "provider_files": 0, "elsewhere": {}, "failed": 0}
    for run in due:
        name = lock_name(run.id)
        if not ctx.lock.is_free(name) or not ctx.lock.acquire(name):
            continue
        try:
            # Whoever takes it up again needs the lock for that, so what is read now holds until the lock is given back.
            parts = await ctx.store.transact(partial(still, id_=run.id))
            if parts is not None:
                await _prune_one(ctx, run, parts, done, before, dry_run=dry_run)
        finally:
            ctx.lock.release(name)
    if not dry_run:
        await ctx.store.transact(lambda tx: tx.forget_events(before))
    return done


async def _prune_one(
    ctx: Context, run: RunRow, parts: list[PartRow], done: dict[str, Any], before: float, *, dry_run: bool
) -> None:  # fmt: skip
    kept = [part for part in parts if not part.cleaned]
    over = run.finished_at is not None and run.finished_at <= before - GRACE_S
    files = sum(map(_files, kept))
    if files and run.resource != ctx.backend.resource:
        done["elsewhere"][run.resource] = done["elsewhere"].get(run.resource, 0) + 1
        return
    if files and done["failed"] and not over:  # it does not answer: one call is enough to find that out
        done["failed"] += 1
        return
    for part in kept:
        if dry_run or await collector.clean(ctx, part, keep=False):
            done["provider_files"] += _files(part)
        elif not over:
            done["failed"] += 1
            return
    done["bytes"] += await forget_run(ctx, run, dry_run=dry_run)
    done["runs"].append(run.id)


def _files(part: PartRow) -> int:
    """How many files a part has at the provider."""
    return sum(file is not None for file in (part.file_id, part.output_file_id, part.error_file_id))


async def forget_run(ctx: Context, run: RunRow, *, dry_run: bool = False) -> int:
    """Delete a run's rows, then what only they named in the data folder; returns the bytes.

    A crash between leaves content that no row names, which is litter.
    """

    def write(tx: Tx) -> tuple[list[str], list[str]]:
        batches = tx.batches(run.id)
        keys = _keys(run, batches, tx.parts(run=run.id))
        inputs = sorted({batch.input for batch in batches})
        alone = [key for key in inputs if not _needed(tx, key, but=run.id)]
        if not dry_run:
            tx.delete_run(run.id)
        return keys, alone

    keys, inputs = await ctx.store.transact(write)
    freed = sum(path.stat().st_size for path in map(ctx.blobs.path, (*keys, *inputs)) if path.exists())
    if not dry_run:
        await ctx.blobs.delete(*keys)
        for key in inputs:
            await drop_unneeded(ctx, key)
    return freed


def _needed(tx: Tx, key: str, *, but: str | None = None) -> bool:
    """Whether a row names an input or a client's file; ``but``: other than those of this run."""
    return (
        bool(tx.find(FileRow, blob=key))
        or bool(tx.find(ClientBatchRow, input=key, ended_at=None))
        or any(batch.run != but for batch in tx.batches(input=key))
    )


def _keys(run: RunRow, batches: list[BatchRow], parts: list[PartRow]) -> list[str]:
    keys = [batch.index for batch in batches]
    for name in (*(part.id for part in parts if part.stage is not Stage.VOID), set_aside(run.id)):
        keys += answer_keys(name)
    return keys + [part.blob for part in parts]


async def drop_unneeded(ctx: Context, key: str) -> None:
    """Delete an input or a client's file, whose row is gone already, unless another row needs the same content.

    Within one transaction that changes no row: nobody can name the content between the look and the deletion, and nothing
    that is rolled back could leave a row without its content. Whoever names it later brings a copy of their own.
    """

    def write(tx: Tx) -> None:
        if not _needed(tx, key):
            ctx.blobs.path(key).unlink(missing_ok=True)

    await ctx.store.transact(write)
