"""The numbers that the provider does not show: quota rows, and where a run stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from sluicegate.core import belief, forecast
from sluicegate.core.belief import Pace
from sluicegate.core.lifecycle import Stage
from sluicegate.core.report import Event, EventKind, Progress, QuotaRow
from sluicegate.core.rows import DeploymentRow, RunRow, scope
from sluicegate.ports import Tx
from sluicegate.service import scheduler
from sluicegate.service.context import Policy


def deployments(tx: Tx, resource: str, tenant: str | None, configured: Iterable[str]) -> list[DeploymentRow]:
    """The deployments that a tenant may know of, by name: those of the settings, and those that its own runs go to.

    Args:
        tenant: None for all there are.
        configured: Names of the settings; a row is made up for one that nothing was sent to yet.
    """
    known = {row.name: row for row in tx.deployments(resource=resource)}
    shown = set(configured) | (set(known) if tenant is None else _aimed_at(tx, tenant) & set(known))
    return [known.get(name) or unused(resource, name) for name in sorted(shown)]


def unused(resource: str, name: str) -> DeploymentRow:
    """A deployment of which nothing is known but its name."""
    return DeploymentRow(
        id=scope(resource, name), resource=resource, name=name, model=None, belief=belief.dump(belief.Belief())
    )


def _aimed_at(tx: Tx, tenant: str) -> set[str]:
    found: set[str] = set()
    for groups, redirect, names in tx.aims_of_tenant(tenant):
        table = msgspec.json.decode(names) if names else {}
        found |= {redirect or table.get(model, model) for _, model in msgspec.json.decode(groups)}
    return found


@dataclass(slots=True)
class Ear:
    """Hears what is told of a run, whoever tells it: the rows are the truth, so a follower hears the driver too."""

    after: int = 0
    refusal: str | None = None
    learned: str | None = None

    def hear(self, tx: Tx, run: str) -> list[Event]:
        """The run's events since the last time."""
        found = tx.events(run=run, after=self.after)
        for self.after, event in found:
            if event.kind is EventKind.REFUSED:
                self.refusal = event.sentence
            elif event.kind in (EventKind.LIMIT_CHANGED, EventKind.CALIBRATED):
                self.learned = event.sentence
        return [event for _, event in found]


def quota(
    tx: Tx, row: DeploymentRow, policy: Policy, now: float, live: frozenset[str], *, cap: int | None = None
) -> QuotaRow:
    """One deployment's quota, from our rows as they are now; ``cap`` is a limit told by the person who asks."""
    known = belief.load(row.belief)
    demands = tx.demands(row.id, runs=live)
    caps = [c for c in (cap, scheduler.cap_of(row, None, demands)) if c is not None]
    limits = belief.allowance(known, min(caps, default=None), now)
    stands = scheduler.standing(tx, row, known, policy, now)
    held = stands.balance.held + stands.lagging
    foreign = [f for f in tx.foreign(row.resource) if f.deployment in (row.name, "*")]
    waiting = sum(d.tokens for d in demands)
    ours = [p for p in stands.parts if p.stage is Stage.HELD]
    used = stands.balance.reserved + held + stands.foreign
    seen = tx.resource(row.resource)
    pace = known.pace
    next_release = None
    if pace.hold_s is not None and ours:
        next_release = max(now, min((p.held_at or now) + pace.hold_s for p in ours))
    drain_s = forecast.drain_s(waiting, limit=limits.limit, pace=pace)
    idle_at = None
    if drain_s is not None and pace.hold_s is not None:
        idle_at = now + (drain_s if waiting or not ours else pace.hold_s)
    return QuotaRow(
        deployment=row.name, resource=row.resource, model=row.model or policy.models.get(row.name),
        limit=limits.limit, limit_source=limits.source, reserved=stands.balance.reserved, held=held,
        foreign=stands.foreign, headroom=None if limits.limit is None else max(0, limits.limit - used),
        waiting=waiting, provider_batches=len(ours) + len(foreign),
        calibration=round(max(known.tokens_factor, known.chars_factor), 4), next_release_at=next_release,
        idle_at=idle_at, observed_at=seen.listed_at if seen and seen.listed_at else None, paused=row.paused,
    )  # fmt: skip


def pace_of(row: DeploymentRow) -> Pace:
    """What was measured of a deployment's batches."""
    return belief.load(row.belief).pace


def tightest(known: Iterable[tuple[QuotaRow, Pace]]) -> tuple[int | None, Pace]:
    """The least limit of several deployments, and the pace there: a plan of work for all of them goes by it."""
    bounded = [(row.limit, pace) for row, pace in known if row.limit is not None]
    return min(bounded, key=lambda one: one[0], default=(None, Pace()))


def _alone_s(tx: Tx, run: RunRow, row: QuotaRow) -> float | None:
    """Seconds that what a run has under way and waiting would take on a deployment if nothing else waited there."""
    deployment = tx.deployment(scope(run.resource, row.deployment))
    assert deployment is not None, "a quota row is of a deployment that is known"
    mine = sum(d.tokens for d in tx.demands(deployment.id, runs=frozenset({run.id})))
    pace = pace_of(deployment)
    alone = forecast.drain_s(mine, limit=row.limit, pace=pace)
    return pace.hold_s if alone == 0.0 else alone


def progress(
    tx: Tx, run: RunRow, policy: Policy, now: float, live: frozenset[str], *, settled: int, failed: int,
    started_at: float, waits_for: str, last_refusal: str | None, learned: str | None,
) -> Progress:  # fmt: skip
    """Where a run stands; ``settled`` and ``failed`` count requests that are done for good."""
    parts = tx.parts(run=run.id)
    names = {part.deployment for part in parts}
    rows = tuple(
        quota(tx, row, policy, now, live) for row in tx.deployments(resource=run.resource)
        if row.id in names or tx.demands(row.id, runs=frozenset({run.id}))
    )  # fmt: skip
    waiting = sum(len(spans) for spans in tx.waiting(run.id).values())
    under_way = sum(part.count for part in parts if part.stage.counts)
    home = [part for part in parts if part.stage in (Stage.ENDED, Stage.COLLECTED)]
    done_tokens = sum(part.tokens for part in home)
    since = min((part.held_at for part in parts if part.held_at is not None), default=None)
    elapsed = now - since if since is not None else 0.0
    rate = done_tokens / elapsed if done_tokens and elapsed > 0 else None
    left = max(0, run.tokens - done_tokens)
    finish = late = None
    if rate:
        # The first batches took their whole life before anything came home: the early figure assumes that the gate
        # stays as full as it is, the late one that it goes on as it has on average.
        late = now + left / rate
        idle = [row.idle_at for row in rows if row.idle_at is not None]
        finish = min(late, max(idle)) if idle else late
    elif rows and left:
        # Nothing is home yet: by what other batches there took, alone at the earliest, after all that waits at the latest.
        alone = [_alone_s(tx, run, row) for row in rows]
        after = [row.idle_at for row in rows]
        if None not in alone and None not in after:
            finish = now + max(s for s in alone if s is not None)
            late = max(finish, *(at for at in after if at is not None))
    return Progress(
        at=now, started_at=started_at, total=run.requests, waiting=waiting, enqueued=under_way, done=settled - failed,
        failed=failed, tokens_total=run.tokens, tokens_done=done_tokens,
        tokens_per_minute=rate * 60 if rate else None, finish_at=finish, finish_at_late=late, quotas=rows,
        waits_for=waits_for, last_refusal=last_refusal, learned=learned,
    )  # fmt: skip
