"""What the gateway keeps, and for how long: ended batches and unused files as the settings say, or as their client said."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Final

from sluicegate.core.tenancy import ENDS, OPEN, ClientBatchRow, FileRow, UploadPartRow, UploadRow
from sluicegate.ports import Tx
from sluicegate.service.context import Context
from sluicegate.service.names import answer_keys, set_aside
from sluicegate.service.output import PARTIAL
from sluicegate.service.prune import drop_unneeded, prune

UPLOAD_S: Final = 3_600.0
"""An upload takes parts for an hour (F§1.1)."""


SPEND_S: Final = 30 * 86_400.0
"""Limits of spend look back so far, whatever else was deleted meanwhile."""
LITTER_S: Final = 86_400.0
"""Without a look in between, as for ``sluicegate prune``: a blob that no row names is litter after a day."""

LOOKS: Final = 24
"""Looks for litter within the time after which it goes."""

BEGUN: Final = ("upload_", "lines_")
PART_SUFFIX: Final = ".upload"
"""Names in ``inputs`` of what is being received, and of parts of uploads."""

LITTERED: Final = ("inputs", "indexes", "parts", "results", "files", "foreign")


async def drop_parts(ctx: Context, upload: str) -> None:
    """Delete an upload's parts: the content first, so that a crash between leaves rows to be swept, no lost files."""
    parts = await ctx.store.transact(lambda tx: tx.find(UploadPartRow, upload=upload))
    await ctx.blobs.delete(*(part.blob for part in parts))

    def write(tx: Tx) -> None:
        for part in parts:
            tx.remove(UploadPartRow, part.id)

    await ctx.store.transact(write)


async def drop_file(ctx: Context, file: FileRow, *, unused: bool = False) -> None:
    """Delete a file's row, then its content once no other file and no batch needs it.

    Two transactions: a crash between leaves content that no row names, which is litter. Were it one, a crash before its
    commit would leave a row without content.

    Args:
        unused: Only if no batch was made of it, as far as batches are kept.
    """

    def forget(tx: Tx) -> bool:
        if unused and tx.find(ClientBatchRow, tenant=file.tenant, input_file=file.id):
            return False
        return tx.remove(FileRow, file.id)

    if await ctx.store.transact(forget):
        await drop_unneeded(ctx, file.blob)


class Retention:
    """Sweeps a gateway's data folder from time to time.

    Args:
        keep_s: How long ended batches are kept, with result files and parts, and inputs without an expiry of their own
            after their last use: the upload, or the end of the last batch made of them.
        litter_s: After so long a blob that no row names is litter: its maker died before it wrote the row.
    """

    def __init__(self, ctx: Context, *, keep_s: float, litter_s: float) -> None:
        self._ctx, self._keep_s, self._litter_s = ctx, keep_s, litter_s
        self._unnamed: dict[str, float] = {}
        self._looked_at = -litter_s

    async def drop_begun(self) -> None:
        """Delete what a gateway that died was receiving; before anything is received."""
        keys = await self._ctx.workers.blocking(self._ctx.blobs.keys, "inputs")
        begun = {key for key in keys if key.partition("/")[2].startswith(BEGUN) or key.endswith(PART_SUFFIX)}
        if begun:
            named = await self._ctx.store.read(_named)
            await self._ctx.blobs.delete(*sorted(begun - named))

    async def sweep(self) -> None:
        """Delete what is due."""
        await self._drop_uploads()
        await self._drop_ended()
        now = self._ctx.clock.now()
        if now >= self._looked_at + self._litter_s / LOOKS:
            self._looked_at = now
            await self._ctx.store.transact(lambda tx: tx.forget_spend(now - SPEND_S))
            await self._drop_litter(now)

    async def _drop_uploads(self) -> None:
        ctx = self._ctx
        for upload in await ctx.store.transact(lambda tx: tx.find(UploadRow)):
            if ctx.clock.now() >= upload.created_at + UPLOAD_S:
                await ctx.store.transact(partial(_expire, id_=upload.id))
                await drop_parts(ctx, upload.id)
                await ctx.store.transact(lambda tx, id_=upload.id: tx.remove(UploadRow, id_))  # type: ignore[misc]

    async def _drop_ended(self) -> None:
        ctx, keep_s = self._ctx, self._keep_s
        now = ctx.clock.now()

        def read(tx: Tx) -> tuple[list[FileRow], list[FileRow], list[ClientBatchRow]]:
            batches = tx.find(ClientBatchRow)
            ended = [b for b in batches if b.status in ENDS and b.ended_at is not None and b.ended_at <= now - keep_s]
            going = {b.id for b in ended}
            used = {b.input_file for b in batches if b.id not in going}
            files = tx.find(FileRow)
            expired = [file for file in files if file.expires_at is not None and file.expires_at <= now]
            idle = [file for file in files if _may_idle(file, now - keep_s) and file.id not in used]
            return expired, idle, ended

        expired, idle, ended = await ctx.store.read(read)
        for file in expired:
            await drop_file(ctx, file)
        await prune(ctx, keep_s=keep_s, dry_run=False, tenants=True)
        for batch in ended:
            names = frozenset(name for name in (batch.output_file, batch.error_file) if name is not None)
            for file in await ctx.store.transact(lambda tx, names=names: tx.find(FileRow, id=names)):  # type: ignore[misc]
                await drop_file(ctx, file)
            await ctx.store.transact(lambda tx, id_=batch.id: tx.remove(ClientBatchRow, id_))  # type: ignore[misc]
        for file in idle:
            await drop_file(ctx, file, unused=True)

    async def _drop_litter(self, now: float) -> None:
        ctx = self._ctx
        found = [key for folder in LITTERED for key in await ctx.workers.blocking(ctx.blobs.keys, folder)]
        named = await ctx.store.read(_named)
        self._unnamed = {key: self._unnamed.get(key, now) for key in found if key not in named}
        due = {key for key, since in self._unnamed.items() if now >= since + self._litter_s}
        await _drop_unnamed(ctx, due)


