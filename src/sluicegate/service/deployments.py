"""Deployments become known when work for them does, with what the account says of their limits."""

from __future__ import annotations

from sluicegate.core import belief
from sluicegate.core.rows import DeploymentRow, scope
from sluicegate.ports import Tx
from sluicegate.service.context import Context, Record
from sluicegate.service.submitter import say_learned


async def ensure_deployment(ctx: Context, resource: str, name: str) -> None:
    """Make a deployment known, with what the account says of its limit where the login may read it (D9)."""
    known = await ctx.store.transact(lambda tx: tx.deployment(scope(resource, name)))
    limit = await ctx.backend.deployment_limit(name)
    now = ctx.clock.now()
    record = Record(now)

    def write(tx: Tx) -> None:
        row = tx.deployment(scope(resource, name))
        if row is None:
            row = DeploymentRow(
                id=scope(resource, name), resource=resource, name=name, model=ctx.policy.models.get(name),
                belief=belief.dump(belief.Belief()),
            )  # fmt: skip
            tx.insert(row)
        if limit is not None:
            before = belief.load(row.belief)
            after = belief.account_seen(before, now, limit)
            tx.update_deployment(row.id, belief=belief.dump(after))
            say_learned(record, row, before, after)
        record.store(tx)

    if known is None or limit is not None:
        await ctx.store.transact(write)
        record.tell(ctx)
