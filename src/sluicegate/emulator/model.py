"""The provider's books and clockwork, pure: given the time and a seed, it decides; it reads and writes nothing.

Every method is told ``now``, and what was to happen until then happens first, in the order of time. Enqueued tokens
count from a create (by characters, F§4.1), from the end of validating by tokens, until the batch has ended.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final

from sluicegate.core.limits import format_tokens
from sluicegate.emulator.config import Account, Change, Fault

LIVE: Final = frozenset({"validating", "in_progress", "finalizing", "cancelling"})


@dataclass(slots=True)
class InputFacts:
    """What reading an input file showed.

    Attributes:
        tokens: Of each line, counted by tiktoken. ``identity``: a hash of custom_id and body of each line.
        quarter_chars: Characters of the bodies ÷ 4, each line rounded down, summed.
        problems: Batch errors as the provider words them.
    """

    tokens: array[int]
    identity: array[int]
    quarter_chars: int
    deployment: str
    url: str
    problems: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Batch:
    """A batch at the provider. Times are Unix seconds."""

    id: str
    deployment: str
    endpoint: str
    input_file_id: str
    created_at: float
    metadata: dict[str, str] | None
    facts: InputFacts
    status: str = "validating"
    charge: int = 0
    tokens: int = 0
    until: float = 0.0
    served: float = 0.0
    running: bool = False
    sums: list[int] = field(default_factory=list)
    executed: int = 0
    times: dict[str, float] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    output_file_id: str | None = None
    error_file_id: str | None = None
    ended_at: float | None = None
    foreign: bool = False
    ends_as: str = "completed"
    fault: str | None = None

    @property
    def left(self) -> float:
        """Tokens that have still to be served."""
        return max(0.0, self.tokens - self.served)


class Refused(Exception):
    """A create is refused: HTTP status, code, text."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after_s = status, code, message, retry_after_s