async def drop_old_litter(ctx: Context, *, dry_run: bool) -> int:
    """Delete what no row names and nobody has written to for a day; returns the bytes."""

    def old() -> dict[str, int]:
        found = {}
        for key in (key for folder in LITTERED for key in ctx.blobs.keys(folder)):
            with suppress(FileNotFoundError):
                seen = ctx.blobs.path(key).stat()
                if seen.st_mtime < ctx.clock.now() - LITTER_S:
                    found[key] = seen.st_size
        return found

    sizes = await ctx.workers.blocking(old)
    named = await ctx.store.read(_named) if sizes else set()
    litter = {key: size for key, size in sizes.items() if key not in named}
    if not dry_run:
        await _drop_unnamed(ctx, set(litter))
    return sum(litter.values())


async def _drop_unnamed(ctx: Context, keys: set[str]) -> None:
    def drop(tx: Tx) -> None:
        # Within the transaction: nothing that is named meanwhile is dropped.
        for key in keys - _named(tx):
            ctx.blobs.path(key).unlink(missing_ok=True)

    if keys:
        await ctx.store.transact(drop)


def _expire(tx: Tx, id_: str) -> None:
    """No part is added any more, however long it was on its way."""
    tx.amend(UploadRow, id_, {"status": "pending"}, status="expired")


def _may_idle(file: FileRow, before: float) -> bool:
    """Whether an input goes once it was not used since: its client has said nothing of how long it is to be kept."""
    return file.purpose == "batch" and file.expires_at is None and file.created_at <= before


def _named(tx: Tx) -> set[str]:
    """The blobs that rows name, or that what they name is about to become."""
    named = {file.blob for file in tx.find(FileRow)} | {part.blob for part in tx.find(UploadPartRow)}
    for client in tx.find(ClientBatchRow, status=OPEN):
        named |= {client.input} | {
            key + end for key in (output_key(client.id), error_key(client.id)) for end in ("", PARTIAL)
        }
    for run in tx.runs():
        batches, parts = tx.batches(run.id), tx.parts(run=run.id)
        named |= {batch.input for batch in batches} | {batch.index for batch in batches}
        named |= {part.blob for part in parts}
        for name in (set_aside(run.id), *(part.id for part in parts)):
            named |= set(answer_keys(name))
    return named


def output_key(batch: str) -> str:
    """The blob of a client's batch's output."""
    return f"files/{batch}-output.jsonl"


def error_key(batch: str) -> str:
    """The blob of a client's batch's errors."""
    return f"files/{batch}-error.jsonl"
