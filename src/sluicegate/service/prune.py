"""Remove what finished runs keep: rows, copies, results in the data folder, files at the provider."""

from __future__ import annotations

from typing import Any

from sluicegate.core import join
from sluicegate.core.lifecycle import Stage
from sluicegate.core.rows import BatchRow, PartRow, RunRow
from sluicegate.core.tenancy import ClientBatchRow, FileRow
from sluicegate.ports import Tx
from sluicegate.service import collector
from sluicegate.service.context import Context
from sluicegate.service.drive import BAD


async def prune(ctx: Context, *, keep_s: float, dry_run: bool, tenants: bool = False) -> dict[str, Any]:
    """Forget runs that finished more than ``keep_s`` seconds ago; their result files stay where the person put them.

    Args:
        tenants: The runs of the gateway's tenants, else those of ``sluicegate run``.

    Returns:
        ``{"runs": [ids], "bytes": freed, "provider_files": deleted}``; with ``dry_run`` what would be.
    """
    before = ctx.clock.now() - keep_s

    def read(tx: Tx) -> list[tuple[RunRow, list[BatchRow], list[PartRow]]]:
        old = [
            run
            for run in tx.runs()
            if run.state.final
            and (run.tenant is not None) == tenants
            and run.finished_at is not None
            and run.finished_at <= before
        ]
        return [(run, tx.batches(run.id), tx.parts(run=run.id)) for run in old]

    old = await ctx.store.transact(read)
    kept = await ctx.store.transact(
        lambda tx: (
            {b.input for b in tx.batches() if b.run not in {run.id for run, _, _ in old}}
            | {file.blob for file in tx.find(FileRow)}
            | {batch.input for batch in tx.find(ClientBatchRow) if batch.ended_at is None}
        )
    )
    freed = files = 0
    for run, batches, parts in old:
        keys = _keys(run, batches, parts, kept)
        freed += sum(path.stat().st_size for path in map(ctx.blobs.path, keys) if path.exists())
        for part in parts:
            files += 0 if part.cleaned else sum(1 for f in (part.file_id, part.output_file_id, part.error_file_id) if f)
            if not dry_run and not part.cleaned:
                await collector.clean(ctx, part)
        if not dry_run:
            await ctx.store.transact(lambda tx, r=run: tx.delete_run(r.id))  # type: ignore[misc]
            inputs = {batch.input for batch in batches}
            await ctx.blobs.delete(*(key for key in keys if key not in inputs))
            for key in sorted(inputs):
                await drop_unneeded(ctx, key)
    return {"runs": [run.id for run, _, _ in old], "bytes": freed, "provider_files": files}


def _keys(run: RunRow, batches: list[BatchRow], parts: list[PartRow], kept: set[str]) -> list[str]:
    keys = [batch.index for batch in batches] + [b.input for b in batches if b.input not in kept]
    names = [part.id for part in parts if part.stage is not Stage.VOID] + [f"{run.id}-{BAD}"]
    for name in names:
        keys.append(collector.sidecar_key(name))
        keys += [collector.result_key(name, source) for source in (join.OUT, join.ERR, join.OWN)]
    return keys + [part.blob for part in parts]


async def drop_unneeded(ctx: Context, key: str) -> None:
    """Delete an input or a client's file, whose row is gone already, unless another row needs the same content.

    Within one transaction that changes no row: nobody can name the content between the look and the deletion, and nothing
    that is rolled back could leave a row without its content.
    """

    def write(tx: Tx) -> None:
        needed = (
            bool(tx.find(FileRow, blob=key))
            or bool(tx.find(ClientBatchRow, input=key, ended_at=None))
            or any(batch.input == key for batch in tx.batches())
        )
        if not needed:
            ctx.blobs.path(key).unlink(missing_ok=True)

    await ctx.store.transact(write)