class Model:
    """One account.

    Args:
        account: With its defaults filled in.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self._dice = random.Random(account.seed)
        self._now = 0.0
        self.batches: dict[str, Batch] = {}
        self.limits: dict[str, int | None] = dict(account.deployments)
        self.default_limit = account.limit
        self.rate = account.rate
        self.faults: list[Fault] = list(account.faults)
        self._calls: dict[str, int] = {}
        self._began: float | None = None
        self._timetable = sorted(account.timetable, key=lambda change: change.at_s)
        self.unlisted: list[tuple[float, float, int]] = []
        self.wanted_foreign: list[tuple[Change, float]] = []
        self._answered: set[int] = set()
        self.offered_max = 0.0
        self.offered_max_tokens = 0
        self.held_max = 0
        self.held_max_ratio = 0.0
        self.refusals = {"at_create": 0, "late": 0}
        self.executed_total = 0
        self.executed_again = 0
        self._integral = 0.0
        self._measured = 0.0
        self.samples: list[tuple[float, int, int | None]] = []

    # -- questions ------------------------------------------------------------------------------------------------------

    def limit(self, deployment: str) -> int | None:
        """The deployment's enqueued-token limit now, None for no limit."""
        return self.limits.get(deployment, self.default_limit)

    def exists(self, deployment: str) -> bool:
        """Whether there is such a deployment."""
        return not self.account.deployments or deployment in self.limits

    def held(self, deployment: str) -> int:
        """Enqueued tokens now, everybody's."""
        lag = self.account.release_lag_s
        ours = sum(
            batch.charge
            for batch in self.batches.values()
            if batch.deployment == deployment
            and (batch.status in LIVE or (batch.ended_at is not None and self._now < batch.ended_at + lag))
        )
        return ours + self._unlisted()

    def _unlisted(self) -> int:
        return sum(tokens for start, stop, tokens in self.unlisted if start <= self._now < stop)

    def fault(self, on: str) -> str | None:
        """Count a call of this kind; the fault that hits it, if any."""
        self._calls[on] = number = self._calls.get(on, 0) + 1
        for fault in self.faults:
            if fault.on == on and fault.nth <= number < fault.nth + fault.times:
                return fault.kind
        return None

    # -- calls ----------------------------------------------------------------------------------------------------------

    def create(
        self, now: float, *, batch_id: str, file_id: str, facts: InputFacts, endpoint: str,
        metadata: dict[str, str] | None, foreign: bool = False,
    ) -> Batch:  # fmt: skip
        """Accept a create, or refuse it.

        Raises:
            Refused: fail fast, or too many creates in an hour.
        """
        if self._began is None and not foreign:
            self._began = now
        self.advance(now)
        account = self.account
        recent = sum(1 for b in self.batches.values() if b.created_at > now - 3600 and not b.foreign)
        if account.creates_per_hour is not None and recent >= account.creates_per_hour:
            raise Refused(429, "rate_limit_exceeded", "Too many batches were created in the last hour.", 60.0)
        chars = round(facts.quarter_chars * account.count_factor)
        tokens = round(sum(facts.tokens) * account.count_factor)
        limit = self.limit(facts.deployment)
        held = self.held(facts.deployment)
        if not foreign:
            self._offered(held + max(chars, tokens), limit)
        if account.fail_fast and limit is not None and held + chars > limit:
            self.refusals["at_create"] += 1
            raise Refused(400, "token_limit_exceeded", self.refusal_text(facts.deployment, limit))
        batch = Batch(
            id=batch_id, deployment=facts.deployment, endpoint=endpoint, input_file_id=file_id, created_at=now,
            metadata=metadata, facts=facts, charge=max(chars, 1), tokens=tokens, until=now + account.validating_s,
            foreign=foreign, sums=list(accumulate(round(t * account.count_factor) for t in facts.tokens)),
        )  # fmt: skip
        if not foreign:
            batch.fault = self.fault("batch")
        self.batches[batch_id] = batch
        self._note_held()
        return batch

    def _offered(self, tokens: int, limit: int | None) -> None:
        if limit:
            self.offered_max = max(self.offered_max, tokens / limit)
            self.offered_max_tokens = max(self.offered_max_tokens, tokens)

    def refusal_text(self, deployment: str, limit: int) -> str:
        """The refusal's sentence (F§5.2, F§5.3)."""
        match self.account.refusal:
            case "azure":
                return (
                    f"The number of enqueued tokens has surpassed the configured limit of {format_tokens(limit)} for the "
                    f"deployment '{deployment}'. Please either increase the limit or try again once the current jobs "
                    "have finished."
                )
            case "openai":
                return (
                    f"Enqueued token limit reached for {deployment} in organization org-emulated. Limit: {limit:,} "
                    "enqueued tokens. Please try again once some in_progress batches have been completed."
                )
            case _:
                return "The number of enqueued tokens has surpassed the configured limit. Please try again later."

    def cancel(self, now: float, batch_id: str) -> Batch:
        """Ask for a cancel.

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
            batch.until = now + self.account.finalizing_s
        return batch

    def set_limit(self, now: float, limit: int | None, deployment: str | None = None) -> None:
        """Change a deployment's limit, or everybody's."""
        self.advance(now)
        if deployment is None:
            self.default_limit = limit
            self.limits = dict.fromkeys(self.limits, limit)
        else:
            self.limits[deployment] = limit

    def hold_unlisted(self, now: float, tokens: int, for_s: float) -> None:
        """Somebody whom no list shows holds tokens."""
        self.advance(now)
        self.unlisted.append((now, now + for_s, tokens))

    # -- clockwork ------------------------------------------------------------------------------------------------------

    def next_event_at(self) -> float | None:
        """When something happens next by itself, or None."""
        times = [batch.until for batch in self.batches.values() if self._timed(batch)]
        running = self._running()
        if running:
            times.append(self._now + self._next_completion(running))
        expire = self.account.expire_s
        if expire is not None:
            times += [b.created_at + expire for b in self.batches.values() if b.status in ("validating", "in_progress")]
        times += [stop for _, stop, _ in self.unlisted if stop > self._now]
        if self._timetable and self._began is not None:
            times.append(self._began + self._timetable[0].at_s)
        return min((max(t, self._now) for t in times), default=None)

    def advance(self, now: float) -> None:
        """Let everything happen that is due until ``now``."""
        if self._now == 0.0:
            self._now = now
        while True:
            at = self.next_event_at()
            if at is None or at > now:
                break
            self._serve(at)
            self._happen()
        self._serve(now)

    def _timed(self, batch: Batch) -> bool:
        if batch.fault == "stuck_validating" and batch.status == "validating":
            return False
        return batch.status in ("validating", "finalizing", "cancelling") or (
            batch.status == "in_progress" and not batch.running and batch.fault != "stuck_in_progress"
        )

    def _running(self) -> list[Batch]:
        return [b for b in self.batches.values() if b.running]

    def _next_completion(self, running: list[Batch]) -> float:
        if not self.rate:
            return 0.0
        if self.account.discipline == "fifo":
            first = min(running, key=lambda b: (b.times["served_from"], b.created_at))
            return self._target(first) / self.rate
        return min(self._target(b) for b in running) * len(running) / self.rate

    def _target(self, batch: Batch) -> float:
        """Tokens until the batch stops running: all of it, or half of it where it is to expire half-way."""
        goal = batch.tokens / 2 if batch.fault == "expire" else batch.tokens
        left = goal - batch.served
        # Unix times resolve to a quarter of a microsecond: what is served within four of them is served.
        return left if left > max(1e-3, self.rate * 1e-6) else 0.0

    def _serve(self, at: float) -> None:
        elapsed = at - self._now
        if elapsed > 0:
            limit = self.limit(next(iter(self.batches.values())).deployment) if self.batches else None
            if limit and self._began is not None:
                self._integral += self.held(next(iter(self.batches.values())).deployment) / limit * elapsed
                self._measured += elapsed
        running = self._running()
        if running and self.rate:
            if self.account.discipline == "fifo":
                work = elapsed * self.rate
                for batch in sorted(running, key=lambda b: (b.times["served_from"], b.created_at)):
                    share = min(work, self._target(batch))
                    self._progress(batch, share)
                    work -= share
            else:
                share = elapsed * self.rate / len(running)
                for batch in running:
                    self._progress(batch, min(share, self._target(batch)))
        elif running:
            for batch in running:
                self._progress(batch, self._target(batch))
        self._now = max(self._now, at)

    def _progress(self, batch: Batch, tokens: float) -> None:
        batch.served += tokens
        done = bisect_right(batch.sums, batch.served + 1e-6)
        self._execute(batch, done)

    def _execute(self, batch: Batch, done: int) -> None:
        for i in range(batch.executed, done):
            identity = batch.facts.identity[i]
            self.executed_total += not batch.foreign
            if identity in self._answered:
                self.executed_again += 1
            elif not batch.foreign and self.line_fate(batch, i) in (None, "doubled"):
                self._answered.add(identity)
        batch.executed = max(batch.executed, done)

    def line_fate(self, batch: Batch, line: int) -> str | None:
        """The fault that hits a line of a batch, decided once and for all by the batch and the line."""
        for fault in self.faults:
            if fault.on == "line" and fault.nth <= line + 1 < fault.nth + fault.times:
                first = next(b for b in self.batches.values() if b.facts.deployment == batch.facts.deployment)
                if not fault.once or batch is first:
                    return fault.kind
        return None

    def _happen(self) -> None:
        now = self._now
        for batch in list(self.batches.values()):
            if batch.running and self._target(batch) == 0.0:
                self._stop_serving(batch, now)
            expire = self.account.expire_s
            if (
                expire is not None
                and batch.status in ("validating", "in_progress")
                and now >= batch.created_at + expire
            ):
                self._finalize(batch, now, "expired")
            if batch.until <= now and self._timed(batch):
                self._next_status(batch, now)
        while self._timetable and self._began is not None and self._began + self._timetable[0].at_s <= now:
            self._change(self._timetable.pop(0), now)
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
        batch.until = now + self.account.finalizing_s

    def _next_status(self, batch: Batch, now: float) -> None:
        if batch.status == "validating":
            self._validated(batch, now)
        elif batch.status == "in_progress":
            batch.running = True
            batch.times["served_from"] = now
        elif batch.status in ("finalizing", "cancelling"):
            self._end(batch, now, batch.ends_as)

    def _validated(self, batch: Batch, now: float) -> None:
        limit = self.limit(batch.deployment)
        if batch.facts.problems:
            batch.errors = batch.facts.problems
            self._end(batch, now, "failed")
            return
        lag = self.account.release_lag_s
        others = self._unlisted() + sum(
            b.charge
            for b in self.batches.values()
            if b is not batch
            and b.deployment == batch.deployment
            and (
                b.status in ("in_progress", "finalizing", "cancelling")
                or (b.status == "validating" and b.created_at <= batch.created_at)
                or (b.ended_at is not None and now < b.ended_at + lag)
            )
        )
        if limit is not None and others + batch.tokens > limit and not batch.foreign:
            self.refusals["late"] += 1
            text = self.refusal_text(batch.deployment, limit)
            batch.errors = [{"code": "token_limit_exceeded", "message": text, "param": None, "line": None}]
            self._end(batch, now, "failed", releases=False)
            return
        batch.charge = max(batch.tokens, 1)
        batch.status = "in_progress"
        batch.times["in_progress_at"] = now
        batch.until = now + self.account.start_s

    def _end(self, batch: Batch, now: float, status: str, *, releases: bool = True) -> None:
        batch.status = status
        batch.times[f"{status}_at"] = now
        # A batch that was refused never held anything, so nothing lags behind it.
        batch.ended_at = now if releases else None
        batch.running = False

    def _change(self, change: Change, now: float) -> None:
        if change.limit is not None:
            self.default_limit = change.limit
            self.limits = dict.fromkeys(self.limits, change.limit)
        if change.rate is not None:
            self.rate = change.rate
        if change.tokens and change.listed:
            self.wanted_foreign.append((change, now))
        elif change.tokens:
            self.unlisted.append((now, now + change.for_s, change.tokens))

    def _note_held(self) -> None:
        for deployment in {batch.deployment for batch in self.batches.values()}:
            held, limit = self.held(deployment), self.limit(deployment)
            self.held_max = max(self.held_max, held)
            if limit:
                self.held_max_ratio = max(self.held_max_ratio, held / limit)
            if not self.samples or self.samples[-1][1:] != (held, limit):
                self.samples.append((self._now, held, limit))

    # -- books ----------------------------------------------------------------------------------------------------------

    def report(self, now: float) -> dict[str, Any]:
        """The emulator's own books (docs/emulate.md).

        ``offered_max``: the most ever offered over all creates, accepted or not: (held + new) ÷ limit. ``held_max``,
        ``held_max_ratio``: the most ever held. ``executed_again``: requests executed after an answer to them existed.
        ``utilisation``: mean of held ÷ limit since the first create. ``samples``: (seconds, held, limit) at each change.
        """
        self.advance(now)
        ours = [batch for batch in self.batches.values() if not batch.foreign]
        began = self._began or now
        return {
            "offered_max": round(self.offered_max, 6), "offered_max_tokens": self.offered_max_tokens,
            "held_max": self.held_max, "held_max_ratio": round(self.held_max_ratio, 6), "refusals": dict(self.refusals),
            "batches": len(ours), "executed_total": self.executed_total, "executed_again": self.executed_again,
            "utilisation": round(self._integral / self._measured, 4) if self._measured else None,
            "samples": [[round(at - began, 3), held, limit] for at, held, limit in self.samples],
            "timeline": [
                {"id": b.id, "status": b.status, "tokens": b.tokens, "created": round(b.created_at - began, 3),
                 **{name.removesuffix("_at"): round(at - began, 3) for name, at in b.times.items()}}
                for b in ours
            ],
        }  # fmt: skip

    def books(self, now: float) -> dict[str, Any]:
        """What is held now, per deployment, everybody's and others' alone."""
        self.advance(now)
        names = {batch.deployment for batch in self.batches.values()} | set(self.limits)
        return {
            name: {
                "held": self.held(name), "limit": self.limit(name),
                "foreign": self._unlisted() + sum(
                    b.charge for b in self.batches.values() if b.foreign and b.status in LIVE and b.deployment == name
                ),
            }
            for name in sorted(names)
        }  # fmt: skip

    def shuffled(self, batch: Batch) -> list[int]:
        """The order of a batch's output lines: neither provider keeps the input's (F§2.5)."""
        order = list(range(batch.executed))
        random.Random(f"{self.account.seed}:{batch.id}").shuffle(order)
        return order
