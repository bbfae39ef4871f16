"""How much of one deployment's limit each live run may fill (max-min fair over tenants, work conserving)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sluicegate.core.tenancy import ClientBatchRow

SMALL: Final = 0.05
"""Of what is divided: a run that asks for no more goes in one piece, and a share is rounded to whole ones. Each piece costs
several calls, and what is left empty for it is less than one such run, of all tenants together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one run asks for.

    Attributes:
        tokens: What it holds and reserves plus what it could still submit; ``held``: the former alone.
        tenant: Whose it is; a run without a tenant is a tenant of its own.
        due_at, since: Within a tenant the earlier due goes first, then the older; Unix seconds.
        run: Its id, which decides between equals.
        needs: The smallest request that it could send next, where that is larger than its share and its tenant has nothing
            under way; else 0. ``needs_since``: since when it waits for that, Unix seconds.
    """

    tokens: int
    tenant: str
    held: int = 0
    run: str = ""
    due_at: float = float("inf")
    since: float = 0.0
    needs: int = 0
    needs_since: float = 0.0

    @property
    def order(self) -> tuple[float, float, str]:
        """The lower goes first within a tenant."""
        return self.due_at, self.since, self.run


def shares(limit: int, claims: Mapping[str, Claim], weights: Mapping[str, float] | None = None) -> dict[str, int]:
    """Divide ``limit`` among tenants by weight, and each tenant's share among its runs by due time, then age.

    No tenant gets more than its runs ask for; what is left goes to the others by their weights, so a tenant alone may
    use all of it. Where a tenant's share ends within a small run (:data:`SMALL`) it is rounded, up or down, as seats are
    among parties: by the largest remainder, and who has begun keeps what it has.

    Args:
        limit: Tokens to divide: the limit less what others' batches hold.
        claims: Per run.
        weights: Per tenant, above 0; 1 where none is given.

    Returns:
        Tokens for each run; the sum is at most ``limit``, and ``min(limit, sum of claims)`` but for less than one small run.
    """
    weights = weights or {}
    asked: dict[str, int] = {}
    for claim in claims.values():
        asked[claim.tenant] = asked.get(claim.tenant, 0) + claim.tokens
    left, granted = max(0, limit), dict.fromkeys(asked, 0)
    # Whoever asks for least per weight is satisfied first; what it leaves is divided among the rest.
    order = sorted(asked, key=lambda tenant: (asked[tenant] / weights.get(tenant, 1.0), tenant))
    heavy = sum(weights.get(tenant, 1.0) for tenant in order)
    for i, tenant in enumerate(order):
        weight = weights.get(tenant, 1.0)
        fair = left if i == len(order) - 1 else min(left, int(left * weight / heavy))
        granted[tenant] = min(asked[tenant], fair)
        left -= granted[tenant]
        heavy -= weight
    result: dict[str, int] = {}
    ends: dict[str, str] = {}
    for run in sorted(claims, key=lambda run: (*claims[run].order, run)):
        claim = claims[run]
        result[run] = min(claim.tokens, granted[claim.tenant])
        granted[claim.tenant] -= result[run]
        if result[run] < claim.tokens:
            ends.setdefault(claim.tenant, run)
    return _rounded(result, claims, limit, list(ends.values()))


def _rounded(result: dict[str, int], claims: Mapping[str, Claim], limit: int, ends: list[str]) -> dict[str, int]:
    """Give what the small ones of ``ends`` would have of their tenants' shares to as many of them as go whole."""
    small = [run for run in ends if goes_whole(run, claims, limit)]
    pool = sum(result[run] for run in small)
    for run in sorted(small, key=lambda run: (not claims[run].held, -result[run] / claims[run].tokens, run)):
        claim = claims[run]
        result[run] = claim.tokens if claim.tokens <= pool else min(claim.held, pool)
        pool -= result[run]
    for run in ends:  # runs that go in pieces have room for any rest
        if run not in small:
            more = min(pool, claims[run].tokens - result[run])
            result[run] += more
            pool -= more
    return result


def goes_whole(run: str, claims: Mapping[str, Claim], limit: int) -> bool:
    """Whether a run waits until it goes in one piece; not if it begins: what waits always has a sibling that returns room."""
    return claims[run].tokens <= SMALL * limit and not begins(run, claims)


