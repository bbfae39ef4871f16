"""The service on a virtual clock against the emulator's pure model: days in seconds, deaths at any port call.

Nothing here waits: Store, Blobs and Workers run inline, and the event loop's time jumps to the next deadline when nothing
is ready. A thread would be jumped over, so there is none.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sluicegate.adapters.blobs import FolderBlobs
from sluicegate.adapters.counters import default_counter
from sluicegate.adapters.store import SqlStore
from sluicegate.adapters.workers import InlineWorkers
from sluicegate.core.refusal import limit_in_text
from sluicegate.core.report import Event, RunResult
from sluicegate.core.rules import CheckRules
from sluicegate.core.types import (
    Accepted,
    BatchError,
    BatchPage,
    BatchStatus,
    Dialect,
    ProviderBatch,
    QuotaHeaders,
    RemoteFile,
)  # fmt: skip
from sluicegate.emulator import reading, results
from sluicegate.emulator.answers import Answers
from sluicegate.emulator.config import Account
from sluicegate.emulator.model import Batch, InputFacts, Model, Refused
from sluicegate.errors import CallRefused, Conflict, FileNotReady, NotFound, TokenLimitExceeded
from sluicegate.service import prepare, runs
from sluicegate.service.context import Context, Policy

EPOCH = 1_800_000_000.0


class Died(BaseException):
    """The process dies here: a BaseException, so that nothing can handle it."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next deadline when nothing is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.virtual = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None) -> Any:
            ready = select(0)
            if not ready and timeout:
                self.virtual += timeout
            return ready

        self._selector.select = jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.virtual


class Deaths:
    """Counts port calls; the process dies right before or right after the chosen one."""

    def __init__(self, at: int | None, *, after: bool) -> None:
        self.at, self.after, self.calls = at, after, 0

    def before(self) -> None:
        self.calls += 1
        if self.calls == self.at and not self.after:
            raise Died

    def behind(self) -> None:
        if self.calls == self.at and self.after:
            raise Died


class VirtualClock:
    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SeededIds:
    def __init__(self, seed: object) -> None:
        self._dice = random.Random(str(seed))

    def new(self, prefix: str) -> str:
        return f"{prefix}_{self._dice.getrandbits(64):016x}"

    def random(self) -> float:
        return self._dice.random()


class World:
    """The provider: the pure model, and files as bytes in memory. It outlives every process."""

    def __init__(self, account: Account, folder: Path) -> None:
        self.model = Model(account.with_defaults())
        self.folder = folder
        self.files: dict[str, tuple[str, Path, InputFacts | None]] = {}
        self.faulty: dict[str, str] = {}
        self.serial = 0
        self.list_lag_s = 0.0
        self.answers: Answers | None = None

    def advance(self, now: float) -> None:
        """Let everything happen that is due; the files of others' new batches appear."""
        self.model.advance(now)
        while self.model.new_foreign:
            batch = self.model.new_foreign.pop(0)
            path = self.folder / batch.input_file_id
            results.write_foreign(path, batch, self.model.account.seed)
            self.files[batch.input_file_id] = ("other.jsonl", path, batch.facts)


