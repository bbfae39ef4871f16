"""The gateway's desk: takes clients' batches from ``validating`` to their end, with the same driver that ``run`` uses.

Requests of clients only write rows; this loop reads them (D6). It drives runs that belong to a tenant, never those of a
``sluicegate run`` on the same folder. Everything in memory is derived from the rows, so a restart goes on (D12).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sluicegate.core.fairness import in_turn
from sluicegate.core.lifecycle import UNDER_WAY, RunState
from sluicegate.core.report import Event, EventKind, Progress
from sluicegate.core.rules import CheckRules
from sluicegate.core.tenancy import OPEN, ClientBatchRow
from sluicegate.core.types import BatchStatus
from sluicegate.errors import (
    AuthenticationFailed,
    BackendError,
    Interrupted,
    SluicegateError,
)
from sluicegate.ports import RemoteBlobs, Tx, Workers
from sluicegate.service import prepare, runs, watcher
from sluicegate.service.context import Context
from sluicegate.service.ending import CANCELLED, EXPIRED, Ending
from sluicegate.service.names import live_runs
from sluicegate.service.retention import Retention
from sluicegate.service.validation import Validation

LOG = logging.getLogger("sluicegate.gateway")

TURN_S: Final = 1.0
SWEEP_S: Final = 10.0
SHARE: Final = 0.1
"""Of its time a gateway turns at most, though it rests no longer than :data:`TURN_S`: with thousands of open batches a turn
takes a while."""

SWEEP_SHARE: Final = 0.5
"""Of its time a gateway sweeps at most. What is due is deleted one by one, between the transactions of others; with a small
share a sweep that took long would be followed by a rest in which more falls due than the next can delete in as much time,
and what is kept would grow without end."""

SWEEP: Final = "sweep"
STALLED_S: Final = 60.0
"""A driver shows where it stands every few seconds; one that has not for so long hangs."""

BEGIN_S: Final = 300.0
"""A driver shows itself first within this: it may have to read much of what came home before."""

LONG_S: Final = 900.0
"""A check, a sweep or the handing over of results that takes longer hangs."""

CHECKS: Final = 2
"""Input files that are checked at the same time."""

FETCHES: Final = 8
"""Blobs that are fetched at the same time, and one more of each tenant that has none under way: storage that hangs holds
up its own tenant only."""

SHOWN_S: Final = 5.0
"""How often a driver says where its batch stands: an expectation of minutes need not be newer."""

AGAIN_S: Final = 5.0
AGAIN_MOST_S: Final = 60.0

DESK: Final = "gateway"
"""The lock of the process that serves a data folder's gateway."""