def begins(run: str, claims: Mapping[str, Claim]) -> bool:
    """Whether nothing of its tenant's is under way, and it is the first of its tenant's that waits."""
    siblings = {r: claim for r, claim in claims.items() if claim.tenant == claims[run].tenant}
    if any(claim.held for claim in siblings.values()):
        return False
    return run == min((r for r in siblings if siblings[r].tokens), key=lambda r: (*siblings[r].order, r), default=run)


WINDOW_LIVES: Final = 2.0
"""For so many lives of a batch a gate is drained for a request that needs more than a share; what is under way then ends within
one, usually."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one run may fill.

    Attributes:
        share, tenant_share: In tokens, for itself and for all runs of its tenant.
        fair: Its share if everybody could use theirs.
        set_aside: Tokens of the limit that it leaves free, for other runs whose turn it is.
        whole: It waits until all that waits of it goes in one piece.
        begins: Nothing of its tenant's is under way, and it is the first of its tenant's that waits.
    """

    share: int
    tenant_share: int
    fair: int
    set_aside: int
    whole: bool
    begins: bool


def grant(
    run: str, claims: Mapping[str, Claim], weights: Mapping[str, float] | None = None, *, limit: int, most: int,
    life_s: float | None, now: float,
) -> Grant:  # fmt: skip
    """The share of one run, while others may need more than theirs for a single request.

    Who needs more than its share leaves it to the others, and gets a turn once that share would have let as much through:
    the others then leave as much free as it needs. If there still is no room after :data:`WINDOW_LIVES` (a batch is stuck, or
    its process is), they go on, and the next turn comes as before.

    Args:
        run: Whose share; one of ``claims``.
        limit: Tokens to divide. ``most``: what could be free at most, if all of ours had ended.
        life_s: How long a batch lives, None while none has ended; no turn comes before that.
        now: Unix seconds.
    """
    me, weights = claims[run], weights or {}
    fair = shares(limit, claims, weights)
    waiting = {r: c for r, c in claims.items() if c.needs and c.tenant != me.tenant}
    idle = {claim.tenant for claim in waiting.values()}
    present = {r: c for r, c in claims.items() if c.tenant not in idle}
    open_to_me = shares(limit, present, weights) if idle else fair
    siblings = [r for r, claim in claims.items() if claim.tenant == me.tenant]
    return Grant(
        share=open_to_me[run],
        tenant_share=sum(open_to_me[r] for r in siblings),
        fair=fair[run],
        set_aside=sum(
            claim.needs
            for r, claim in waiting.items()
            if claim.needs <= most and _has_turn(claim, fair[r], life_s, now) and not (me.needs and _before(me, claim))
        ),
        whole=goes_whole(run, claims, limit),
        begins=begins(run, claims),
    )


def _has_turn(claim: Claim, share: int, life_s: float | None, now: float) -> bool:
    if not life_s:
        return False
    wait_s = life_s * claim.needs / max(1, share)
    return (now - claim.needs_since) % (wait_s + WINDOW_LIVES * life_s) >= wait_s


def _before(one: Claim, other: Claim) -> bool:
    return (one.needs_since, one.run) < (other.needs_since, other.run)


def in_turn(
    waiting: Iterable[ClientBatchRow], under_way: Mapping[str, int], *, room: int, one_each: bool = False
) -> list[ClientBatchRow]:
    """Which batches are begun next: the tenant's that has fewest under way, its earliest due first, then its oldest.

    Args:
        under_way: Batches of each tenant that were begun and have not ended.
        room: How many more may be begun.
        one_each: A tenant that has nothing under way may begin one though there is no room: it need not wait until a
            whole batch of another has ended.
    """
    queue = sorted(waiting, key=lambda batch: (batch.due_at, batch.created_at, batch.id))
    busy = dict(under_way)
    chosen: list[ClientBatchRow] = []
    while queue:
        batch = min(queue, key=lambda batch: busy.get(batch.tenant, 0))
        if len(chosen) >= room and not (one_each and not busy.get(batch.tenant)):
            break
        queue.remove(batch)
        chosen.append(batch)
        busy[batch.tenant] = busy.get(batch.tenant, 0) + 1
    return chosen
