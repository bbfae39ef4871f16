"""Planted bugs, each a patch of one named function, to show that the simulation can fail."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final
from unittest import mock

from sluicegate.adapters.transaction import SqlTx
from sluicegate.core import submission
from sluicegate.core.ledger import Dimension, Entry, Verb
from sluicegate.core.lifecycle import Stage
from sluicegate.core.types import BatchStatus
from sluicegate.core.waiting import Spans
from sluicegate.errors import OutcomeUnknown, ProviderRefused
from sluicegate.service import collector, output, prepare, runs, scheduler, submitter, watcher
from sluicegate.service.assemble import id_span
from sluicegate.web import batches
from sluicegate.web.auth import Caller
from tests.simulation.ports import Locks

_observe, _hold, _match, _standing = watcher._observe, submitter.hold, collector.match, scheduler.standing
_enter, _amend = prepare.enter, SqlTx.amend
_close, _create, _add, _line = scheduler.close, submitter._create, output.Joiner.add, output.Joiner._line
_again, _perform, _turn = submitter.waits_again, runs.perform, scheduler.turn


def _release_when(early: Callable[..., bool]) -> Any:
    def observe(tx: Any, ctx: Any, record: Any, part: Any, batch: Any, now: float, **how: Any) -> None:
        if not batch.status.terminal and early(part, batch, now):
            scheduler.close(tx, part, Verb.RELEASE, now)
        _observe(tx, ctx, record, part, batch, now, **how)

    return observe


async def _create_first(ctx: Any, work: Any, part: Any) -> None:
    attempt = part.attempt + 1
    told = submission.metadata(part.id, attempt, work.run.digest)
    answer = await ctx.backend.create(input_file_id=part.file_id, endpoint=part.url, metadata=told)
    changes = {"attempt": attempt, "intent_at": ctx.clock.now()}
    await ctx.store.transact(lambda tx: tx.move_part(part.id, Stage.RESERVED, Stage.SUBMITTING, **changes))
    await _hold(ctx, part.id, answer)


async def _settle_blindly(ctx: Any, part: Any) -> None:
    await ctx.store.transact(lambda tx: tx.move_part(part.id, Stage.SUBMITTING, Stage.RESERVED))


async def _settle_without_deleting(ctx: Any, part: Any) -> None:
    found = await submitter._look_for(ctx, part, part.intent_at)
    if found.batch is None:
        await _settle_blindly(ctx, part)
    else:
        await _hold(ctx, part.id, submitter.Accepted(batch=found.batch))


class _Retrying:
    """A back end that repeats a create whose answer is missing, as SDKs do by default."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def create(self, **given: Any) -> Any:
        try:
            return await self._real.create(**given)
        except OutcomeUnknown:
            return await self._real.create(**given)


async def _retry_create(ctx: Any, work: Any, part: Any) -> None:
    await _create(replace(ctx, backend=_Retrying(ctx.backend)), work, part)


async def _stalling_start(ctx: Any, run: Any, **given: Any) -> Any:
    await ctx.clock.sleep(40.0)
    return await _perform(ctx, run, **given)


def _salvage_all(task: Any) -> Any:
    found = _match(task)
    return replace(found, again=str(Spans.of(task.positions))) if found.missing or found.again else found


def _ignore_held(*args: Any) -> Any:
    stands = _standing(*args)
    return replace(stands, balance=replace(stands.balance, held=0), parts=[])


def _hold_as_void(tx: Any, part: Any, verb: Verb, now: float) -> None:
    _close(tx, part, Verb.VOID if verb is Verb.HOLD else verb, now)


def _never_close(tx: Any, part: Any, verb: Verb, now: float) -> None:
    if verb is Verb.HOLD:
        _close(tx, part, verb, now)


def _off_by_one(self: Any, part: str, settled: Any, pending: Any = ()) -> None:
    settled.offset = type(settled.offset)(settled.offset.typecode, (o + 1 for o in settled.offset))
    _add(self, part, settled, pending)


def _all_failed(self: Any, part: str, settled: Any, pending: Any = ()) -> None:
    settled.failed = type(settled.failed)(settled.failed.typecode, [1] * len(settled))
    _add(self, part, settled, pending)


def _first_answer(self: Any, ordinal: int) -> bytes:
    own, first = _line(self, ordinal), _line(self, 0)
    if self._place.failed[ordinal] or self._place.failed[0]:
        return own
    (at, size), (first_at, first_size) = id_span(own), id_span(first)
    return first[:first_at] + own[at : at + size] + first[first_at + first_size :]


async def _never_cancel(ctx: Any, part: Any, twin: Any) -> None:
    return None


