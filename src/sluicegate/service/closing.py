"""Close a tenant's run early, or a part of it: what waits ends as errors, what was answered is kept (D5).

Early means cancelled, or its time is up; a part of it are the requests of a deployment that the provider does not have.

The run goes on being driven until every request is settled, so its output and error file come out as always.
"""

from __future__ import annotations

from typing import Final

from sluicegate.core.lifecycle import Stage
from sluicegate.core.report import EventKind
from sluicegate.errors import BackendError, Conflict, NotFound
from sluicegate.service.context import Context, note
from sluicegate.service.giving_up import give_up
from sluicegate.service.work import Work

NO_MODEL: Final = "model_not_found"
"""Code of the errors of requests whose deployment the provider does not have, and ``error`` of their part."""


async def settle_waiting(ctx: Context, work: Work, closing: str) -> list[str]:
    """Let every waiting request end with an error line of ours.

    Args:
        closing: ``code: message`` of these lines.

    Returns:
        The keys of the sidecars that were written, for the joiner.
    """
    code, _, message = closing.partition(": ")
    waits = await ctx.store.transact(lambda tx: tx.waiting(work.run.id))
    return [await give_up(ctx, work, group, spans, code, message) for (group, _), spans in waits.items()]


async def settle_missing(ctx: Context, work: Work, deployment: str) -> list[str]:
    """Let what waits for a deployment that the provider does not have end with error lines; the rest goes on.

    The lines name what the client named, never the deployment, which is the operator's business.

    Returns:
        The keys of the sidecars that were written, for the joiner.
    """
    waits = await ctx.store.transact(lambda tx: tx.waiting(work.run.id))
    keys = []
    for (group, _), spans in waits.items():
        if work.deployment_of(group) == deployment:
            message = f"The provider runs no batches for the model '{work.groups[group].model}'."
            keys.append(await give_up(ctx, work, group, spans, NO_MODEL, message))
    return keys


async def cancel_held(ctx: Context, run: str, asked: set[str]) -> None:
    """Ask the provider, once each, to cancel what it holds for ``run``; a call that fails is made again next turn.

    Args:
        asked: Provider batches that were asked for already; grows.
    """
    for part in await ctx.store.transact(lambda tx: tx.parts(run=run, stages=frozenset({Stage.HELD}))):
        if part.provider_batch is None or part.provider_batch in asked:
            continue
        try:
            await ctx.backend.cancel(part.provider_batch)
        except (Conflict, NotFound):
            pass  # it has ended, or is about to be seen as gone: the watcher finds out which
        except BackendError as error:
            await note(ctx, EventKind.TROUBLE, f"{part.provider_batch} could not be cancelled yet: {error}", run=run,
                       part=part.id, where="cancel", message=str(error))  # fmt: skip
            continue
        asked.add(part.provider_batch)
