"""One turn of the scheduler: load, decide, cut and reserve in one transaction (D1, D2, D8)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from sluicegate.core import admission, belief, cut, fairness, ledger
from sluicegate.core.admission import Admit, Gate, HoldBack
from sluicegate.core.belief import Belief
from sluicegate.core.ledger import Balance, Dimension, Verb
from sluicegate.core.lifecycle import Stage
from sluicegate.core.limits import counts_requests
from sluicegate.core.report import EventKind
from sluicegate.core.rows import DemandRow, DeploymentRow, PartRow, RunRow, scope
from sluicegate.core.tenancy import TenantRow
from sluicegate.core.types import Dialect
from sluicegate.core.waiting import Spans
from sluicegate.errors import SluicegateError
from sluicegate.ports import Tx
from sluicegate.service.context import Context, Policy, Record
from sluicegate.service.work import Work, requests_of

GIVE_UP_AFTER_S: Final = 600.0
"""Between two refusals of one request alone at an empty gate, where no number tells the limit: who else holds tokens
unseen may have gone by then."""

COUNTING = frozenset({Stage.RESERVED, Stage.SUBMITTING, Stage.HELD})


@dataclass(frozen=True, slots=True, kw_only=True)
class TooLarge:
    """A request that was refused alone at an empty gate, twice: it exceeds the deployment's limit."""

    part: PartRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a deployment's scope holds now, by our books and by what we know of others."""

    balance: Balance
    foreign: int
    lagging: int
    parts: list[PartRow]


def standing(tx: Tx, deployment: DeploymentRow, known: Belief, policy: Policy, now: float) -> Standing:
    """Add up everything that counts against a deployment's limit."""
    foreign = sum(
        known.charge(row.tokens, row.quarter_chars, 1.0)
        for row in tx.foreign(deployment.resource)
        if row.deployment in (deployment.name, "*")
    )
    lag = max(known.lag_s(now), policy.release_lag_s)
    lagging = sum(part.charge for part in tx.left_since(deployment.id, now - lag)) if lag else 0
    return Standing(
        balance=tx.balance(deployment.id, Dimension.TOKENS),
        foreign=foreign,
        lagging=lagging,
        parts=tx.parts(deployment=deployment.id, stages=COUNTING),
    )


def enqueued_requests(
    tx: Tx, deployment: DeploymentRow, known: Belief, policy: Policy, dialect: Dialect, now: float
) -> int:
    """What counts against a deployment's limit of enqueued requests: ours, others', and what ended too lately."""
    lag = max(known.lag_s(now), policy.release_lag_s)
    lately = tx.left_since(deployment.id, now - lag) if lag else []
    return (
        tx.balance(deployment.id, Dimension.REQUESTS).total
        + sum(row.requests for row in tx.foreign(deployment.resource) if row.deployment in (deployment.name, "*"))
        + sum(part.count for part in lately if counts_requests(dialect, part.url))
    )


def cap_of(deployment: DeploymentRow, run: RunRow | None, demands: Iterable[DemandRow]) -> int | None:
    """The least of the limits that persons set: by hand, for this run, for other runs whose ``demands`` they are."""
    caps = [deployment.cap_override, run.cap if run else None, *(row.cap for row in demands)]
    return min((c for c in caps if c is not None), default=None)


async def turn(
    ctx: Context, work: Work, name: str, live: frozenset[str], *, stopping: bool = False,
    requests_most: int | None = None,
) -> PartRow | HoldBack | TooLarge:  # fmt: skip
    """Let the next part of a run through to the deployment ``name``, or say why not.

    Args:
        live: Ids of runs that living processes drive, this one included.
        stopping: Only withdraw this run's demand, so that others need not wait for it.
        requests_most: Of the next part, where money bounds it.
    """
    now = ctx.clock.now()
    record = Record(now, work.run.id)
    new_id = ctx.ids.new("part")
    policy = ctx.policy
    if requests_most is not None:
        policy = replace(policy, requests_max=min(policy.requests_max, requests_most))
    result = await ctx.store.transact(lambda tx: _turn(tx, policy, work, name, live, now, new_id, record, stopping))
    record.tell(ctx)
    return result