UNREACHABLE: Final = "the provider cannot be reached or does not answer as it should; it is asked again"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskPolicy:
    """How clients' batches are treated.

    Attributes:
        active_max: Batches that are driven at once, and one more of each tenant that has none; others wait their turn,
            tenants taking turns.
        keep_s: How long ended batches, their result files and their parts are kept, and inputs after their last use.
        blob_bytes_max: The largest input that is fetched from remote storage.
        litter_s: How long a blob is kept that no row names.
        strict: Refuse what the provider alone would refuse.
        expire: True: a batch ends at its due time (OpenAI's way). False: it goes on (Azure's way).
    """

    active_max: int = 64
    expire: bool = True
    strict: bool = False
    keep_s: float = 2_592_000.0
    litter_s: float = 86_400.0
    blob_bytes_max: int = 536_870_912


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where a driven batch stands, what its driver's trouble is, in words, and its place among its tenant's that wait."""

    progress: Progress | None = None
    trouble: str | None = None
    position: int | None = None


class Desk:
    """All open batches of the gateway in this process.

    Args:
        rules: What input files are checked against.
        checkers: Where that is done: processes, so that a large file does not slow the answers to others.
        remote: Storage that clients may name, None if there is none.
        fits: (tx, batch, requests, tokens) → why a fetched input is more than its tenant may have open, or None.
    """

    def __init__(
        self, ctx: Context, rules: CheckRules, policy: DeskPolicy, checkers: Workers | None = None,
        remote: RemoteBlobs | None = None,
        fits: Callable[[Tx, ClientBatchRow, int, int], str | None] = lambda tx, batch, requests, tokens: None,
    ) -> None:  # fmt: skip
        self._ctx, self._rules, self._policy = ctx, rules, policy
        self.validation = Validation(
            ctx, rules, strict=policy.strict, bytes_max=policy.blob_bytes_max, checkers=checkers, remote=remote,
            fits=fits,
        )  # fmt: skip
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._fetches: dict[str, asyncio.Task[None]] = {}
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._drives: dict[str, asyncio.Task[None]] = {}
        self._joins: dict[str, asyncio.Task[None]] = {}
        self._sweeps: dict[str, asyncio.Task[None]] = {}
        self._again: dict[str, tuple[float, float]] = {}
        self._runs: dict[str, str] = {}
        self._refused: set[str] = set()
        self._stalled: set[str] = set()
        self._signs: dict[str, tuple[str, float, float]] = {}
        self._troubled: set[str] = set()
        self._positions: dict[str, int] = {}
        self._sight = watcher.Sight()
        self.progress: dict[str, Progress] = {}
        self._turned = time.monotonic()
        self._sweep_at = 0.0
        self._ending = Ending(ctx, remote, keep_s=policy.keep_s)
        self._retention = Retention(ctx, keep_s=policy.keep_s, litter_s=policy.litter_s)

    def wake(self) -> None:
        """Something changed: look now."""
        self._wake.set()

    @property
    def idle_s(self) -> float:
        """Seconds since the loop last turned; more than a few mean that it hangs or is dead."""
        return time.monotonic() - self._turned

    @property
    def driven(self) -> int:
        """How many batches are driven now."""
        return len(self._drives)

    @property
    def refused_credentials(self) -> bool:
        """True if the provider refused the gateway's credentials when it was last asked for some batch."""
        return bool(self._refused)

    def stalled(self) -> dict[str, list[str]]:
        """What has given no sign of life for too long: ids by kind (drivers, checks, sweep); each is logged once."""
        now = time.monotonic()
        found: dict[str, list[str]] = {}
        for id_, (kind, since, most_s) in self._signs.items():
            if now - since > most_s:
                found.setdefault(kind, []).append(id_)
                if id_ not in self._stalled:
                    LOG.error("%s: %s has given no sign of life for %.0f s", kind, id_, now - since)
        self._stalled = {id_ for ids in found.values() for id_ in ids}
        return found

    def _sign(self, id_: str, kind: str, most_s: float) -> None:
        """A sign of life of a task; the next one, or its end, comes within ``most_s``."""
        self._signs[id_] = kind, time.monotonic(), most_s

    def batch_of(self, run: str | None) -> str | None:
        """The client's batch whose work a run does, while it is driven."""
        return self._runs.get(run or "")

    def outlook(self, batch: str) -> Outlook:
        """What this process knows of a batch beyond its row."""
        trouble = UNREACHABLE if batch in self._troubled else None
        return Outlook(self.progress.get(batch), trouble, self._positions.get(batch))

    def heard(self, event: Event) -> None:
        """Take note of what happens to the work: trouble with the provider is a reason to wait."""
        batch = self.batch_of(event.run)
        if batch is not None and event.kind is EventKind.TROUBLE:
            self._troubled.add(batch)
        elif batch is not None:
            self._troubled.discard(batch)

    async def begin(self) -> None:
        """Clear away what a gateway that died left half done; before requests are answered."""
        await self._retention.drop_begun()

    async def run(self) -> None:
        """Turn until :meth:`stop`; then wait until what was begun is at a safe point."""
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            self._wake.clear()
            began = loop.time()
            try:
                await self._turn()
            except Exception:
                LOG.exception("a turn of the gateway's desk failed")
            else:
                self._turned = time.monotonic()
            rest_s = min(TURN_S, (loop.time() - began) * (1 / SHARE - 1))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), rest_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TURN_S - rest_s)
        broken_off = [*self._fetches.values(), *self._checks.values()]
        for task in broken_off:
            task.cancel()
        left = [*broken_off, *self._drives.values(), *self._joins.values(), *self._sweeps.values()]
        await asyncio.gather(*left, return_exceptions=True)

    def stop(self) -> None:
        """End :meth:`run`: checks are broken off, drivers stop at a safe point; the next start goes on."""
        self._stop.set()
        self._wake.set()

    async def _turn(self) -> None:
        # Whoever is at work on a batch may end it after it was read here: it is looked at anew in the turn after that.
        busy = frozenset((*self._fetches, *self._checks, *self._drives))
        open_, begun = await self._ctx.store.transact(lambda tx: (tx.find(ClientBatchRow, status=OPEN), _begun(tx)))
        now = self._ctx.clock.now()
        for batch in open_:
            if batch.status is BatchStatus.FINALIZING:
                continue  # nothing of it is left to be broken off
            if self._policy.expire and now >= batch.due_at:
                await self._close(batch, EXPIRED)
            elif batch.status is BatchStatus.CANCELLING:
                await self._close(batch, CANCELLED)
        ready = [b for b in open_ if b.id not in busy and now >= self._again.get(b.id, (0.0, 0.0))[0]]
        fresh = [
            b for b in ready
            if b.status is BatchStatus.VALIDATING and b.run is None and not (self._policy.expire and now >= b.due_at)
        ]  # fmt: skip
        for batch in _turns([b for b in fresh if _abroad(b)], self._fetches, open_, FETCHES, one_each=True):
            self._start(self._fetches, batch.id, partial(self._fetch, batch))
        for batch in _turns([b for b in fresh if not _abroad(b)], self._checks, open_, CHECKS):
            self._start(self._checks, batch.id, partial(self.validation.check, batch))
        entered = [b for b in ready if b.run is not None]
        # What has parts under way keeps its lane, also after trouble or a restart: others wait for the room that they take.
        lanes = {b.id: b for b in open_ if b.id in self._drives or b.run in begun}
        going_on = [b for b in entered if b.id in lanes]
        for batch in (*going_on, *_turns(entered, lanes, open_, self._policy.active_max, one_each=True)):
            self._start(self._drives, batch.id, partial(self._drive, batch))
        self._line_up(open_)
        if now >= self._sweep_at and not self._sweeps:
            self._sweep_at = now + SWEEP_S
            self._start(self._sweeps, SWEEP, self._sweep)

    async def _sweep(self) -> None:
        began = asyncio.get_running_loop().time()
        try:
            await self._retention.sweep()
        finally:
            took_s = asyncio.get_running_loop().time() - began
            self._sweep_at = max(self._sweep_at, self._ctx.clock.now() + took_s * (1 / SWEEP_SHARE - 1))

    def _line_up(self, open_: list[ClientBatchRow]) -> None:
        """Note each batch's place among those of its tenant that have requests waiting, in the order of :mod:`fairness`."""
        self._positions = {}
        places: dict[str, int] = {}
        for batch in sorted(open_, key=lambda b: (b.due_at, b.created_at, b.id)):
            progress = self.progress.get(batch.id)
            if batch.status is BatchStatus.IN_PROGRESS and (progress is None or progress.waiting):
                places[batch.tenant] = self._positions[batch.id] = places.get(batch.tenant, 0) + 1

    def _start(
        self, tasks: dict[str, asyncio.Task[None]], id_: str, work: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:  # fmt: skip
        async def guarded() -> None:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - the edge of a task: kept as the batch's reason, tried again
                await self._trouble(id_, error)
            finally:
                tasks.pop(id_, None)
                self._signs.pop(id_, None)
                self._wake.set()

        if tasks is self._drives:
            self._sign(id_, "drivers", BEGIN_S)
        else:
            self._sign(id_, SWEEP if tasks is self._sweeps else "checks", LONG_S)
        tasks[id_] = asyncio.get_running_loop().create_task(guarded())

    async def _trouble(self, id_: str, error: Exception) -> None:
        """The provider's or the machine's trouble is a reason to wait, never a client's error."""
        known = isinstance(error, SluicegateError)
        LOG.warning("batch %s waits: %s: %s", id_, type(error).__name__, error, exc_info=not known)
        if isinstance(error, AuthenticationFailed):
            self._refused.add(id_)
        pause = min(AGAIN_MOST_S, 2 * self._again.get(id_, (0.0, AGAIN_S / 2))[1])
        self._again[id_] = (self._ctx.clock.now() + pause, pause)
        reason = REASONS.get(type(error).__name__, "the provider does not answer" if isinstance(error, BackendError)
                             else "the gateway could not go on")  # fmt: skip
        text = f"{reason}; tried again every {pause:,.0f} s or less"
        await self._ctx.store.transact(lambda tx: tx.amend(ClientBatchRow, id_, reason=text))

    async def _fetch(self, batch: ClientBatchRow) -> None:
        await self.validation.bring(batch)
        self._again.pop(batch.id, None)

    async def _close(self, batch: ClientBatchRow, closing: str) -> None:
        """End a batch early: at once if nothing was entered yet, else by closing its run."""
        now = self._ctx.clock.now()
        if batch.id in self._fetches:
            self._fetches[batch.id].cancel()  # nobody needs it any more; the next turn ends the batch

        def write(tx: Tx) -> None:
            (row,) = tx.find(ClientBatchRow, id=batch.id)
            if row.run is not None:
                run = tx.run(row.run)
                if run is not None and run.closing is None and not run.state.final:
                    tx.update_run(run.id, closing=closing)
            elif batch.id not in self._checks and batch.id not in self._fetches:
                status = BatchStatus.EXPIRED if closing is EXPIRED else BatchStatus.CANCELLED
                tx.amend(ClientBatchRow, batch.id, {"run": None, "status": OPEN}, status=status, ended_at=now)

        await self._ctx.store.transact(write)

    # -- in progress ---------------------------------------------------------------------------------------------------

    async def _drive(self, batch: ClientBatchRow) -> None:
        ctx = self._ctx
        assert batch.run is not None, "only checked batches are driven"
        run = await ctx.store.transact(lambda tx: tx.run(batch.run or ""))
        assert run is not None, "a batch's run is deleted with the batch only"
        self._runs[run.id] = batch.id
        try:
            if run.state is not RunState.FINISHED:
                names = prepare.names_text(self._rules.names)
                if run.names != names:  # the settings have changed: what still waits goes where they say now
                    await ctx.store.transact(lambda tx: tx.update_run(run.id, names=names))
                resumed = batch.id in self._again or bool(await ctx.store.transact(lambda tx: tx.parts(run=run.id)))
                await runs.perform(
                    ctx, run, ways=runs.Ways(new=True), stop=self._stop, started_at=batch.created_at, resumed=resumed,
                    show=lambda progress: self._shown(batch.id, progress), show_s=SHOWN_S, sight=self._sight,
                )  # fmt: skip
            self._sign(batch.id, "drivers", LONG_S)
            await self._ending.end(batch, run.id)
        except Interrupted:
            return
        finally:
            self.progress.pop(batch.id, None)
            self._runs.pop(run.id, None)
            self._troubled.discard(batch.id)
        self._again.pop(batch.id, None)
        self._refused.discard(batch.id)

    def _shown(self, id_: str, progress: Progress) -> None:
        self.progress[id_] = progress
        self._sign(id_, "drivers", STALLED_S)
        self._refused.discard(id_)
        if progress.done + progress.failed == progress.total and id_ not in self._joins:
            self._start(self._joins, id_, partial(self._joining, id_, progress))

    async def _joining(self, id_: str, progress: Progress) -> None:
        """Every request has its answer; what is left is to write the results."""
        now = self._ctx.clock.now()

        def write(tx: Tx) -> None:
            (batch,) = tx.find(ClientBatchRow, id=id_)
            run = tx.run(batch.run or "")
            if run is not None and run.closing is None:
                tx.amend(
                    ClientBatchRow, id_, {"status": BatchStatus.IN_PROGRESS}, status=BatchStatus.FINALIZING,
                    finalizing_at=now, completed=progress.done, failed=progress.failed,
                )  # fmt: skip

        await self._ctx.store.transact(write)


REASONS: Final = {
    "AuthenticationFailed": "the provider refuses the gateway's credentials",
    "Throttled": "the provider asks the gateway to slow down",
    "StateUnusable": "the gateway's data folder cannot be used",
    "CostLimitExceeded": "the gateway's cost limit is reached",
    "BlobUnavailable": "the blob storage does not answer",
}
"""What a client reads of trouble: our words, so that no key, endpoint or text of the provider's gets out."""


async def open_runs(ctx: Context) -> frozenset[str]:
    """Runs whose waiting requests a quota row counts: those that living processes drive, and all of tenants.

    Asked by the gateway, which drives all of its tenants' runs sooner or later.
    """
    unfinished = await ctx.store.read(lambda tx: tx.runs(unfinished=True))
    return live_runs(ctx) | {run.id for run in unfinished if run.tenant is not None}


def _begun(tx: Tx) -> frozenset[str]:
    """Runs that have parts under way."""
    return frozenset(part.run for part in tx.parts(stages=UNDER_WAY))


def _abroad(batch: ClientBatchRow) -> bool:
    """Whether its input is still in remote storage."""
    return batch.input_blob is not None and not batch.input


def _turns(
    waiting: list[ClientBatchRow], tasks: Mapping[str, object], open_: list[ClientBatchRow], most: int, *,
    one_each: bool = False,
) -> list[ClientBatchRow]:  # fmt: skip
    """Whose turn it is in a lane for ``most`` batches, of which ``tasks`` are under way."""
    busy = Counter(batch.tenant for batch in open_ if batch.id in tasks)
    return in_turn([b for b in waiting if b.id not in tasks], busy, room=most - len(tasks), one_each=one_each)
