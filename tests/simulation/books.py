"""What holds all the time: the provider's books against ours, part by part, and what each look at its list must lead to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sluicegate.adapters.store import SqlStore
from sluicegate.core import submission
from sluicegate.core.ledger import Dimension
from sluicegate.core.lifecycle import Stage
from sluicegate.core.rows import PartRow
from sluicegate.emulator.batch import LIVE, Batch
from sluicegate.ports import Tx

if TYPE_CHECKING:
    from sluicegate.emulator.model import Model
    from tests.simulation.ports import Fate, Trace

LOOKS_TO_RELEASE: Final = 2
"""Looks by living processes after a batch's end within which its tokens are free in our books."""

LOOKS_TO_CANCEL: Final = 2
"""Looks by living processes that show a twin within which it is asked to cancel, and one more for each call that fails."""

OPEN: Final = frozenset({Stage.RESERVED, Stage.SUBMITTING, Stage.HELD})


@dataclass(frozen=True, slots=True)
class Look:
    """A look at the provider's list: when it began, and whether the list was read and no call failed."""

    at: float
    read: bool = False
    failed: bool = False


class Books:
    """Watches one world.

    Args:
        told: Deployment's name → the limit that the person told, None where nothing was told.
        lag_s: How long a batch is in no list. ``cancel_faults``: calls of cancel that fail.
        damage_unknown: Two downloads are damaged by the emulator, nobody knows which.
        fail: Called with the sentence of a broken promise.
    """

    def __init__(
        self, model: Model, store: SqlStore, trace: Trace, *, told: Callable[[str], int | None], lag_s: float,
        cancel_faults: int, damage_unknown: bool, fail: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._model, self._store, self._trace, self._told, self._fail = model, store, trace, told, fail
        self._lag_s, self._cancel_faults, self._damage_unknown = lag_s, cancel_faults, damage_unknown
        self._looks: dict[Fate, Look] = {}
        self._late: Counter[str] = Counter()
        self._freed: set[str] = set()
        self._listed: set[str] = set()
        self._twice: list[tuple[Batch, int]] = []
        self.excepted: Counter[str] = Counter()
        self._watch_executions()

    # -- executions ----------------------------------------------------------------------------------------------------

    def _watch_executions(self) -> None:
        """Note each request that is executed though an answer to it exists."""
        real, answered = self._model._execute, self._model._answered

        def execute(batch: Batch, done: int) -> None:
            identity = batch.facts.identity
            self._twice += [(batch, identity[i]) for i in range(batch.executed, done) if identity[i] in answered]
            real(batch, done)

        self._model._execute = execute  # type: ignore[method-assign]

    def _ours(self) -> list[Batch]:
        return [batch for batch in self._model.batches.values() if not batch.foreign]

    def twins(self) -> list[list[Batch]]:
        """Batches that one create made, where the provider itself committed it twice."""
        found: defaultdict[str, list[Batch]] = defaultdict(list)
        for batch in self._ours():
            found[(batch.metadata or {})[submission.KEY]].append(batch)
        # Of a pair the second may have been refused, and that was the answer: then the first is one too many.
        return [
            batches for key, batches in found.items()
            if key in self._trace.twinned and (len(batches) > 1 or batches[0].id not in self._trace.held)
        ]  # fmt: skip

    def _executions(self) -> None:
        if not self._twice:
            return
        paired = {identity for twins in self.twins() for batch in twins for identity in batch.facts.identity}
        damaged = {
            identity for batch in self._ours() if self.damaged(batch) for identity in batch.facts.identity
        }  # fmt: skip
        for _, identity in self._twice:
            if identity not in paired and identity not in damaged:
                self._fail("a request was executed twice")
            self.excepted["executed twice" if identity in paired else "executed again after damage"] += 1
        self._twice.clear()

    def damaged(self, batch: Batch) -> bool:
        """Whether downloads of it may have been damaged alike, so that nobody can tell that from what the provider has."""
        if self._damage_unknown:
            return True
        names = {f"{kind}:{batch.id}" for kind in ("out", "err")} | {batch.output_file_id, batch.error_file_id}
        return max((self._trace.damaged[name] for name in names if name), default=0) > 1

    # -- at each commit ------------------------------------------------------------------------------------------------

    def at_commit(self) -> None:
        """Nothing was executed twice, and each part's entries are at least what the provider holds for it."""
        self._executions()
        held: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for batch in self._model._live.values():
            if batch.foreign or batch.status not in LIVE:
                continue
            key = (batch.metadata or {})[submission.KEY]
            part = held[key.partition(":")[0]]
            if batch.fault == "count":  # it counts more than anybody could know
                self.excepted["counted higher"] += 1
                part.setdefault(key, 0)
            elif key in part:
                if key not in self._trace.twinned:
                    self._fail("one intent was sent twice")
                self.excepted["held twice"] += 1
                part[key] = min(part[key], batch.charge)
            else:
                part[key] = batch.charge
        if not held:
            return
        ours = self._booked(list(held))
        for name, keys in held.items():
            if ours.get(name, 0) < sum(keys.values()):
                if keys.keys() <= self._trace.twinned:
                    self.excepted["held though refused"] += 1
                    continue
                self._fail(f"for a part our books say {ours.get(name, 0)}, the provider holds {sum(keys.values())}")

    def _booked(self, parts: list[str]) -> dict[str, int]:
        marks = ",".join("?" * len(parts))
        text = (
            "SELECT part, sum(reserved + held) FROM ledger WHERE dimension = 'tokens' "
            f"AND part IN ({marks}) GROUP BY part"
        )
        return dict(self._store._connection.execute(text, tuple(parts)).fetchall())

    # -- at each reserve -----------------------------------------------------------------------------------------------

    def reserved(self, tx: Tx, part: PartRow) -> None:
        """D2 and D10: what is booked, the new part, and others' batches that a look has shown fit under what was told."""
        name = part.deployment.rpartition("#")[2]
        booked = tx.balance(part.deployment, Dimension.TOKENS).total
        rows = {row.provider_batch: row for row in tx.foreign(part.resource)}
        others = 0
        for id_ in self._listed:
            batch = self._model.batches[id_]
            if batch.status not in LIVE or batch.deployment != name:
                continue
            if id_ in rows and rows[id_].basis != "content":
                self.excepted["foreign without content"] += 1
                others += max(rows[id_].tokens, rows[id_].quarter_chars)
            else:
                others += batch.charge
        limit, true = self._told(name), self._model.deployments.limit(name)
        if limit is not None and booked + others > limit and (others or booked > part.charge or part.count > 1):
            self._fail(f"reserved {booked} beside {others} of others, the limit was told as {limit}")
        if true is not None and booked + self._held_by_others(name) > true:
            self.excepted["offered more than fits, unknowingly"] += 1

    def _held_by_others(self, name: str) -> int:
        live = self._model._live.values()
        return sum(b.charge for b in live if b.foreign and b.status in LIVE and b.deployment == name)

    # -- at each look --------------------------------------------------------------------------------------------------

    def look_began(self, fate: Fate, at: float) -> None:
        """A process is about to read the list."""
        self._looks[fate] = Look(at)

    def list_answered(self, fate: Fate, *, failed: bool) -> None:
        """A page came, or did not."""
        if fate in self._looks:
            look = self._looks[fate]
            self._looks[fate] = replace(look, read=look.read or not failed, failed=look.failed or failed)

    def look_ended(self, fate: Fate) -> None:
        """A process has acted on what it saw."""
        look = self._looks.pop(fate, None)
        if look is None or look.failed or not look.read:
            return
        seen_until = look.at - self._lag_s
        self._listed = {b.id for b in self._model.batches.values() if b.foreign and b.created_at <= seen_until}
        self._releases(look, seen_until)
        self._cancels(look, seen_until)

    def _releases(self, look: Look, seen_until: float) -> None:
        """D3 the other way round: tokens of a batch whose end was seen are free."""
        ended = [
            batch for id_ in self._trace.held if id_ not in self._freed
            for batch in (self._model.batches[id_],)
            if batch.status not in LIVE and batch.created_at <= seen_until
            and self._trace.held_at[id_] <= look.at  # a create that is still being found is its own process's
            and batch.times[f"{batch.status}_at"] <= look.at
        ]  # fmt: skip
        booked = self._booked([self._trace.held[batch.id] for batch in ended]) if ended else {}
        for batch in ended:
            if not booked.get(self._trace.held[batch.id]):
                self._freed.add(batch.id)
                continue
            self._late[batch.id] += 1
            if self._late[batch.id] >= LOOKS_TO_RELEASE:
                self._fail(
                    f"the tokens of an ended batch are booked after {LOOKS_TO_RELEASE} looks that showed its end"
                )

    def _cancels(self, look: Look, seen_until: float) -> None:
        """A twin is found and asked to cancel while it can be."""
        for twins in self.twins():
            ours = [batch for batch in twins if batch.id in self._trace.held]
            if not ours or self._trace.held_at[ours[0].id] > look.at:
                continue
            for batch in twins:
                going = batch.status in ("validating", "in_progress", "finalizing")
                if batch in ours or not going or batch.created_at > seen_until:
                    continue
                self._late[batch.id] += 1
                if self._late[batch.id] >= LOOKS_TO_CANCEL + self._cancel_faults:
                    self._fail(
                        f"a twin is {batch.status} after {LOOKS_TO_CANCEL} looks that showed it, and not cancelled"
                    )