def _turn(
    tx: Tx, policy: Policy, work: Work, name: str, live: frozenset[str], now: float, new_id: str, record: Record,
    stopping: bool,
) -> PartRow | HoldBack | TooLarge:  # fmt: skip
    run = tx.run(work.run.id)
    assert run is not None, "a run that is driven has a row"
    row = tx.deployment(scope(run.resource, name))
    assert row is not None, "a run's deployments are known before its first turn"
    known = belief.load(row.belief)
    margin = policy.margin
    by_group = {
        group: waits for group, waits in _waiting_by_group(tx, run.id).items() if work.deployment_of(group) == name
    }
    demand = sum(known.charge(*work.sums(waits), margin) for waits in by_group.values())
    others = {d.run: d for d in tx.demands(row.id, runs=live | {run.id})}
    before = others.pop(run.id, None)
    wanted = DemandRow(
        run=run.id, deployment=row.id, tokens=0 if stopping else demand, cap=run.cap, at=now,
        needs=before.needs if before else 0, needs_since=before.needs_since if before else now,
    )  # fmt: skip
    if (before.tokens if before else 0) != wanted.tokens or (before is not None and before.cap != wanted.cap):
        tx.put_demand(wanted)
    if stopping or not by_group:
        return HoldBack(reason="nothing waits for this deployment")
    group = min(by_group, key=lambda g: work.ordinal(by_group[g].spans[0][0]))
    waits = by_group[group]
    gate = _gate(tx, work, run, row, known, policy, others, now, group, waits, wanted)
    verdict = admission.decide(gate, now)
    if isinstance(verdict, HoldBack):
        if not gate.one_over_share:
            _put_needs(tx, wanted, 0, now)
        return verdict
    refusals = tx.parts(run=run.id, deployment=row.id, stages=frozenset({Stage.REFUSED}))
    if verdict.alone:
        doubly = _refused_alone(refusals, waits, known.known, gate.limits.limit or 0)
        if doubly is not None:
            return TooLarge(part=doubly)
    refused = [part for part in refusals if not part.cleaned]
    most = policy.requests_max
    if gate.requests is not None:
        most = min(most, known.requests_limit(now) - gate.requests)
    again = _offer_again(refused, work, known, margin, waits, verdict, most)
    chosen: cut.Slice | None
    if again is not None:
        chosen, file_id, attempt = again
        group = next(p.group for p in refused if p.file_id == file_id)
    else:
        chosen, file_id, attempt = _cut(work, known, policy, group, waits, verdict.size, most), None, 0
        if chosen is None and verdict.size_at_need > verdict.size:
            chosen = _cut(work, known, policy, group, waits, verdict.size_at_need, most)
    if chosen is None:
        needs = min(gate.limits.limit or 0, _least(work, known, margin, waits))
        _put_needs(tx, wanted, needs if gate.one_over_share and needs > (gate.fair_share or 0) else 0, now)
        return HoldBack(reason=f"the next request does not fit into the room of {verdict.size:,} tokens")
    _put_needs(tx, wanted, 0, now)
    part = PartRow(
        id=new_id, run=run.id, deployment=row.id, resource=run.resource, url=work.groups[group].url, group=group,
        stage=Stage.RESERVED, requests=str(chosen.requests), retries=_take(tx, run.id, group, chosen.requests),
        count=chosen.count, tokens=chosen.tokens, quarter_chars=chosen.quarter_chars, bytes=chosen.bytes,
        charge=chosen.charge, attempt=attempt, fill=gate.fill + chosen.charge, unproven=verdict.unproven,
        probing=verdict.probing, reason=verdict.reason, created_at=now, blob=f"parts/{new_id}.jsonl", file_id=file_id,
    )  # fmt: skip
    _reserve(tx, part, gate, verdict, now, Dialect(run.dialect))
    tx.insert(part)
    tx.update_run(run.id, serial=run.serial + 1)
    if again is not None:
        for old in refused:
            if old.file_id == file_id:
                tx.update_part(old.id, Stage.REFUSED, file_id=None, cleaned=True)
    record.add(
        EventKind.CUT,
        f"part {part.id}: {part.count:,} requests, {part.charge:,} tokens for {name}: {verdict.reason}",
        part=part.id, deployment=name, requests=part.count, tokens=part.tokens, reserved=part.charge,
        reason=verdict.reason,
    )  # fmt: skip
    record.store(tx)
    return part