def _release_late() -> Any:
    seen: dict[str, float] = {}

    def observe(tx: Any, ctx: Any, record: Any, part: Any, batch: Any, now: float, **how: Any) -> None:
        if not batch.status.terminal or now >= seen.setdefault(batch.id, now) + 150.0:
            _observe(tx, ctx, record, part, batch, now, **how)

    return observe


def _without_foreign(*args: Any) -> Any:
    return replace(_standing(*args), foreign=0)


async def _refused_at_start(ctx: Any, run: Any, **given: Any) -> Any:
    if ctx.ids.random() < 0.5:
        raise ProviderRefused("the provider refuses this for good")
    return await _perform(ctx, run, **given)


async def _careless_turn(ctx: Any, work: Any, *args: Any, **given: Any) -> Any:
    assert work.run.tenant is None or ctx.ids.random() >= 0.3, "a planted slip"
    return await _turn(ctx, work, *args, **given)


def _close_twice(tx: Any, part: Any, verb: Verb, now: float) -> None:
    """Without the guards of the ledger and of the database, which stop it at once."""
    _close(tx, part, verb, now)
    if verb is Verb.RELEASE:
        scope, dimension = part.deployment, Dimension.TOKENS
        tx.append(
            Entry(
                scope=scope, dimension=dimension, part=part.id, verb=Verb.ADJUST, reserved=0, held=-part.charge, at=now
            )
        )


def _patch(target: Any, name: str, value: Any) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: mock.patch.object(target, name, value)


async def _name_later(ctx: Any, request: Any, copied: Any, inspection: Any, digest: str, also: Any = None) -> Any:
    """And it is not found again."""
    run = await _enter(ctx, request, copied, inspection, digest if also is None else ctx.ids.new("digest"))
    if also is not None:
        await ctx.store.transact(lambda tx: also(tx, run))
    return run


def _end_at_once(tx: Any, kind: Any, key: str, /, given: Any = None, **changes: Any) -> bool:
    if changes.get("status") is BatchStatus.COMPLETED:
        changes["output_file"] = None
    return bool(_amend(tx, kind, key, given, **changes))


MUTANTS: Final = {
    "release on a timer": _patch(watcher, "_observe", _release_when(lambda p, b, now: now > (p.held_at or now) + 5)),
    "finalizing not counted": _patch(
        watcher, "_observe", _release_when(lambda p, b, now: b.status is BatchStatus.FINALIZING)
    ),
    "intent written after the POST": _patch(submitter, "_create", _create_first),
    "unknown outcome sent again without a lookup": _patch(submitter, "settle", _settle_blindly),
    "lookup without deleting the file": _patch(submitter, "settle", _settle_without_deleting),
    "retry on create": _patch(submitter, "_create", _retry_create),
    "salvage of completed lines": _patch(collector, "match", _salvage_all),
    "what is held does not count at a reserve": _patch(scheduler, "standing", _ignore_held),
    "a hold that frees the reservation": _patch(scheduler, "close", _hold_as_void),
    "a reservation that is never released": _patch(scheduler, "close", _never_close),
    "off by one in a byte range": _patch(output.Joiner, "add", _off_by_one),
    "the run's lock ignored": _patch(Locks, "acquire", lambda self, name: True),
    "the gateway makes two batches of a repeated create": _patch(batches, "_known", lambda *args: None),
    "the gateway shows a tenant another's batches": _patch(Caller, "sees", property(lambda self: {})),
    "the gateway writes a run and names it later": _patch(prepare, "enter", _name_later),
    "the gateway ends a batch without its output": _patch(SqlTx, "amend", _end_at_once),
    "every answer goes to the error file": _patch(output.Joiner, "add", _all_failed),
    "passing failures are never sent again": _patch(collector, "match", lambda task: _match(replace(task, attempts=1))),
    "a refusal costs an attempt": _patch(
        submitter, "waits_again", lambda part, positions, sent: _again(part, positions, sent=True)
    ),
    "every request gets the first request's answer": _patch(output.Joiner, "_line", _first_answer),
    "twins are not cancelled": _patch(watcher, "cancel_twin", _never_cancel),
    "an end is acted on 150 s after it was seen": lambda: mock.patch.object(watcher, "_observe", _release_late()),
    "others' tokens are ignored": _patch(scheduler, "standing", _without_foreign),
    "every start stalls for 40 s": _patch(runs, "perform", _stalling_start),
    "every other start gives up for good": _patch(runs, "perform", _refused_at_start),
    "an assertion fails in some turns of the gateway": _patch(scheduler, "turn", _careless_turn),
    "a double release": _patch(scheduler, "close", _close_twice),
    "requests that should wait again are lost": _patch(scheduler, "wait_again", lambda tx, part, again: None),
}
