"""What every turn of the service is given: the ports, and the policy that the settings make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sluicegate.core.prices import Prices
from sluicegate.core.report import Event, EventKind
from sluicegate.ports import Backend, Blobs, Clock, Counter, Ids, Lock, Store, Tx, Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How the work is to be done. Durations are seconds, sizes bytes.

    Attributes:
        poll_s, poll_max_s: The shortest and the longest time between two looks at the provider's list.
        margin: Factor on every reservation.
        attempts: How often a request is sent at most.
        requests_max, bytes_max: Of one part.
        files_max: Input files of ours that may be kept at the provider at once.
        creates_per_hour: Batch creations, or None where the provider states no limit.
        models: Deployment name → model name, for counting and prices.
    """

    poll_s: float = 60.0
    poll_max_s: float = 600.0
    margin: float = 1.02
    attempts: int = 3
    requests_max: int = 100_000
    bytes_max: int = 200_000_000
    files_max: int = 500
    creates_per_hour: int | None = None
    stuck_validating_s: float = 7_200.0
    stuck_in_progress_s: float = 129_600.0
    stuck_resubmit: bool = True
    release_lag_s: float = 0.0
    file_expiry_s: int | None = None
    keep_provider_files: bool = False
    max_cost: float | None = None
    expected_output_tokens: int | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, Prices] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The object graph of one process, as far as the service needs it.

    Attributes:
        instance: This start of this process; part of every intent's key.
        counter: Gives the token counter, in whichever process it is called.
        listen: Called with each event after it is committed.
    """

    clock: Clock
    ids: Ids
    store: Store
    blobs: Blobs
    workers: Workers
    lock: Lock
    backend: Backend
    counter: Callable[[], Counter]
    policy: Policy
    instance: str
    listen: Callable[[Event], None]


class Record:
    """Collects events within a transaction and hands them to the listener once it is committed."""

    def __init__(self, at: float, run: str | None = None) -> None:
        self.at = at
        self.run = run
        self.events: list[Event] = []

    def add(
        self, kind: EventKind, sentence: str, *, run: str | None = None, part: str | None = None,
        deployment: str | None = None, **fields: object,
    ) -> None:  # fmt: skip
        """Note an event; ``fields`` must be JSON values."""
        self.events.append(
            Event(
                at=self.at, kind=kind, sentence=sentence, run=run or self.run, part=part, deployment=deployment,
                fields=dict(fields),
            )
        )  # fmt: skip

    def store(self, tx: Tx) -> None:
        """Write the events with the transaction that they belong to."""
        for event in self.events:
            tx.add_event(event)

    def tell(self, ctx: Context) -> None:
        """Tell the listener."""
        for event in self.events:
            ctx.listen(event)


async def note(ctx: Context, kind: EventKind, sentence: str, **fields: object) -> None:
    """Record one event in a transaction of its own."""
    run, part, deployment = (fields.pop(name, None) for name in ("run", "part", "deployment"))
    record = Record(ctx.clock.now())
    record.add(
        kind, sentence,
        run=str(run) if run else None, part=str(part) if part else None,
        deployment=str(deployment) if deployment else None, **fields,
    )  # fmt: skip
    await ctx.store.transact(record.store)
    record.tell(ctx)