async def still_fits(ctx: Context, part: PartRow) -> bool:
    """Whether a reserved part may still go: nothing was refused since it was cut, and the limit still covers it."""

    def fits(tx: Tx) -> bool:
        row = tx.deployment(part.deployment)
        assert row is not None, "a part's deployment has a row"
        known = belief.load(row.belief)
        now = ctx.clock.now()
        run = tx.run(part.run)
        cap = cap_of(row, run, tx.demands(row.id, runs=frozenset({part.run})))
        limit = belief.allowance(known, cap, now).limit
        stands = standing(tx, row, known, ctx.policy, now)
        later = [p for p in stands.parts if p.stage is Stage.RESERVED and p.created_at > part.created_at]
        fill = stands.balance.total + stands.foreign + stands.lagging - sum(p.charge for p in later)
        if run is not None and counts_requests(dialect := Dialect(run.dialect), part.url):
            requests = enqueued_requests(tx, row, known, ctx.policy, dialect, now)
            if requests - sum(p.count for p in later if counts_requests(dialect, p.url)) > known.requests_limit(now):
                return False
        return known.refused_at <= part.created_at and (limit is None or fill <= limit or part.charge > limit)

    return await ctx.store.transact(fits)


def _waiting_by_group(tx: Tx, run: str) -> dict[int, Spans]:
    by_group: dict[int, Spans] = {}
    for (group, _), spans in tx.waiting(run).items():
        by_group[group] = by_group[group] | spans if group in by_group else spans
    return by_group


