"""Several processes of the real service on one virtual clock: what each does is told step by step, not drawn from a seed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import workload

from sluicegate.adapters.blobs import FolderBlobs
from sluicegate.adapters.counters import default_counter
from sluicegate.adapters.store import SqlStore
from sluicegate.adapters.workers import InlineWorkers
from sluicegate.core.lifecycle import Stage
from sluicegate.core.report import Event, RunResult
from sluicegate.core.rows import PartRow, RunRow
from sluicegate.core.rules import CheckRules
from sluicegate.core.types import Dialect
from sluicegate.emulator.config import Account
from sluicegate.ports import Backend, Clock
from sluicegate.service import prepare, runs
from sluicegate.service.context import Context, Policy
from sluicegate.service.names import lock_name
from tests.simulation.world import Deaths, ModelBackend, SeededIds, VirtualClock, VirtualLoop, World

ACCOUNT = Account(limit=20_000, rate=6_000, validating_s=4, start_s=2, finalizing_s=1, headers=False)
REQUESTS = 120
HOURS = 40_000.0


class Locks:
    """OS locks of one process among several."""

    def __init__(self, shared: dict[str, str], me: str) -> None:
        self._shared, self._me = shared, me

    def acquire(self, name: str) -> bool:
        return self._shared.setdefault(name, self._me) == self._me

    def is_free(self, name: str) -> bool:
        return name not in self._shared

    def taken(self) -> frozenset[str]:
        return frozenset(self._shared)

    def release(self, name: str) -> None:
        if self._shared.get(name) == self._me:
            del self._shared[name]


class Plain(ModelBackend):
    """The provider as a process sees it; a test overrides the call that it wants to go wrong."""

    def __init__(self, world: World) -> None:
        super().__init__(world, Deaths(None, after=False))


class Machine:
    """One machine: a data folder, an input of 120 requests, and the processes that run there."""

    def __init__(self, folder: Path, account: Account = ACCOUNT) -> None:
        (folder / "provider").mkdir(parents=True)
        self.folder = folder
        self.source = folder / "requests.jsonl"
        workload.write(self.source, requests=REQUESTS, tokens=50_000, largest=2_000)
        self.world = World(account, folder / "provider")
        self.locks: dict[str, str] = {}
        self.heard: list[Event] = []

    def process(
        self, name: str, backend: Backend | None = None, *, state: str = "state", clock: Clock | None = None,
        **policy: Any,
    ) -> Context:  # fmt: skip
        """A process that has started and done nothing yet."""
        blobs = FolderBlobs(self.folder / state, inline=True)
        return Context(
            clock=clock or VirtualClock(), ids=SeededIds(name),
            store=SqlStore(self.folder / state / "s.sqlite3", inline=True), blobs=blobs, workers=InlineWorkers(),
            lock=Locks(self.locks, f"{state}-{name}"), backend=backend or Plain(self.world), counter=default_counter,
            policy=replace(Policy(poll_s=2.0, poll_max_s=30.0), **policy), instance=name, listen=self.heard.append,
        )  # fmt: skip

    async def run(
        self, ctx: Context, *, stop: asyncio.Event | None = None, ways: runs.Ways | None = None, show: bool = False
    ) -> RunResult:
        """`sluicegate run` of the input in that process."""
        request = self.request()
        started_at = ctx.clock.now()
        copied = await prepare.copy_inputs(ctx, request, None)
        digest = prepare.digest_of(copied)
        known = await prepare.known_run(ctx, request, digest)
        if known is None:
            inspection = await prepare.check(ctx, request, copied, CheckRules(dialect=Dialect.AZURE), None)
            row = await prepare.enter(ctx, request, copied, inspection, digest)
        else:
            row = known
            if ctx.lock.acquire(lock_name(known.id)):
                row = await prepare.resume(ctx, request, known)
                ctx.lock.release(lock_name(known.id))
        return await runs.perform(
            ctx, row, ways=ways or runs.Ways(), stop=stop or asyncio.Event(),
            show=(lambda progress: None) if show else None, started_at=started_at, resumed=known is not None,
        )  # fmt: skip

    def request(self, **more: Any) -> prepare.Request:
        """What the person asks for."""
        limit = self.world.model.deployments.limit("m0-batch")
        return prepare.Request(
            inputs=(str(self.source),), output=self.folder / "out.jsonl", errors=self.folder / "errors.jsonl",
            **{"cap": limit} | more,
        )  # fmt: skip

    def answers(self) -> int:
        """Lines of the output file."""
        return len((self.folder / "out.jsonl").read_text().splitlines())


async def kill(process: asyncio.Future[Any]) -> None:
    """End a process in the middle of whatever it does; its locks are freed by the test."""
    process.cancel()
    await asyncio.gather(process, return_exceptions=True)


async def parts(ctx: Context, *stages: Stage) -> list[PartRow]:
    """The parts of a data folder, in these stages or in any."""
    return await ctx.store.transact(lambda tx: tx.parts(**({"stages": frozenset(stages)} if stages else {})))


async def stages(ctx: Context) -> Counter[Stage]:
    """How many parts are in which stage."""
    return Counter(part.stage for part in await parts(ctx))


async def the_run(ctx: Context) -> RunRow:
    """The one run of a data folder."""
    (row,) = await ctx.store.transact(lambda tx: tx.runs())
    return row


async def until(condition: Any, seconds: float = 600.0) -> None:
    """Wait until an async condition holds, in virtual time."""
    for _ in range(int(seconds / 0.05)):
        if await condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never came to be")


def play(story: Coroutine[Any, Any, None]) -> None:
    """Tell a story on a loop whose time is virtual."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(asyncio.wait_for(story, HOURS))
    finally:
        loop.close()
