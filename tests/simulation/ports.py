"""The ports of one simulated process: every call is a failpoint, and the network may lose, delay and break."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

from sluicegate.adapters.blobs import FolderBlobs
from sluicegate.adapters.store import SqlStore
from sluicegate.core import submission
from sluicegate.core.lifecycle import Stage
from sluicegate.core.rows import PartRow, ResourceRow
from sluicegate.core.tenancy import ClientBatchRow
from sluicegate.errors import (
    CallRefused,
    Conflict,
    FileQuotaExceeded,
    OutcomeUnknown,
    StateUnusable,
    Throttled,
    Unavailable,
)
from tests.simulation.plan import Plan
from tests.simulation.wire import FAULTS_HERE, KINDS_HERE, WireWorld
from tests.simulation.world import Deaths, Died, ModelBackend, VirtualClock, World


@dataclass
class Trace:
    """What happened, in order, and what of the code it covered.

    Attributes:
        held: Provider batch → part, of all batches that our rows ever named; ``held_at``: since when.
        twinned: Metadata keys of creates that the provider committed twice.
        damaged: Downloads that were damaged, by file.
        trouble_at: When the last death or fault was, loop time.
        was_full: Some disk was.
        books: Who watches commits and looks.
        aim: Where the next one who comes there dies, once.
    """

    lines: list[str] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    points: set[str] = field(default_factory=set)
    transitions: set[str] = field(default_factory=set)
    calls: Counter[str] = field(default_factory=Counter)
    held: dict[str, str] = field(default_factory=dict)
    held_at: dict[str, float] = field(default_factory=dict)
    damaged: Counter[str] = field(default_factory=Counter)
    twinned: set[str] = field(default_factory=set)
    trouble_at: float = 0.0
    was_full: bool = False
    books: Any = None
    aim: str | None = None

    def trouble(self) -> None:
        """Something was done to the world just now."""
        self.trouble_at = asyncio.get_running_loop().time()

    def add(self, text: str) -> None:
        self.lines.append(f"{asyncio.get_running_loop().time():12.4f} {text}")


class Fate:
    """One life of a process: it dies at one port call, and then touches nothing any more.

    Attributes:
        was_refused, was_full: A create of it was refused for good; its disk was full.
    """

    def __init__(self, name: str, trace: Trace, at: int, how: str) -> None:
        self.name, self.trace, self.at, self.how = name, trace, at, how
        self.stop = asyncio.Event()
        self.gone = asyncio.Event()
        self.calls = 0
        self.dead = False
        self.was_refused = False
        self.was_full = False

    def enter(self, point: str) -> int:
        if self.dead:
            raise Died
        self.calls += 1
        self.trace.points.add(point)
        self.trace.add(f"{self.name} {point}")
        if self.calls == self.at and self.how == "stop":
            self.trace.deaths["stop"] += 1
            self.trace.trouble()
            self.stop.set()
        if self.calls == self.at and (self.how == "before" or (self.how in ("torn", "full") and point not in WRITERS)):
            self.die(f"{point}:before")
        self._meet(f"{point}:before")
        return self.calls

    def leave(self, number: int, point: str) -> None:
        if self.dead:
            raise Died
        if number == self.at and self.how == "after":
            self.die(f"{point}:after")
        self._meet(f"{point}:after")

    def _meet(self, point: str) -> None:
        if point == self.trace.aim:
            self.trace.aim = None
            self.die(point)

    def fill(self, point: str) -> None:
        """Its disk is full."""
        self.trace.deaths[f"{point}:full"] += 1
        self.trace.trouble()
        self.was_full = self.trace.was_full = True

    def die(self, point: str) -> None:
        self.dead = True
        self.gone.set()
        self.trace.deaths[point] += 1
        self.trace.trouble()
        self.trace.add(f"{self.name} DIES {point}")
        raise Died


class Locks:
    """OS locks of one process; the system frees those of the dead."""

    def __init__(self, shared: dict[str, Fate], me: Fate) -> None:
        self._shared, self._me = shared, me

    def acquire(self, name: str) -> bool:
        owner = self._shared.get(name)
        if owner is not None and owner is not self._me and not owner.dead:
            return False
        self._shared[name] = self._me
        return True

    def is_free(self, name: str) -> bool:
        owner = self._shared.get(name)
        return owner is None or owner.dead

    def taken(self) -> frozenset[str]:
        return frozenset(name for name in self._shared if not self.is_free(name))

    def release(self, name: str) -> None:
        if self._shared.get(name) is self._me:
            del self._shared[name]


class _Tx:
    def __init__(self, tx: Any, fate: Fate) -> None:
        self._tx, self._fate, self._trace = tx, fate, fate.trace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)

    def insert(self, *rows: Any) -> None:
        self._tx.insert(*rows)
        for row in rows:
            if isinstance(row, PartRow) and row.stage is Stage.RESERVED:
                self._trace.books.reserved(self._tx, row)

    def put_resource(self, row: ResourceRow) -> None:
        self._tx.put_resource(row)
        if row.listing_until:
            self._trace.books.look_began(self._fate, VirtualClock().now())
        else:
            self._trace.books.look_ended(self._fate)

    def update_run(self, run: str, **changes: Any) -> None:
        before = self._tx.run(run) if "state" in changes else None
        self._tx.update_run(run, **changes)
        if before is not None and before.state is not changes["state"]:
            self._trace.transitions.add(f"run {before.state}>{changes['state']}")

    def amend(self, kind: Any, key: str, /, given: Any = None, **changes: Any) -> bool:
        watched = kind is ClientBatchRow and "status" in changes
        before = self._tx.find(kind, id=key) if watched else []
        done: bool = self._tx.amend(kind, key, given, **changes)
        if done and before and before[0].status is not changes["status"]:
            self._trace.transitions.add(f"batch {before[0].status}>{changes['status']}")
        return done

    def move_part(self, part: str, before: Stage, after: Stage, **changes: Any) -> bool:
        moved: bool = self._tx.move_part(part, before, after, **changes)
        if moved:
            if after is Stage.HELD:
                self._trace.held[changes["provider_batch"]] = part
                self._trace.held_at[changes["provider_batch"]] = VirtualClock().now()
            self._trace.transitions.add(f"{before}>{after}")
            self._trace.add(f"  {part} {before} -> {after}")
        return moved


class Store:
    """The real store: a process dies before or after a commit, and the books are compared after each."""

    def __init__(self, store: SqlStore, fate: Fate, check: Callable[[], None]) -> None:
        self._store, self._fate, self._check = store, fate, check

    async def transact(self, function: Any, /) -> Any:
        await asyncio.sleep(0)  # another process may come in between
        number = self._fate.enter("commit")
        result = await self._store.transact(lambda tx: function(_Tx(tx, self._fate)))
        self._check()
        self._fate.leave(number, "commit")
        return result

    async def version(self) -> tuple[int, int]:
        if self._fate.dead:
            raise Died
        return await self._store.version()

    async def read(self, function: Callable[[Any], Any]) -> Any:
        if self._fate.dead:
            raise Died
        return await self._store.read(function)

    async def close(self) -> None:
        return None


class Blobs:
    """The real folder, with torn writes and a full disk."""

    def __init__(self, folder: Path, fate: Fate) -> None:
        self._real, self._fate = FolderBlobs(folder, inline=True), fate

    def path(self, key: str) -> Path:
        return self._real.path(key)

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        number = self._fate.enter("write")
        if number == self._fate.at and self._fate.how == "full":
            self._fate.fill("write")
            raise StateUnusable("the disk is full")
        if number == self._fate.at and self._fate.how == "torn":
            content = b"".join([chunk async for chunk in chunks])
            self.path(key).with_name(f"{self.path(key).name}.torn.tmp").write_bytes(content[: len(content) // 2])
            self._fate.die("write:torn")
        size = await self._real.write(key, chunks)
        self._fate.leave(number, "write")
        return size

    def keys(self, folder: str) -> list[str]:
        return self._real.keys(folder)

    async def delete(self, *keys: str) -> None:
        number = self._fate.enter("unlink")
        await self._real.delete(*keys)
        self._fate.leave(number, "unlink")


WRITERS: Final = frozenset({"write", "work.assemble", "work.match", "work.advance", "work.copy_in_sync"})
"""Where a file is written that can be torn or find the disk full."""

CHECKS: Final = "work.scan_range"
"""Which takes as long as the plan says."""

TORN_BYTES: Final = 7
"""Lost at the end of what was written and not yet synced: less than any line."""


class Workers:
    """Inline, each function a failpoint of its own name; those that write may die, or find the disk full, before they sync."""

    width = 1

    def __init__(self, fate: Fate, check_s: float = 0.0) -> None:
        self._fate, self._check_s = fate, check_s

    async def run(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        point = f"work.{getattr(getattr(function, 'func', function), '__name__', 'call')}"
        fate = self._fate
        number = fate.enter(point)
        hit = number == fate.at and point in WRITERS and fate.how in ("torn", "full")
        with mock.patch("os.fsync", partial(self._sync, point)) if hit else nullcontext():
            result = function(*args, **kwargs)
        if point == CHECKS and self._check_s:
            await asyncio.sleep(self._check_s)
        fate.leave(number, point)
        return result

    def _sync(self, point: str, file: int) -> None:
        if self._fate.how == "torn":
            os.ftruncate(file, max(0, os.fstat(file).st_size - TORN_BYTES))
            self._fate.die(f"{point}:torn")
        self._fate.fill(point)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    blocking = run

    async def close(self) -> None:
        return None


class Network:
    """The Backend port of one process, in front of the World that all share."""

    def __init__(self, world: World | WireWorld, plan: Plan, fate: Fate) -> None:
        self._inner: Any = (
            world.backend() if isinstance(world, WireWorld) else ModelBackend(world, Deaths(None, after=False))
        )
        self._plan, self._fate = plan, fate
        self.resource, self.dialect = self._inner.resource, self._inner.dialect

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._call(name, *args, **kwargs)

        return call

    def _fault(self, op: str) -> str | None:
        calls = self._fate.trace.calls
        calls[op] += 1
        kind = next((kind for call, nth, kind in self._plan.faults if (call, nth) == (op, calls[op])), None)
        if kind is not None:
            self._fate.trace.trouble()
        return None if self._plan.wire and op in FAULTS_HERE and kind in KINDS_HERE else kind

    async def _call(self, op: str, /, *args: Any, **kwargs: Any) -> Any:
        number = self._fate.enter(op)
        fault = self._fault(op)
        writes = op in ("create", "upload")
        if op == "list_batches":
            try:
                found = await self._answered(op, number, fault, writes, *args, **kwargs)
            except BaseException:
                self._fate.trace.books.list_answered(self._fate, failed=True)
                raise
            self._fate.trace.books.list_answered(self._fate, failed=False)
            return found
        return await self._answered(op, number, fault, writes, *args, **kwargs)

    async def _answered(
        self, op: str, number: int, fault: str | None, writes: bool, /, *args: Any, **kwargs: Any
    ) -> Any:
        if fault:
            self._fate.trace.add(f"{self._fate.name} {op} FAULT {fault}")
        if fault == "429":
            raise Throttled("slow down", retry_after_s=3.0)
        if fault in ("503", "reset"):
            raise OutcomeUnknown("reset") if writes else Unavailable("503", status=503)
        if fault == "409":
            raise Conflict("it cannot be cancelled now", status=409)
        if fault == "quota":
            raise FileQuotaExceeded("the resource has as many files as it may", status=400)
        if fault == "400":
            self._fate.was_refused = True
            raise CallRefused("something is wrong today", status=400)

        async def later() -> Any:
            await asyncio.sleep({"late": 1.5, "delay": 20.0}.get(fault or "", 0.0))
            if fault in ("twice", "twice_lost"):
                if op == "create":
                    self._fate.trace.twinned.add(kwargs["metadata"][submission.KEY])
                await getattr(self._inner, op)(*args, **kwargs)
            return await getattr(self._inner, op)(*args, **kwargs)

        # What was sent arrives whether or not the sender lives.
        sent = asyncio.ensure_future(later())
        sent.add_done_callback(lambda task: task.cancelled() or task.exception())
        if fault == "late":
            raise OutcomeUnknown("no answer in time")
        result = await asyncio.shield(sent)
        if fault is not None:
            self._fate.trace.trouble()  # the answer is late
        if op == "file" and result.status != "processed":
            self._fate.trace.trouble()
        if fault in ("lost", "twice_lost"):
            raise OutcomeUnknown("the answer was lost") if writes else Unavailable("the answer was lost")
        self._fate.leave(number, op)
        return result

    async def download(self, file_id: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        number = self._fate.enter("download")
        fault = self._fault("download")
        if fault in ("truncated", "corrupt"):
            self._fate.trace.damaged[file_id] += 1
        if fault == "503":
            raise Unavailable("503", status=503)
        async for chunk in self._inner.download(file_id, offset=offset):
            if fault == "truncated":
                chunk = chunk[: len(chunk) // 2]
            if fault == "corrupt" and chunk:
                chunk = chunk[: len(chunk) // 2] + bytes([chunk[len(chunk) // 2] ^ 0x80]) + chunk[len(chunk) // 2 + 1 :]
            if fault == "broken" and len(chunk) > 1:
                yield chunk[: len(chunk) // 2]
                raise Unavailable("broken off")
            yield chunk
        self._fate.leave(number, "download")

    async def deployment_limit(self, deployment: str) -> int | None:
        return None