class ModelBackend:
    """The Backend port on a World."""

    resource = "simulated"

    def __init__(self, world: World, deaths: Deaths) -> None:
        self._world = world
        self._deaths = deaths
        self.dialect = Dialect(world.model.account.dialect)

    async def _call(self) -> float:
        self._deaths.before()
        await asyncio.sleep(0.05)
        now = VirtualClock().now()
        self._world.advance(now)
        return now

    def _new(self, kind: str) -> str:
        self._world.serial += 1
        return f"{kind}-{self._world.serial}"

    async def upload(self, source: Path, *, filename: str, expires_after_s: int | None = None) -> RemoteFile:
        await self._call()
        file_id = self._new("file")
        path = self._world.folder / file_id
        path.write_bytes(source.read_bytes())
        self._world.files[file_id] = (filename, path, reading.read(path, self._world.model.account))
        if (fault := self._world.model.faults.hit("file")) is not None:
            self._world.faulty[file_id] = {"stuck_pending": "pending"}.get(fault.kind, fault.kind)
        self._deaths.behind()
        return await self._show(file_id)

    async def _show(self, file_id: str) -> RemoteFile:
        if file_id not in self._world.files:
            raise NotFound(f"no file {file_id}", status=404)
        name, path, _ = self._world.files[file_id]
        return RemoteFile(id=file_id, filename=name, bytes=path.stat().st_size,
                          status=self._world.faulty.get(file_id, "processed"))  # fmt: skip

    async def find_files(self, filenames: frozenset[str]) -> tuple[RemoteFile, ...]:
        await self._call()
        return tuple([await self._show(i) for i, (name, _, _) in self._world.files.items() if name in filenames])

    async def file(self, file_id: str) -> RemoteFile:
        await self._call()
        return await self._show(file_id)

    async def delete_file(self, file_id: str) -> None:
        await self._call()
        self._world.files.pop(file_id, None)
        self._deaths.behind()

    async def create(self, *, input_file_id: str, endpoint: str, metadata: dict[str, str]) -> Accepted:
        now = await self._call()
        if input_file_id not in self._world.files:
            raise CallRefused("no such file", status=400)
        if input_file_id in self._world.faulty:
            raise FileNotReady("the file is not processed", status=400)
        facts = self._world.files[input_file_id][2]
        assert facts is not None
        try:
            batch = self._world.model.create(
                now,
                batch_id=self._new("batch"),
                file_id=input_file_id,
                facts=facts,
                endpoint=endpoint,
                metadata=metadata,
            )
        except Refused as refused:
            raise TokenLimitExceeded(refused.message, limit=limit_in_text(refused.message)) from None
        self._deaths.behind()
        return Accepted(batch=self._snapshot(batch), headers=self._headers(facts))

    def _headers(self, facts: InputFacts) -> QuotaHeaders:
        model = self._world.model
        if not model.account.headers:
            return QuotaHeaders()
        enqueued = round(facts.quarter_chars * model.account.count_factor)
        return QuotaHeaders(maximum=model.deployments.limit(facts.deployment), enqueued=enqueued)

    def _snapshot(self, batch: Batch) -> ProviderBatch:
        errors = tuple(BatchError(code=e["code"], message=e["message"]) for e in batch.errors)
        done = batch.status in ("completed", "expired", "cancelled")
        return ProviderBatch(
            id=batch.id, status=BatchStatus(batch.status), endpoint=batch.endpoint, model=batch.deployment,
            input_file_id=batch.input_file_id, output_file_id=f"out:{batch.id}" if done else None,
            error_file_id=f"err:{batch.id}" if done else None, created_at=batch.created_at,
            requests_total=len(batch.facts.tokens), requests_completed=batch.executed, metadata=batch.metadata or {},
            errors=errors,
        )  # fmt: skip

    async def list_batches(self, *, after: str | None = None, limit: int = 100) -> BatchPage:
        listed_until = await self._call() - self._world.list_lag_s
        newest = [
            self._snapshot(batch)
            for batch in reversed(self._world.model.batches.values())
            if batch.created_at <= listed_until
        ]
        start = next((i + 1 for i, batch in enumerate(newest) if batch.id == after), 0)
        page = tuple(newest[start : start + limit])
        return BatchPage(batches=page, next_after=page[-1].id if start + limit < len(newest) else None)

    async def batch(self, batch_id: str) -> ProviderBatch:
        await self._call()
        if batch_id not in self._world.model.batches:
            raise NotFound("no batch", status=404)
        return self._snapshot(self._world.model.batches[batch_id])

    async def cancel(self, batch_id: str) -> ProviderBatch:
        now = await self._call()
        try:
            return self._snapshot(self._world.model.cancel(now, batch_id))
        except Refused as refused:
            raise Conflict(refused.message, status=409) from None

    async def download(self, file_id: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        await self._call()
        kind, _, batch_id = file_id.partition(":")
        if not batch_id:
            if file_id not in self._world.files:
                raise NotFound(f"no file {file_id}", status=404)
            yield self._world.files[file_id][1].read_bytes()[offset:]
            return
        batch = self._world.model.batches[batch_id]
        out, err = self._world.folder / f"{batch_id}.out", self._world.folder / f"{batch_id}.err"
        source = self._world.folder / batch.input_file_id
        results.write_results(self._world.model, batch, source, out, err, self._world.answers)
        yield (out if kind == "out" else err).read_bytes()[offset:]

    async def deployment_limit(self, deployment: str) -> int | None:
        return None

    async def close(self) -> None:
        return None


class DyingStore:
    """A store whose commits are failpoints."""

    def __init__(self, store: SqlStore, deaths: Deaths) -> None:
        self._store, self._deaths = store, deaths

    async def transact(self, function: Any, /) -> Any:
        self._deaths.before()
        result = await self._store.transact(function)
        self._deaths.behind()
        return result

    async def version(self) -> tuple[int, int]:
        return await self._store.version()

    async def read(self, function: Any) -> Any:
        return await self._store.read(function)

    async def close(self) -> None:
        await self._store.close()


class OneLock:
    """Locks of one process at a time: a new process finds those of the dead one free."""

    def __init__(self) -> None:
        self._held: set[str] = set()

    def acquire(self, name: str) -> bool:
        self._held.add(name)
        return True

    def is_free(self, name: str) -> bool:
        return name not in self._held

    def taken(self) -> frozenset[str]:
        return frozenset(self._held)

    def release(self, name: str) -> None:
        self._held.discard(name)


async def life(
    world: World, source: Path, output: Path, state: Path, deaths: Deaths, seed: object, *, cap: int | None = None,
    **policy: Any,
) -> RunResult:  # fmt: skip
    """One process from its start to its end, or to its death."""
    blobs = FolderBlobs(state, inline=True)
    store = SqlStore(state / "s.sqlite3", inline=True)
    told: list[Event] = []
    ctx = Context(
        clock=VirtualClock(), ids=SeededIds(seed), store=DyingStore(store, deaths),
        blobs=blobs, workers=InlineWorkers(), lock=OneLock(),
        backend=ModelBackend(world, deaths), counter=default_counter, policy=Policy(**policy), instance="one",
        listen=told.append,
    )  # fmt: skip
    request = prepare.Request(
        inputs=(str(source),),
        output=output,
        errors=output.with_name("errors.jsonl"),
        cap=cap,
    )
    try:
        started_at = ctx.clock.now()
        copied = await prepare.copy_inputs(ctx, request, None)
        digest = prepare.digest_of(copied)
        known = await prepare.known_run(ctx, request, digest)
        if known is None:
            inspection = await prepare.check(ctx, request, copied, CheckRules(dialect=Dialect.AZURE), None)
            row = await prepare.enter(ctx, request, copied, inspection, digest)
        else:
            row = await prepare.resume(ctx, request, known)
        return await runs.perform(
            ctx,
            row,
            ways=runs.Ways(),
            stop=asyncio.Event(),
            show=None,
            started_at=started_at,
            resumed=known is not None,
        )
    finally:
        await store.close()


def trace(world: World) -> str:
    """A digest of everything that happened at the provider."""
    model = world.model
    text = repr([(b.id, b.status, b.charge, round(b.created_at, 6)) for b in model.batches.values()])
    return hashlib.sha256(text.encode()).hexdigest()
