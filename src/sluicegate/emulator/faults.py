"""What goes wrong, when, and how often: rules as data, and the pure book-keeping of which call each rule hits."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from sluicegate.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something goes wrong.

    Attributes:
        on: Where: a call, ``file`` (an uploaded file), ``batch``, or ``line``. ``kind``: what, see :data:`KINDS`.
        nth: The first call, file, batch, or line of each input file that it hits, from 1, counted since the rule
            exists, and among those that ``deployment``, ``batch``, ``at`` and ``until`` let through. ``times``: how many
            from there, 0 for all. ``every``: only each such one of them.
        at, until: Only from then on, and only before then: emulated seconds since the rule exists.
        chance: Hit only with this probability, by the account's seed.
        once: For lines: only the first time that a request is executed.
        deployment: Only batches of it. ``batch``: only this one, by its number since the start, from 1.
        seconds: How long ``slow``, ``slow_validating``, ``lag``, ``release_late`` take, emulated seconds; of ``slow``, real
            ones where the clock is moved by hand, since who waits for the reply cannot move it.
        factor: ``count``: tokens that are counted for one of tiktoken's, in the queue and in ``usage``.
    """

    on: str
    kind: str
    nth: int = 1
    times: int = 1
    every: int = 1
    chance: float = 1.0
    at: float = 0.0
    until: float = float("inf")
    once: bool = True
    deployment: str | None = None
    batch: int | None = None
    seconds: float = 0.0
    factor: float = 1.0


# lost: the reply is lost after the commit · reset: the connection breaks before it · slow: the reply takes ``seconds``
CALL: Final = frozenset({"lost", "reset", "slow", "429", "500", "502", "503", "504"})

KINDS: Final[dict[str, frozenset[str]]] = {
    # file_missing: the input file is not found, as happens right after its upload (F§5.3)
    "create": CALL | {"file_missing"},
    "upload": CALL | {"quota"},
    "get": CALL,
    "file_get": CALL,
    "file_list": CALL | {"lag", "empty"},
    "cancel": CALL | {"409"},
    "delete": CALL,
    # lag: batches of the last ``seconds`` are not listed yet · empty: an empty page that says has_more
    "list": CALL | {"lag", "empty"},
    # truncated: a body shorter than it should be, ended properly · broken: it breaks off half-way · corrupt: wrong bytes
    "download": CALL | {"broken", "truncated", "corrupt"},
    "file": frozenset({"stuck_pending", "error"}),
    "batch": frozenset(
        {
            "stuck_validating", "slow_validating", "stuck_in_progress", "stuck_finalizing", "stuck_cancelling", "expire",
            "fail", "input_modified", "count", "release_late", "release_never",
        }
    ),
    # content_filter: the prompt is refused · content_filter_completion: the answer is cut, its line has status 200
    "line": frozenset(
        {
            "missing", "doubled", "swapped", "unknown", "0", "429", "500", "content_filter", "content_filter_completion"
        }
    ),
}  # fmt: skip

FAILED_LINES: Final = frozenset({"0", "429", "500", "content_filter"})
"""Kinds of faults on a line that make it a failed request, in the error file."""

SILENT_LINES: Final = FAILED_LINES | {"missing"}
"""Kinds of faults on a line to which nobody answers."""

NEEDS_SECONDS: Final = frozenset({"slow", "slow_validating", "lag", "release_late"})


class FaultBook:
    """Rules, and how often each was met. Everything follows from the seed, the order of calls and their times.

    Args:
        rules: From the account; :meth:`add` adds more while it runs.
    """

    def __init__(self, rules: tuple[Fault, ...], seed: int) -> None:
        self._seed = seed
        self._rules: list[Fault] = list(rules)
        self._met: list[int] = [0] * len(rules)
        self._since: list[float] = [0.0] * len(rules)

    @property
    def rules(self) -> tuple[Fault, ...]:
        """All rules, the oldest first."""
        return tuple(self._rules)

    def begin(self, now: float) -> None:
        """The account's rules exist from now, Unix seconds."""
        self._since = [now] * len(self._rules)

    def add(self, fault: Fault, now: float = 0.0) -> None:
        """One more rule; it counts from now."""
        self._rules.append(fault)
        self._met.append(0)
        self._since.append(now)

    def clear(self) -> None:
        """No rule any more."""
        self._rules.clear()
        self._met.clear()
        self._since.clear()

    def next_change_at(self, now: float) -> float | None:
        """When a rule about lines begins or ends next; between two such times all executed lines are alike."""
        times = [
            since + at
            for fault, since in zip(self._rules, self._since, strict=True)
            if fault.on == "line"
            for at in (fault.at, fault.until)
        ]
        return min((at for at in times if now < at < float("inf")), default=None)

    def hit(
        self, on: str, *, now: float = 0.0, deployment: str | None = None, batch: int | None = None, count: bool = True
    ) -> Fault | None:
        """The first rule that hits a call, file or batch, if any; it is counted, unless ``count`` is False."""
        found = None
        for i, fault in enumerate(self._rules):
            if fault.on != on or not self._concerns(i, now, deployment, batch):
                continue
            number = self._met[i] + 1
            if found is None and self._strikes(i, number, ""):
                found = fault
            if count:
                self._met[i] = number
        return found

    @property
    def on_lines(self) -> bool:
        """Whether any rule is about lines."""
        return any(fault.on == "line" for fault in self._rules)

    def on_line(self, line: int, *, now: float, deployment: str, batch: int, again: bool) -> str | None:
        """The kind that hits the line (from 1) of a batch; ``again``: the request was hit before."""
        for i, fault in enumerate(self._rules):
            if fault.on != "line" or (fault.once and again) or not self._concerns(i, now, deployment, batch):
                continue
            if self._strikes(i, line, f"{batch}:"):
                return fault.kind
        return None

    def _concerns(self, rule: int, now: float, deployment: str | None, batch: int | None) -> bool:
        fault, begun = self._rules[rule], self._since[rule]
        in_time = begun + fault.at <= now < begun + fault.until
        return in_time and fault.deployment in (None, deployment) and fault.batch in (None, batch)

    def _strikes(self, rule: int, number: int, where: str) -> bool:
        fault = self._rules[rule]
        since = number - fault.nth
        if since < 0 or since % fault.every or (fault.times and since // fault.every >= fault.times):
            return False
        return fault.chance >= 1.0 or random.Random(f"{self._seed}:{rule}:{where}{number}").random() < fault.chance


def checked(fault: Fault) -> Fault:
    """The fault, if there is such a place and kind and its numbers make sense.

    Raises:
        UsageError: not so; the message lists what there is.
    """
    if fault.kind not in KINDS.get(fault.on, frozenset()):
        known = "; ".join(f"{on}: {', '.join(sorted(kinds))}" for on, kinds in KINDS.items())
        raise UsageError(f"there is no fault {fault.kind!r} on {fault.on!r}; there are {known}")
    if fault.nth < 1 or fault.every < 1 or fault.times < 0 or not 0 <= fault.chance <= 1 or fault.factor <= 0:
        raise UsageError("a fault's nth and every are from 1, times from 0, chance from 0 to 1, factor above 0")
    if fault.at < 0 or fault.until <= fault.at:
        raise UsageError("a fault's at is from 0, its until after that")
    if fault.kind in NEEDS_SECONDS and fault.seconds <= 0:
        raise UsageError(f"a fault {fault.kind!r} needs seconds")
    return fault
