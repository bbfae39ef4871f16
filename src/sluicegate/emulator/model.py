"""The provider's books and clockwork, pure: given the time and a seed, it decides; it reads and writes nothing.

Every method is told ``now``, and what was to happen until then happens first, in the order of time. Enqueued tokens
count from a create (by characters, F§4.1), from the end of validating by tokens, until the batch has ended.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_right
from typing import Any, Final

from sluicegate.emulator.batch import LIVE, Batch, InputFacts, Refused
from sluicegate.emulator.books import DeploymentBooks, books_json, timeline
from sluicegate.emulator.config import Account, Change
from sluicegate.emulator.deployments import Deployments
from sluicegate.emulator.faults import FaultBook
from sluicegate.emulator.rates import Window
from sluicegate.emulator.service import delay, factor_at, next_factor_at, speeds
from sluicegate.emulator.strangers import stranger
from sluicegate.emulator.validation import own_problems, refusal_text, too_many_inputs, too_many_tokens

__all__ = ["LIVE", "Batch", "InputFacts", "Model", "Refused"]

HOUR_S: Final = 3_600.0


class Model:
    """One account.

    Args:
        account: With its defaults filled in.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self._now = 0.0
        self.batches: dict[str, Batch] = {}
        self._live: dict[str, Batch] = {}
        self.deployments = Deployments(account)
        self.rate = account.rate
        self.faults = FaultBook(account.faults, account.seed)
        self._creates = Window(account.creates_per_hour, HOUR_S)
        self._ours = 0
        self._theirs = 0
        self._began: float | None = None
        self._timetable = sorted(account.timetable, key=lambda change: change.at_s)
        self.new_foreign: list[Batch] = []
        self._answered: set[int] = set()
        self._hit: set[int] = set()
        self.books_of: dict[str, DeploymentBooks] = {}
        self.refusals = {"at_create": 0, "late": 0}
        self.executed_total = 0
        self.executed_again = 0

    # -- questions ------------------------------------------------------------------------------------------------------

    def held(self, deployment: str) -> int:
        """Enqueued tokens of a queue now, everybody's; its name is the deployment's, or that of its long contexts."""
        ours = sum(batch.charge for batch in self._live.values() if batch.queue == deployment and self._holds(batch))
        return ours + self.deployments.held_unlisted(deployment, self._now)

    @property
    def held_max(self) -> int:
        """The most tokens that any deployment ever held."""
        return max((books.held_max for books in self.books_of.values()), default=0)

    @property
    def held_max_ratio(self) -> float:
        """The most of its limit that any deployment ever held."""
        return max((books.held_max_ratio for books in self.books_of.values()), default=0.0)

    @property
    def offered_max(self) -> float:
        """The most of its limit that any deployment was ever offered."""
        return max((books.offered_max for books in self.books_of.values()), default=0.0)

    def _holds(self, batch: Batch) -> bool:
        return batch.status in LIVE or (batch.ended_at is not None and self._now < batch.ended_at + batch.lag_s)

    def _books(self, deployment: str) -> DeploymentBooks:
        return self.books_of.setdefault(deployment, DeploymentBooks())

    # -- calls ----------------------------------------------------------------------------------------------------------

    def create(
        self, now: float, *, batch_id: str, file_id: str, facts: InputFacts, endpoint: str,
        metadata: dict[str, str] | None, gated: bool = False,
    ) -> Batch:  # fmt: skip
        """Accept a create, or refuse it.

        Args:
            gated: See :class:`Batch`.

        Raises:
            Refused: fail fast, or too many creates in an hour.
        """
        self._began = now if self._began is None else self._began
        self.advance(now)
        account = self.account
        wait = self._creates.wait_s(now)
        if wait is not None:
            raise Refused(429, "rate_limit_exceeded", "Too many batches were created in the last hour.", wait)
        number = self._ours + 1
        fault = self.faults.hit("batch", now=now, deployment=facts.deployment, batch=number, count=False)
        factor = account.count_factor * (fault.factor if fault is not None and fault.kind == "count" else 1.0)
        chars = round(facts.quarter_chars * factor)
        batch = Batch(
            id=batch_id, deployment=facts.deployment, endpoint=endpoint, input_file_id=file_id, created_at=now,
            metadata=metadata, facts=facts, number=number, factor=factor, charge=max(chars, 1), gated=gated,
            lag_s=account.release_lag_s,
        )  # fmt: skip
        batch.count()
        batch.queue = self.deployments.queue(batch.deployment, batch.largest)
        limit, held = self.deployments.limit(batch.queue), self.held(batch.queue)
        batch.found = held
        self._books(batch.queue).offered(held + max(chars, batch.tokens), limit)
        if account.fail_fast and limit is not None and held + chars > limit:
            self.refusals["at_create"] += 1
            raise Refused(400, "token_limit_exceeded", refusal_text(account, facts.deployment, limit))
        self.faults.hit("batch", now=now, deployment=facts.deployment, batch=number)
        self._ours = number
        self._creates.add(now)
        slower = 0.0
        if fault is not None:
            batch.fault = fault.kind
            slower = fault.seconds if fault.kind == "slow_validating" else 0.0
            batch.lag_s = {"release_late": fault.seconds, "release_never": float("inf")}.get(fault.kind, batch.lag_s)
        batch.until = now + delay(account, account.validating_s, f"{number}:validating") + slower
        self.batches[batch_id] = self._live[batch_id] = batch
        self._note_held()
        return batch

    def counted(self, now: float, facts: InputFacts, tokens: array[int], identity: array[int]) -> None:
        """An input's tokens are known now: its batches may leave ``validating``."""
        self.advance(now)
        facts.tokens, facts.identity, facts.counted = tokens, identity, True
        for batch in self._live.values():
            if batch.facts is facts:
                batch.count()
                batch.queue = self.deployments.queue(batch.deployment, batch.largest)
                limit = self.deployments.limit(batch.queue)
                self._books(batch.queue).offered(batch.found + batch.tokens, limit)
                batch.until = max(batch.until, self._now)
        self.advance(now)

    def cancel(self, now: float, batch_id: str) -> Batch:
        """Ask for a cancel, in any state that has not ended.

        Raises:
            Refused: 409, the batch has ended.
        """
        self.advance(now)
        batch = self.batches[batch_id]
        if batch.status not in LIVE and batch.status != "cancelled":
            raise Refused(409, "conflict", f"Cannot cancel a batch with status '{batch.status}'.")
        if batch.status in LIVE and batch.status != "cancelling":
            batch.running = False
            batch.status, batch.ends_as = "cancelling", "cancelled"
            batch.times["cancelling_at"] = now
            cancelling_s = self.account.cancelling_s
            batch.until = now + (self._finalizing_s(batch) if cancelling_s is None else cancelling_s)
        return batch

    def set_limit(self, now: float, limit: int | None, deployment: str | None = None) -> None:
        """Change a deployment's limit, or everybody's."""
        self.advance(now)
        self.deployments.set_limit(limit, deployment)
        self._note_held()

    def set_rate(self, now: float, rate: float) -> None:
        """Change the service's tokens per second, from now."""
        self.advance(now)
        self.rate = rate

    def hold_unlisted(self, now: float, tokens: int, for_s: float, deployment: str | None = None) -> None:
        """Somebody whom no list shows holds tokens."""
        self.advance(now)
        self.deployments.hold(now, tokens, for_s, deployment)
        self._note_held()

    def hold_listed(self, now: float, tokens: int, for_s: float, deployment: str | None = None) -> Batch:
        """Somebody else's batch, in the list from now until it ends; whoever serves files finds it in ``new_foreign``."""
        self.advance(now)
        batch = self._foreign(now, tokens, for_s, deployment)
        self._note_held()
        return batch

    def open_gate(
        self, now: float, batch_id: str, *, failed: int = 0, input_tokens: int = 0, output_tokens: int = 0
    ) -> None:
        """A gated batch's results are written; it ends."""
        batch = self.batches[batch_id]
        batch.gated = False
        batch.failed_more, batch.input_tokens, batch.output_tokens = failed, input_tokens, output_tokens
        batch.until = max(batch.until, self._now)
        self.advance(now)

    def waiting_for_results(self) -> list[Batch]:
        """Gated batches that would end if their results were written."""
        return [b for b in self._live.values() if b.gated and b.status in ("finalizing", "cancelling")]

    # -- clockwork ------------------------------------------------------------------------------------------------------

    def next_event_at(self) -> float | None:
        """When something happens next by itself, or None."""
        times = [batch.until for batch in self._live.values() if self._timed(batch)]
        running = self._running()
        if running:
            completion = self._next_completion(running)
            times += [] if completion is None else [self._now + completion]
            change = next_factor_at(self.account, self._now)
            times += [change] if change is not None and self.rate else []
            fault_change = self.faults.next_change_at(self._now)
            times += [fault_change] if fault_change is not None else []
        expire = self.account.expire_s
        for batch in self._live.values():
            if batch.leaves_at is not None and batch.status in LIVE:
                times.append(batch.leaves_at)
            if expire is not None and not batch.foreign and batch.status in ("validating", "in_progress"):
                times.append(batch.created_at + expire)
            if batch.ended_at is not None:
                times.append(batch.ended_at + batch.lag_s)
        times += [stop for _, stop, _, _ in self.deployments.unlisted]
        if self._timetable and self._began is not None:
            times.append(self._began + self._timetable[0].at_s)
        return min((max(t, self._now) for t in times if t != float("inf")), default=None)

    def advance(self, now: float) -> None:
        """Let everything happen that is due until ``now``."""
        if self._now == 0.0:
            self._now = now
            self.faults.begin(now)
        while True:
            at = self.next_event_at()
            if at is None or at > now:
                break
            self._serve(at)
            self._happen()
        self._serve(now)

    def _timed(self, batch: Batch) -> bool:
        """Whether the batch's status changes by itself at its ``until``."""
        if batch.foreign or batch.fault == f"stuck_{batch.status}":
            return False
        if batch.status in ("finalizing", "cancelling"):
            return not batch.gated
        if batch.status == "validating":
            return batch.facts.counted
        return batch.status == "in_progress" and not batch.running

    def _running(self) -> list[Batch]:
        found = [batch for batch in self._live.values() if batch.running]
        return sorted(found, key=lambda batch: (batch.times["served_from"], batch.created_at)) if found else found

    def _speeds(self, running: list[Batch]) -> list[float]:
        return speeds(self.account, self.rate * factor_at(self.account, self._now), running)

    def _next_completion(self, running: list[Batch]) -> float | None:
        if not self.rate:
            return 0.0
        times = [self._target(b) / speed for b, speed in zip(running, self._speeds(running), strict=True) if speed]
        return min(times, default=None)

    def _target(self, batch: Batch) -> float:
        """Tokens until the batch stops running: all of it, or half of it where it is to expire half-way."""
        goal = batch.tokens / 2 if batch.fault == "expire" else batch.tokens
        left = goal - batch.served
        # Unix times resolve to a quarter of a microsecond: what is served within four of them is served.
        return left if left > max(1e-3, self.rate * 1e-6) else 0.0

    def _serve(self, at: float) -> None:
        elapsed = at - self._now
        if elapsed > 0 and self._began is not None:
            for deployment, books in self.books_of.items():
                books.passed(elapsed, self.held(deployment), self.deployments.limit(deployment))
        running = self._running()
        if running and self.rate:
            for batch, speed in zip(running, self._speeds(running), strict=True):
                self._progress(batch, min(elapsed * speed, self._target(batch)))
        elif running:
            for batch in running:
                self._progress(batch, self._target(batch))
        self._now = max(self._now, at)

    def _progress(self, batch: Batch, tokens: float) -> None:
        batch.served += tokens
        self._execute(batch, bisect_right(batch.sums, batch.served + 1e-6))

    def _execute(self, batch: Batch, done: int) -> None:
        for i in range(batch.executed, done):
            identity = batch.facts.identity[i]
            fate = self._fate(batch, i, identity) if self.faults.on_lines else None
            self.executed_total += 1
            if identity in self._answered:
                self.executed_again += 1
            elif fate in (None, "doubled", "content_filter_completion"):
                self._answered.add(identity)
        batch.executed = max(batch.executed, done)

    def _fate(self, batch: Batch, line: int, identity: int) -> str | None:
        kind = self.faults.on_line(
            line + 1, now=self._now, deployment=batch.deployment, batch=batch.number, again=identity in self._hit
        )
        if kind is not None:
            batch.fates[line] = kind
            self._hit.add(identity)
        return kind

    def line_fate(self, batch: Batch, line: int) -> str | None:
        """The fault that hit an executed line (from 0) of a batch."""
        return batch.fates.get(line)

    def _happen(self) -> None:
        now = self._now
        expire = self.account.expire_s
        for batch in list(self._live.values()):
            if batch.running and self._target(batch) == 0.0:
                self._stop_serving(batch, now)
            unfinished = batch.status in ("validating", "in_progress") and not batch.foreign
            if expire is not None and unfinished and now >= batch.created_at + expire:
                self._finalize(batch, now, "expired")
            if batch.leaves_at is not None and batch.leaves_at <= now and batch.status in LIVE:
                batch.executed = len(batch.facts.tokens)
                self._end(batch, now, "completed")
            if batch.until <= now and self._timed(batch):
                self._next_status(batch, now)
            if batch.status not in LIVE and not self._holds(batch):
                del self._live[batch.id]
        while self._timetable and self._began is not None and self._began + self._timetable[0].at_s <= now:
            self._change(self._timetable.pop(0), now)
        self.deployments.leave(now)
        self._note_held()

    def _stop_serving(self, batch: Batch, now: float) -> None:
        if batch.fault == "expire":
            self._finalize(batch, now, "expired")
        else:
            self._execute(batch, len(batch.facts.tokens))
            self._finalize(batch, now, "completed")

    def _finalize(self, batch: Batch, now: float, ends_as: str) -> None:
        batch.running = False
        batch.ends_as = ends_as
        batch.status = "finalizing"
        batch.times["finalizing_at"] = now
        batch.until = now + self._finalizing_s(batch)

    def _finalizing_s(self, batch: Batch) -> float:
        return delay(self.account, self.account.finalizing_s, f"{batch.number}:finalizing")

    def _next_status(self, batch: Batch, now: float) -> None:
        if batch.status == "validating":
            self._validated(batch, now)
        elif batch.status == "in_progress":
            batch.running = True
            batch.times["served_from"] = now
        elif batch.status in ("finalizing", "cancelling"):
            self._end(batch, now, batch.ends_as)

    def _validated(self, batch: Batch, now: float) -> None:
        problems = self._problems(batch)
        if problems:
            batch.errors = problems
            self._end(batch, now, "failed", releases=problems[0]["code"] != "token_limit_exceeded")
            return
        batch.charge = max(batch.tokens, 1)
        batch.status = "in_progress"
        batch.times["in_progress_at"] = now
        start_s = delay(self.account, self.account.start_s, f"{batch.number}:start")
        batch.until = float("inf") if self.deployments.dead(batch.deployment) else now + start_s

    def _problems(self, batch: Batch) -> list[dict[str, Any]]:
        """What validating finds: the batch's own problems, then the limits'."""
        problems = own_problems(batch, self.deployments.refused_type(batch.deployment))
        if problems:
            return problems
        before = [b for b in self._live.values() if b is not batch and self._precedes(b, batch)]
        limit = self.deployments.limit(batch.queue)
        held = self.deployments.held_unlisted(batch.queue, self._now) + sum(b.charge for b in before)
        refusal = too_many_tokens(self.account, batch, held, limit) or too_many_inputs(self.account, batch, before)
        self.refusals["late"] += bool(refusal)
        return refusal

    def _precedes(self, other: Batch, batch: Batch) -> bool:
        """Whether what ``other`` holds counts against a batch that is being validated."""
        if other.queue != batch.queue or not self._holds(other):
            return False
        return other.status != "validating" or other.number < batch.number

    def _end(self, batch: Batch, now: float, status: str, *, releases: bool = True) -> None:
        batch.status = status
        batch.times[f"{status}_at"] = now
        # A batch that was refused never held anything, so nothing lags behind it.
        batch.ended_at = now if releases else None
        batch.running = False

    def _change(self, change: Change, now: float) -> None:
        if change.limit is not None:
            self.deployments.set_limit(change.limit, change.deployment)
        if change.rate is not None:
            self.rate = change.rate
        if change.tokens and change.listed:
            self._foreign(now, change.tokens, change.for_s, change.deployment)
        elif change.tokens:
            self.deployments.hold(now, change.tokens, change.for_s, change.deployment)

    def _foreign(self, now: float, tokens: int, for_s: float, deployment: str | None) -> Batch:
        first = next((batch.deployment for batch in self.batches.values()), None)
        name = deployment or first or next(iter(self.deployments.names), "gpt-4.1")
        self._theirs += 1
        batch = stranger(self.account.seed, self._theirs, now, tokens, for_s, name)
        self.batches[batch.id] = self._live[batch.id] = batch
        self.new_foreign.append(batch)
        return batch

    def _note_held(self) -> None:
        for deployment in {batch.queue for batch in self._live.values()} | set(self.books_of):
            self._books(deployment).note(self._now, self.held(deployment), self.deployments.limit(deployment))

    # -- books ----------------------------------------------------------------------------------------------------------

    def report(self, now: float) -> dict[str, Any]:
        """The emulator's own books (docs/emulate.md).

        ``offered_max``: the most ever offered over all creates, accepted or not: (held + new) ÷ limit. ``held_max``,
        ``held_max_ratio``: the most ever held. ``executed_again``: requests executed after an answer to them existed.
        ``utilisation``: mean of held ÷ limit since the first create. ``samples``: (seconds, held, limit) at each change.
        ``utilisation`` and ``samples`` are of the deployment that was used first; ``deployments`` has them for each.
        """
        self.advance(now)
        ours = [batch for batch in self.batches.values() if not batch.foreign]
        began = self._began or now
        each = {name: books_json(books, began) for name, books in self.books_of.items() if name}
        first = next(iter(each), "")
        main = each.get(first) or books_json(DeploymentBooks(), began)
        return {
            "offered_max": round(self.offered_max, 6),
            "offered_max_tokens": max((books.offered_max_tokens for books in self.books_of.values()), default=0),
            "held_max": self.held_max, "held_max_ratio": round(self.held_max_ratio, 6), "refusals": dict(self.refusals),
            "batches": len(ours), "executed_total": self.executed_total, "executed_again": self.executed_again,
            "utilisation": main["utilisation"], "samples": main["samples"], "deployments": each,
            "seconds": round(max(0.0, now - began), 3),
            "timeline": [timeline(batch, began) for batch in self.batches.values() if not batch.foreign],
        }  # fmt: skip

    def books(self, now: float) -> dict[str, Any]:
        """What is held now, per deployment, everybody's and others' alone."""
        self.advance(now)
        names = {batch.queue for batch in self.batches.values()} | set(self.deployments.names)
        return {
            name: {
                "held": self.held(name), "limit": self.deployments.limit(name),
                "foreign": self.deployments.held_unlisted(name, self._now) + sum(
                    b.charge for b in self._live.values() if b.foreign and b.status in LIVE and b.queue == name
                ),
            }
            for name in sorted(names)
        }  # fmt: skip

    def began(self) -> float | None:
        """When the first create came."""
        return self._began

    def shuffled(self, batch: Batch) -> list[int]:
        """The order of a batch's output lines: neither provider keeps the input's (F§2.5)."""
        order = list(range(batch.executed))
        random.Random(f"{self.account.seed}:{batch.key}").shuffle(order)
        return order
