"""What is said of work before any of it is sent: what is wrong with it, what it costs, how much of it fits now."""

from __future__ import annotations

from typing import Any

from sluicegate.core.belief import Pace
from sluicegate.core.forecast import together, when
from sluicegate.core.prices import cost
from sluicegate.core.report import QuotaRow
from sluicegate.core.rows import scope
from sluicegate.core.rules import CheckRules
from sluicegate.core.types import Dialect
from sluicegate.errors import BackendError, CostLimitExceeded, ProviderRefused, UsageError
from sluicegate.ports import Tx
from sluicegate.service import overview, watcher
from sluicegate.service.context import Context
from sluicegate.service.deployments import ensure_deployment
from sluicegate.service.intake import Inspection
from sluicegate.settings import Settings
from sluicegate.wiring import context


def rules_of(settings: Settings, dialect: Dialect) -> CheckRules:
    """The check's rules from settings."""
    return CheckRules(
        dialect=dialect, limit=settings.limit, line_bytes_max=settings.line_bytes_max, models=dict(settings.models),
        redirect=settings.deployment,
    )  # fmt: skip


def report_of(inspection: Inspection, settings: Settings, dialect: Dialect) -> dict[str, Any]:
    """The check's report (docs/check.md): what the work is, what is wrong with it, what it costs."""
    report = inspection.to_json(limit=settings.limit, dialect=dialect)
    dollars: float | None = 0.0
    missing = []
    output = settings.expected_output_tokens
    for name, sums in report["by_model"].items():
        model = settings.models.get(name, name)
        prices = {key: price.all for key, price in settings.prices.items()}
        one = cost(model, sums["tokens"], (output or 0) * sums["requests"], prices=prices)
        if one is None:
            missing.append(name)
        elif dollars is not None:
            dollars += one
    if missing:
        dollars = None
        note = f"no price is known for {', '.join(missing)}; set one under [prices], or name its model under [models]"
    elif output is None:
        note = "input only; set expected_output_tokens to count answers too"
    else:
        note = f"with {output:,} output tokens a request"
    return report | {"cost_usd": dollars, "cost_note": note, "provider": None}


def refuse_cost(report: dict[str, Any], settings: Settings) -> None:
    """Raise CostLimitExceeded where the work is estimated above ``max_cost``, or no price is known for it."""
    if settings.max_cost is None:
        return
    if report["cost_usd"] is None:
        raise CostLimitExceeded(f"--max-cost needs a price, and {report['cost_note']}; nothing was submitted")
    if report["cost_usd"] > settings.max_cost:
        raise CostLimitExceeded(
            f"the work is estimated at {report['cost_usd']:,.2f} USD ({report['cost_note']}), more than --max-cost "
            f"{settings.max_cost:,.2f}; nothing was submitted"
        )


def dialect_of(settings: Settings) -> Dialect:
    """What the provider speaks, as the settings say or as its address looks, before anybody has asked it."""
    if settings.dialect != "auto":
        return Dialect(settings.dialect)
    azure = settings.azure_endpoint is not None or "/openai/" in (settings.base_url or "")
    return Dialect.AZURE if azure else Dialect.OPENAI


async def ask(
    settings: Settings, inspection: Inspection, by_model: dict[str, dict[str, int]], dialect: Dialect
) -> dict[str, Any]:  # fmt: skip
    """``provider``: how much fits right now, when the first part would go and when all would be done; and the plan anew,
    by what is known of the deployments."""

    def nothing(note: str) -> dict[str, Any]:
        return {"provider": {"fits_now": None, "first_part_at": None, "done_at": None, "note": note}}

    try:
        async with context(settings) as ctx:
            await watcher.look(ctx, watcher.Sight(), at_least_s=0.0)
            work = by_model
            if settings.deployment is not None:
                work = {settings.deployment: {"tokens": inspection.tokens, "largest": inspection.largest_tokens}}
            known, answers, now = [], {}, ctx.clock.now()
            for name, sums in work.items():
                await ensure_deployment(ctx, ctx.backend.resource, name)
                row, pace = await quota_of(ctx, name, cap=settings.limit)
                known.append((row, pace))
                answers[name] = when(row, tokens=sums["tokens"], largest=sums["largest"], now=now, pace=pace)
    except UsageError as error:
        return nothing(f"the provider was not asked: {error}")
    except (BackendError, ProviderRefused) as error:
        return nothing(f"the provider could not be asked: {error}")
    if not answers:
        return nothing("no request is good, so nothing would be sent")
    limit, pace = overview.tightest(known)
    plan = inspection.plan(by_model, limit=limit or settings.limit, dialect=dialect, pace=pace)
    return {"provider": together(answers), **plan}


async def quota_of(ctx: Context, name: str, *, cap: int | None = None) -> tuple[QuotaRow, Pace]:
    """What is known of a deployment: its quota, and how fast batches go through it."""

    def read(tx: Tx) -> tuple[QuotaRow, Pace]:
        row = tx.deployment(scope(ctx.backend.resource, name))
        assert row is not None, "a deployment that was asked about is known"
        quota = overview.quota(tx, row, ctx.policy, ctx.clock.now(), frozenset(), cap=cap)
        return quota, overview.pace_of(row)

    return await ctx.store.transact(read)
