"""What one tenant may have open, create and spend: looked at when a batch is created, in its transaction.

Every answer names the limit, its value, what is used, and when to come back; ``x-should-retry`` tells the SDKs whether a
repeat in the next seconds can help.
"""

from __future__ import annotations

from typing import Final

from sluicegate.core.prices import cost
from sluicegate.core.tenancy import ClientBatchRow, FileRow
from sluicegate.ports import Tx
from sluicegate.service.retention import OPEN, SPEND_S
from sluicegate.settings_gateway import TenantLimits
from sluicegate.web.dialects import Problem
from sluicegate.web.state import Gateway

AFTER_S: Final = 60.0
"""When to come back where only the end of open batches helps."""


def limits_of(gateway: Gateway, tenant: str) -> TenantLimits:
    """A tenant's limits: its own where it has some, else those of everybody."""
    settings = gateway.settings
    everybody = TenantLimits(
        batches=settings.gateway_tenant_batches, requests=settings.gateway_tenant_requests,
        tokens=settings.gateway_tenant_tokens, file_bytes=settings.gateway_tenant_file_bytes,
        creates_per_minute=settings.gateway_tenant_creates_per_minute, spend=settings.gateway_tenant_spend,
    )  # fmt: skip
    own = settings.gateway_tenants.get(tenant)
    return everybody if own is None else everybody.model_copy(update=own.model_dump(exclude_unset=True))


def check_create(tx: Tx, gateway: Gateway, tenant: str, file: FileRow | None, now: float) -> None:
    """A Problem if the tenant may not open one more batch with this file: 429 for now, 403 for ever.

    None stands for a blob, of which nothing is known before it is fetched.
    """
    most = limits_of(gateway, tenant)
    _rate(tx, tenant, most.creates_per_minute, now)
    open_ = tx.find(ClientBatchRow, tenant=tenant, status=OPEN)
    if most.batches is not None and len(open_) >= most.batches:
        text = f"{len(open_):,} batches of yours are open, {most.batches:,} may be. Create more when some have ended."
        raise Problem(429, "too_many_batches", text, retry=False, after_s=AFTER_S)
    if most.requests is not None:
        used = sum(_requests(tx, batch) for batch in open_)
        _room("requests", "too_many_requests_waiting", used, file.lines if file is not None else 0, most.requests)
    if most.tokens is not None:
        used = sum(_tokens(tx, batch) for batch in open_)
        _room("tokens", "too_many_tokens_waiting", used, file.bytes // 4 if file is not None else 0, most.tokens)
    if most.spend is not None:
        spent = _spent(tx, gateway, tenant, now)
        if spent >= most.spend:
            text = f"Your batches of the last 30 days cost {spent:,.2f} USD, the most is {most.spend:,.2f}."
            raise Problem(403, "spend_limit_reached", text, retry=False)


def _rate(tx: Tx, tenant: str, most: int | None, now: float) -> None:
    if most is None:
        return
    latest = tx.page(ClientBatchRow, newest_first=True, beyond=None, limit=most, tenant=tenant)
    if len(latest) == most and latest[-1].created_at > now - 60.0:
        text = f"You created {most:,} batches within a minute, the most that you may."
        raise Problem(429, "rate_limit_exceeded", text, retry=True, after_s=latest[-1].created_at + 60.0 - now)


def _room(what: str, code: str, used: int, wanted: int, most: int) -> None:
    if wanted > most:
        text = f"The file has about {wanted:,} {what}, more than the {most:,} that your open batches may have together."
        raise Problem(403, code, text, retry=False)
    if used + wanted > most:
        text = f"Your open batches have about {used:,} {what} and the file {wanted:,}; {most:,} may be open together."
        raise Problem(429, code, text, retry=False, after_s=AFTER_S)


def _requests(tx: Tx, batch: ClientBatchRow) -> int:
    """Its requests once it is checked, the file's lines before."""
    if batch.run is not None:
        return batch.total
    return sum(file.lines for file in tx.find(FileRow, id=batch.input_file))


def _tokens(tx: Tx, batch: ClientBatchRow) -> int:
    """Its estimated tokens once it is checked, bytes ÷ 4 before (as Azure counts at a create, F§4.1)."""
    run = tx.run(batch.run) if batch.run is not None else None
    return run.tokens if run is not None else batch.input_bytes // 4


def _spent(tx: Tx, gateway: Gateway, tenant: str, now: float) -> float:
    """USD for what the tenant's requests used lately; deployments without a known price cost nothing here."""
    policy = gateway.ctx.policy
    return sum(
        cost(policy.models.get(name, name), given, got, prices=policy.prices) or 0.0
        for name, given, got in tx.used_by_tenant(tenant, now - SPEND_S)
    )