def _gate(
    tx: Tx, work: Work, run: RunRow, row: DeploymentRow, known: Belief, policy: Policy,
    others: dict[str, DemandRow], now: float, group: int, waits: Spans, wanted: DemandRow,
) -> Gate:  # fmt: skip
    limits = belief.allowance(known, cap_of(row, run, others.values()), now)
    stands = standing(tx, row, known, policy, now)
    mine = sum(part.charge for part in stands.parts if part.run == run.id)
    largest = known.charge(*work.largest[group], policy.margin)
    if limits.limit is not None and largest > limits.limit:
        largest = max(known.charge(work.tokens[p], work.chars[p] // 4, policy.margin) for p in waits)
    granted = None
    if others and limits.limit is not None:
        wanting = others | {run.id: wanted}
        holdings = dict.fromkeys(wanting, 0)
        for part in stands.parts:
            holdings[part.run] = holdings.get(part.run, 0) + part.charge
        rows = {row.id: row for row in tx.runs(ids=frozenset(holdings))}
        idle = {
            r: DemandRow(run=r, deployment=row.id, tokens=0, cap=None, at=now) for r in holdings if r not in wanting
        }
        claims = {r: _claim(rows.get(r), holdings[r], one) for r, one in (wanting | idle).items()}
        granted = fairness.grant(
            run.id, claims, {tenant.id: tenant.weight for tenant in tx.find(TenantRow)},
            limit=limits.limit - stands.foreign - stands.lagging, most=limits.limit - stands.foreign,
            life_s=known.pace.hold_s, now=now,
        )  # fmt: skip
    looked = tx.resource(run.resource)
    since = max(now - policy.poll_s, looked.listed_at if looked else 0.0)
    creates, creates_at = _creates_left(tx, run.resource, policy, now)
    per_second = (policy.creates_per_hour or 0) / 3600
    dialect = Dialect(run.dialect)
    counted = counts_requests(dialect, work.groups[group].url)
    return Gate(
        limits=limits, belief=known, reserved=stands.balance.reserved, held=stands.balance.held,
        foreign=stands.foreign, lagging=stands.lagging,
        unproven=sum(1 for part in stands.parts if part.unproven and part.validated_at is None),
        submitting=sum(1 for part in stands.parts if part.run == run.id and part.stage is not Stage.HELD),
        waiting=wanted.tokens, largest=largest, mine=mine, my_share=granted.share if granted else None,
        fair_share=granted.fair if granted else None, tenant_share=granted.tenant_share if granted else None,
        whole=granted is not None and granted.whole, one_over_share=granted is not None and granted.begins,
        set_aside=granted.set_aside if granted else 0,
        lately=sum(part.charge for part in stands.parts if since <= part.created_at <= now),
        serial=run.serial, paused=row.paused,
        creates_left=creates, creates_left_at=creates_at, poll_s=policy.poll_s,
        files_left=policy.files_max - tx.files_kept(run.resource),
        part_s_least=2.0 / per_second if per_second else 0.0,
        requests=enqueued_requests(tx, row, known, policy, dialect, now) if counted else None,
    )  # fmt: skip


def _claim(run: RunRow | None, held: int, wanted: DemandRow) -> fairness.Claim:
    claim = fairness.Claim(
        tokens=held + wanted.tokens, held=held, tenant=f"run:{wanted.run}", run=wanted.run, needs=wanted.needs,
        needs_since=wanted.needs_since,
    )  # fmt: skip
    if run is None or run.tenant is None:
        return claim
    due_at = float("inf") if run.due_at is None else run.due_at
    return replace(claim, tenant=run.tenant, due_at=due_at, since=run.created_at)


def _put_needs(tx: Tx, wanted: DemandRow, needs: int, now: float) -> None:
    """Say that a run waits for more than its share, or no longer; it waits since the first time."""
    if needs != wanted.needs:
        since = wanted.needs_since if wanted.needs and needs else now
        tx.put_demand(replace(wanted, needs=needs, needs_since=since))


def _least(work: Work, known: Belief, margin: float, waits: Spans) -> int:
    """The charge of the smallest request that the cut would look at."""
    first = itertools.islice(waits, cut.LOOKAHEAD)
    return min(known.charge(work.tokens[p], work.chars[p] // 4, margin) for p in first)


def _creates_left(tx: Tx, resource: str, policy: Policy, now: float) -> tuple[int, float | None]:
    if policy.creates_per_hour is None:
        return 1, None
    left = policy.creates_per_hour - tx.creates_since(resource, now - 3600)
    return left, None if left > 0 else now + 60


def _refused_alone(refused: list[PartRow], waits: Spans, number: int | None, limit: int) -> PartRow | None:
    """The second refusal of one request that still waits, if there is such a request.

    Args:
        number: The limit as the provider names it; what is below is never given up. ``limit``: what is taken for the
            limit where no number is known.
    """
    above = limit if number is None else number
    alone = [part for part in refused if part.count == 1 and part.charge > above and not requests_of(part) - waits]
    seen: dict[str, PartRow] = {}
    for part in sorted(alone, key=lambda part: part.created_at):
        first = seen.setdefault(part.requests, part)
        if part is not first and (number is not None or part.created_at >= first.created_at + GIVE_UP_AFTER_S):
            return part
    return None


def _offer_again(
    refused: list[PartRow], work: Work, known: Belief, margin: float, waits: Spans, verdict: Admit, most: int
) -> tuple[cut.Slice, str, int] | None:
    """A refused part whose file is still at the provider and fits now (D11), also by its requests, at most ``most``."""
    for part in refused:
        requests = requests_of(part)
        charge = known.charge(part.tokens, part.quarter_chars, margin)
        fits = part.count <= most and charge <= verdict.size
        if part.file_id and fits and 2 * charge >= verdict.size and not requests - waits:
            chosen = cut.Slice(
                requests=requests, count=part.count, tokens=part.tokens, quarter_chars=part.quarter_chars,
                bytes=part.bytes, charge=charge,
            )  # fmt: skip
            return chosen, part.file_id, part.attempt
    return None


def _cut(work: Work, known: Belief, policy: Policy, group: int, waits: Spans, size: int, most: int) -> cut.Slice | None:
    target = work.deployment_of(group)
    redirected = len(msgspec.json.encode(target)) if target != work.groups[group].model else 0
    bounds = cut.Bounds(charge=size, requests=most, bytes=policy.bytes_max, extra_bytes=redirected)
    return cut.cut(waits, work.columns, bounds, lambda t, q: known.charge(t, q, policy.margin))


def _take(tx: Tx, run: str, group: int, chosen: Spans) -> str:
    """Remove ``chosen`` from what waits; returns the part's ``retries``."""
    retries: dict[str, str] = {}
    for (g, attempt), spans in tx.waiting(run).items():
        if g != group:
            continue
        taken = spans & chosen
        if taken:
            tx.set_waiting(run, g, attempt, spans - taken)
            if attempt:
                retries[str(attempt)] = str(taken)
    return msgspec.json.encode(retries).decode()


def _reserve(tx: Tx, part: PartRow, gate: Gate, verdict: Admit, now: float, dialect: Dialect) -> None:
    limit = gate.limits.limit
    # The rule that everything exists for (D2); an unknown limit and a lone request on margin are the two exceptions.
    if limit is not None and not verdict.alone and gate.fill + part.charge > limit:
        raise SluicegateError(f"part {part.id} would exceed the limit: {gate.fill} + {part.charge} > {limit}")
    if gate.requests is not None and gate.requests + part.count > (most := gate.belief.requests_limit(now)):
        raise SluicegateError(
            f"part {part.id} would exceed the limit: {gate.requests} + {part.count} requests > {most}"
        )
    amounts = {Dimension.TOKENS: part.charge}
    if counts_requests(dialect, part.url):
        amounts[Dimension.REQUESTS] = part.count
    for dimension, amount in amounts.items():
        tx.append(
            ledger.post(
                Verb.RESERVE, scope=part.deployment, dimension=dimension, part=part.id, before=Balance(), at=now,
                amount=amount,
            )
        )  # fmt: skip


def close(tx: Tx, part: PartRow, verb: Verb, now: float) -> None:
    """Post ``verb`` on a part in every dimension that it has a balance in."""
    for dimension in Dimension:
        before = tx.balance(part.deployment, dimension, part=part.id)
        if before.total:
            tx.append(
                ledger.post(verb, scope=part.deployment, dimension=dimension, part=part.id, before=before, at=now)
            )


def recharge(tx: Tx, deployment: DeploymentRow, before: Belief, after: Belief, policy: Policy, now: float) -> None:
    """When a calibration factor rose, correct what is reserved and held (D9)."""
    if after.tokens_factor <= before.tokens_factor and after.chars_factor <= before.chars_factor:
        return
    for part in tx.parts(deployment=deployment.id, stages=COUNTING):
        charge = after.charge(part.tokens, part.quarter_chars, policy.margin)
        if charge <= part.charge:
            continue
        balance = tx.balance(deployment.id, Dimension.TOKENS, part=part.id)
        if balance.total:
            tx.append(
                ledger.post(
                    Verb.ADJUST, scope=deployment.id, dimension=Dimension.TOKENS, part=part.id, before=balance,
                    at=now, amount=charge,
                )
            )  # fmt: skip
            tx.update_part(part.id, part.stage, charge=charge)


def wait_again(tx: Tx, part: PartRow, again: dict[int, Spans]) -> None:
    """Put requests of a part back among those that wait."""
    waiting = tx.waiting(part.run)
    for attempt, spans in again.items():
        tx.set_waiting(part.run, part.group, attempt, waiting.get((part.group, attempt), Spans()) | spans)
