"""What the gateway keeps, and for how long: files until they expire or are deleted, ended batches as the settings say."""

from __future__ import annotations

from typing import Final

from sluicegate.core.tenancy import ENDS, ClientBatchRow, FileRow, UploadPartRow, UploadRow
from sluicegate.core.types import BatchStatus
from sluicegate.ports import Tx
from sluicegate.service.context import Context
from sluicegate.service.prune import prune

OPEN = frozenset(status for status in BatchStatus if status not in ENDS)

UPLOAD_S: Final = 3_600.0
"""An upload takes parts for an hour (F§1.1)."""


async def drop_parts(ctx: Context, upload: str) -> None:
    """Delete an upload's parts: the content first, so that a crash between leaves rows to be swept, no lost files."""
    parts = await ctx.store.transact(lambda tx: tx.find(UploadPartRow, upload=upload))
    await ctx.blobs.delete(*(part.blob for part in parts))

    def write(tx: Tx) -> None:
        for part in parts:
            tx.remove(UploadPartRow, part.id)

    await ctx.store.transact(write)


async def drop_file(ctx: Context, file: FileRow) -> None:
    """Delete a file's row, and its content once no other file and no batch needs it."""

    def write(tx: Tx) -> None:
        tx.remove(FileRow, file.id)
        needed = (
            bool(tx.find(FileRow, blob=file.blob))
            or bool(tx.find(ClientBatchRow, input=file.blob, status=OPEN))
            or any(batch.input == file.blob for batch in tx.batches())
        )
        if not needed:
            ctx.blobs.path(file.blob).unlink(missing_ok=True)

    await ctx.store.transact(write)


async def sweep(ctx: Context, *, keep_s: float) -> None:
    """Delete expired files and uploads, and batches that ended more than ``keep_s`` ago with result files and parts."""
    now = ctx.clock.now()
    for upload in await ctx.store.transact(lambda tx: tx.find(UploadRow)):
        if now >= upload.created_at + UPLOAD_S:
            await drop_parts(ctx, upload.id)
            await ctx.store.transact(lambda tx, id_=upload.id: tx.remove(UploadRow, id_))  # type: ignore[misc]

    def read(tx: Tx) -> tuple[list[FileRow], list[ClientBatchRow]]:
        expired = [file for file in tx.find(FileRow) if file.expires_at is not None and file.expires_at <= now]
        ended = [
            b for b in tx.find(ClientBatchRow, status=ENDS) if b.ended_at is not None and b.ended_at <= now - keep_s
        ]
        return expired, ended

    expired, ended = await ctx.store.transact(read)
    for file in expired:
        await drop_file(ctx, file)
    await prune(ctx, keep_s=keep_s, dry_run=False, tenants=True)
    for batch in ended:
        names = frozenset(name for name in (batch.output_file, batch.error_file) if name is not None)
        for file in await ctx.store.transact(lambda tx, names=names: tx.find(FileRow, id=names)):  # type: ignore[misc]
            await drop_file(ctx, file)
        await ctx.store.transact(lambda tx, id_=batch.id: tx.remove(ClientBatchRow, id_))  # type: ignore[misc]
