"""Clients' batches while they are ``validating``: the input is brought, checked, and entered as a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from sluicegate.core.rows import RunRow
from sluicegate.core.rules import CheckRules
from sluicegate.core.tenancy import OPEN, ClientBatchRow
from sluicegate.core.types import BatchStatus, Dialect
from sluicegate.errors import BlobRefused
from sluicegate.ports import RemoteBlobs, Tx, Workers
from sluicegate.service import prepare
from sluicegate.service.context import Context
from sluicegate.service.ending import sha256_of
from sluicegate.service.intake import CopiedInput, InputSource, Inspection, inspect
from sluicegate.service.objections import objections
from sluicegate.service.retention import error_key, output_key

GONE: Final = {
    "code": "invalid_request", "message": "The content of the input file is gone. Upload the file again.",
    "param": "input_file_id", "line": None,
}  # fmt: skip
"""A row without its content: somebody's hand in the data folder, or a disk. Waiting would mend nothing."""


class Validation:
    """Brings and checks what clients send.

    Args:
        rules: What input files are checked against.
        strict: Refuse what the provider alone would refuse.
        bytes_max: The largest input that is fetched from remote storage.
        checkers: Where files are checked: processes, so that a large one does not slow the answers to others.
        remote: Storage that clients may name, None if there is none.
        fits: (tx, batch, requests, tokens) → why a fetched input is more than its tenant may have open, or None.
    """

    def __init__(
        self, ctx: Context, rules: CheckRules, *, strict: bool, bytes_max: int, checkers: Workers | None,
        remote: RemoteBlobs | None, fits: Callable[[Tx, ClientBatchRow, int, int], str | None],
    ) -> None:  # fmt: skip
        self._ctx, self._rules, self._strict, self._bytes_max = ctx, rules, strict, bytes_max
        self._checkers, self._remote, self._fits = checkers, remote, fits

    async def inspect(self, name: str, blob: str) -> Inspection:
        """Check and count a client's input file without entering it."""
        source = InputSource(name=name, path=self._ctx.blobs.path(blob))
        return await inspect(
            [source], rules=self._rules, workers=self._checkers or self._ctx.workers, counter=self._ctx.counter
        )

    def check_blob(self, url: str) -> None:
        """Raise ValueError, with a sentence for the client, for a URL of a blob that is not to be used."""
        if self._remote is None:
            raise ValueError("This gateway uses no blobs (its setting gateway_blobs).")
        self._remote.check(url)

    async def fetch(self, url: str, target: Path, *, signature: str = "") -> int:
        """Copy a blob to a file; returns its bytes. Raises BlobRefused, BlobUnavailable."""
        if self._remote is None:
            raise BlobRefused(f"{url} cannot be used: this gateway uses no blobs any more")
        return await self._remote.fetch(url, target, bytes_max=self._bytes_max, signature=signature)

    async def bring(self, batch: ClientBatchRow) -> None:
        """Bring a batch's input from remote storage; it is checked in its turn."""
        ctx = self._ctx
        aside = ctx.blobs.path(f"inputs/{ctx.ids.new('upload')}")
        try:
            size = await self.fetch(batch.input_blob or "", aside)
            digest = await ctx.workers.blocking(sha256_of, str(aside))
            key = prepare.input_key(digest)

            def enter(tx: Tx) -> None:
                # Within the transaction: no sweep comes between.
                if tx.amend(ClientBatchRow, batch.id, {"status": OPEN}, input=key, input_bytes=size, reason=None):
                    aside.replace(ctx.blobs.path(key))

            await ctx.store.transact(enter)
        except BlobRefused as error:
            problem = {"code": "input_no_permissions", "message": f"{error}.", "param": "input_blob", "line": None}
            await self._fail(batch, [problem])
        finally:
            aside.unlink(missing_ok=True)

    async def check(self, batch: ClientBatchRow) -> None:
        """Check a batch's input and enter its requests as a run, or end the batch with all that is wrong with it."""
        ctx = self._ctx
        path = ctx.blobs.path(batch.input)
        if not await ctx.workers.blocking(path.exists):
            await self._fail(batch, [GONE])
            return
        copied = [CopiedInput(sha256=path.name.removesuffix(".jsonl"), bytes=batch.input_bytes)]
        request = prepare.Request(
            inputs=(batch.input_file,), output=ctx.blobs.path(output_key(batch.id)),
            errors=ctx.blobs.path(error_key(batch.id)), tenant=batch.tenant,
            redirect=self._rules.redirect, cap=self._rules.limit, due_at=batch.due_at, names=self._rules.names,
        )  # fmt: skip
        exactly = self._strict and batch.dialect is Dialect.OPENAI
        rules = replace(self._rules, endpoint=batch.endpoint, endpoint_exactly=exactly)
        inspection = await prepare.check(ctx, request, copied, rules, None, self._checkers)
        problems = await ctx.workers.blocking(
            partial(objections, inspection, path, batch.endpoint, batch.dialect, strict=self._strict)
        )
        if not problems and batch.input_blob is not None:
            size = inspection.requests, inspection.tokens
            why = await ctx.store.read(lambda tx: self._fits(tx, batch, *size))
            if why is not None:
                problems = [{"code": "quota_exceeded", "message": why, "param": "input_blob", "line": None}]
        if problems:
            await self._fail(batch, problems)
            return
        now = ctx.clock.now()
        digest = hashlib.sha256(batch.id.encode()).hexdigest()
        await prepare.enter(ctx, request, copied, inspection, digest, lambda tx, run: _name_run(tx, batch, run, now))

    async def _fail(self, batch: ClientBatchRow, problems: list[dict[str, Any]]) -> None:
        now = self._ctx.clock.now()
        errors = msgspec.json.encode(problems).decode()
        await self._ctx.store.transact(
            lambda tx: tx.amend(
                ClientBatchRow, batch.id, {"run": None, "status": OPEN}, status=BatchStatus.FAILED, ended_at=now,
                errors=errors, reason=None,
            )
        )  # fmt: skip


def _name_run(tx: Tx, batch: ClientBatchRow, run: RunRow, now: float) -> None:
    """Write into a batch's row which run is its: in the transaction that writes the run, or nobody would ever end it."""
    changes: dict[str, Any] = {"run": run.id, "total": run.requests, "reason": None}
    started = {"status": BatchStatus.IN_PROGRESS, "in_progress_at": now}
    named = tx.amend(ClientBatchRow, batch.id, {"status": BatchStatus.VALIDATING}, **started, **changes)
    named = named or tx.amend(ClientBatchRow, batch.id, {"status": OPEN}, **changes)  # cancelled meanwhile
    assert named, "a batch does not end while it is checked"
