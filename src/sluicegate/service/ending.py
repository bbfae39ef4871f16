"""How a batch of a client ends: its result files, where they go, and what is wrong with it as a whole."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from sluicegate.core.rows import BatchRow, PartRow, RunRow
from sluicegate.core.tenancy import OPEN, ClientBatchRow, FileRow
from sluicegate.core.types import BatchStatus, Dialect
from sluicegate.errors import BlobRefused
from sluicegate.ports import RemoteBlobs, Tx
from sluicegate.service.closing import NO_MODEL
from sluicegate.service.context import Context
from sluicegate.service.objections import SHOWN, lines_naming
from sluicegate.service.retention import error_key, output_key

CANCELLED: Final = "batch_cancelled: This request was not executed before the batch was cancelled."
EXPIRED: Final = "batch_expired: This request could not be executed before the completion window expired."
"""``code: message`` with which a run is closed early, as its requests without an answer say it."""


class Ending:
    """Ends clients' batches.

    Args:
        remote: Storage that results may go to, None if there is none.
        keep_s: How long ended batches are kept.
    """

    def __init__(self, ctx: Context, remote: RemoteBlobs | None, *, keep_s: float) -> None:
        self._ctx, self._remote, self._keep_s = ctx, remote, keep_s

    async def end(self, batch: ClientBatchRow, run_id: str) -> None:
        """End a batch whose run is finished, unless it has ended: result files, where they go, its last status.

        Raises:
            BlobUnavailable: its storage does not answer; the call may be repeated.
        """
        ctx = self._ctx
        now = ctx.clock.now()

        def finalize(tx: Tx) -> tuple[RunRow, BatchRow] | None:
            run = tx.run(run_id)
            assert run is not None, "a finished run has a row"
            (joined,) = tx.batches(run_id)
            (row,) = tx.find(ClientBatchRow, id=batch.id)
            changes: dict[str, Any] = {"completed": joined.out_lines, "failed": joined.err_lines}
            changes["finalizing_at"] = now if row.finalizing_at is None else row.finalizing_at
            if run.closing is None:
                changes["status"] = BatchStatus.FINALIZING
            return (run, joined) if tx.amend(ClientBatchRow, batch.id, {"status": OPEN}, **changes) else None

        found = await ctx.store.transact(finalize)
        if found is None:
            return
        run, joined = found
        status, problems = await self._end_of(run, joined)
        output = errors = None
        if status is not BatchStatus.FAILED:
            # Azure gives an error file with every completed batch, of 0 bytes if there is no error (F§2.4).
            always = batch.dialect is Dialect.AZURE and status is BatchStatus.COMPLETED
            output = await self._result_file(batch, joined.out_lines, "output")
            errors = await self._result_file(batch, joined.err_lines, "error", always=always)
            if batch.output_blob is not None and batch.error_blob is not None:
                refused = await self._deliver({batch.output_blob: output, batch.error_blob: errors})
                problems = problems + refused
                if not refused:  # otherwise they stay files of the gateway: the answers are paid for
                    output = errors = None

        def write(tx: Tx) -> None:
            for file in (output, errors):
                if file is not None and not tx.find(FileRow, id=file.id):
                    tx.insert(file)
            tx.amend(
                ClientBatchRow, batch.id, {"status": OPEN}, status=status, ended_at=ctx.clock.now(), reason=None,
                output_file=output.id if output else None, error_file=errors.id if errors else None,
                errors=msgspec.json.encode(problems).decode() if problems else None,
            )  # fmt: skip

        await ctx.store.transact(write)
        if output is None and errors is None:
            await ctx.blobs.delete(output_key(batch.id), error_key(batch.id))

    async def _deliver(self, results: dict[str, FileRow | None]) -> list[dict[str, Any]]:
        """Put result files into remote storage; the errors of the batch if that is refused for good.

        Raises:
            BlobUnavailable: not now; what was put is put again later.
        """
        refused = []
        for url, file in results.items():
            if file is None:
                continue
            try:
                if self._remote is None:
                    raise BlobRefused(f"{url} cannot be used: this gateway uses no blobs any more")
                await self._remote.put(self._ctx.blobs.path(file.blob), url)
            except BlobRefused as error:
                refused.append(
                    {"code": "output_no_permissions", "message": f"{error}.", "param": "output_folder", "line": None}
                )
        return refused

    async def _end_of(self, run: RunRow, joined: BatchRow) -> tuple[BatchStatus, list[dict[str, Any]]]:
        """How a finished run's batch ends, and the errors of the batch as a whole."""
        parts = await self._ctx.store.read(lambda tx: tx.parts(run=run.id))
        without = [part for part in parts if part.error == NO_MODEL and part.provider_batch is None]
        problems = await self._without_model(run, joined, without) if without else []
        if run.closing is not None:
            return BatchStatus.CANCELLED if run.closing == CANCELLED else BatchStatus.EXPIRED, problems
        # With nothing but such errors it is what the provider itself would have said of the whole file.
        nothing_else = joined.out_lines == 0 and joined.err_lines == sum(part.count for part in without)
        return BatchStatus.FAILED if without and nothing_else else BatchStatus.COMPLETED, problems

    async def _without_model(self, run: RunRow, joined: BatchRow, parts: list[PartRow]) -> list[dict[str, Any]]:
        """The errors, by line, of requests for models that the provider does not have."""
        groups = msgspec.json.decode(run.groups, type=list[tuple[str, str]])
        path = self._ctx.blobs.path(joined.index)
        problems: list[dict[str, Any]] = []
        for name, message in sorted({(groups[part.group][1], part.reason) for part in parts}):
            lines = await self._ctx.workers.blocking(lines_naming, path, name)
            problems += [{"code": NO_MODEL, "message": message, "param": "body.model", "line": line} for line in lines]
        return sorted(problems, key=lambda problem: problem["line"])[:SHOWN]

    async def _result_file(
        self, batch: ClientBatchRow, lines: int, kind: str, *, always: bool = False
    ) -> FileRow | None:  # fmt: skip
        blob = output_key(batch.id) if kind == "output" else error_key(batch.id)
        path = self._ctx.blobs.path(blob)
        if not lines and not always:
            path.unlink(missing_ok=True)
            return None
        if not lines:
            await self._ctx.workers.blocking(path.touch)
        digest = await self._ctx.workers.blocking(sha256_of, str(path))
        now = self._ctx.clock.now()
        # They go with the batch at the latest.
        kept_s = None if batch.output_seconds is None else min(batch.output_seconds, self._keep_s)
        return FileRow(
            id=f"file-{kind}-{batch.id.removeprefix('batch_')}", tenant=batch.tenant, filename=f"{batch.id}_{kind}.jsonl",
            purpose="batch_output", bytes=path.stat().st_size, lines=lines, sha256=digest, blob=blob,
            created_at=now, expires_at=None if kept_s is None else now + kept_s,
        )  # fmt: skip


def sha256_of(path: str) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
