"""What one tenant may have open, create, keep and spend: looked at in the transaction that would add to it.

Every answer names the limit, its value, what is used, and when to come back; ``x-should-retry`` tells the SDKs whether a
repeat in the next seconds can help.
"""

from __future__ import annotations

from typing import Final

from sluicegate.core.prices import cost
from sluicegate.core.tenancy import OPEN, ClientBatchRow, FileRow, UploadPartRow, UploadRow
from sluicegate.ports import Tx
from sluicegate.service.retention import SPEND_S
from sluicegate.settings import Settings
from sluicegate.settings_gateway import TenantLimits
from sluicegate.web.dialects import Problem
from sluicegate.web.state import Gateway

MODELS_MOST: Final = 20
"""Different models that one file may name where the settings name none: each is a deployment with books of its own."""

AFTER_S: Final = 60.0
"""When to come back where only the end of open batches helps."""

UPLOADS_MOST: Final = 100
"""Uploads in parts that one tenant may have begun and not ended."""


def limits_of(settings: Settings, tenant: str) -> TenantLimits:
    """A tenant's limits: its own where it has some, else those of everybody."""
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
    most = limits_of(gateway.settings, tenant)
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


def check_fetched(settings: Settings, tx: Tx, batch: ClientBatchRow, requests: int, tokens: int) -> str | None:
    """Why a batch may not go on whose input came from a blob, a sentence, or None: at its create nothing was known of it."""
    most = limits_of(settings, batch.tenant)
    open_ = [one for one in tx.find(ClientBatchRow, tenant=batch.tenant, status=OPEN) if one.id != batch.id]
    for what, wanted, limit, used_by in (
        ("requests", requests, most.requests, _requests), ("tokens", tokens, most.tokens, _tokens),
    ):  # fmt: skip
        used = sum(used_by(tx, one) for one in open_) if limit is not None else 0
        if limit is not None and used + wanted > limit:
            others = f", your other open batches {used:,}" if wanted <= limit else ""
            return f"The input has about {wanted:,} {what}{others}; {limit:,} may be open together."
    return None


def check_uploads(tx: Tx, tenant: str) -> None:
    """A Problem (429) if a tenant has begun as many uploads as it may."""
    if len(tx.find(UploadRow, tenant=tenant, status="pending")) >= UPLOADS_MOST:
        text = f"{UPLOADS_MOST} uploads of yours are pending. Complete or cancel some; they end after an hour."
        raise Problem(429, "too_many_uploads", text, retry=False, after_s=AFTER_S)


def check_room(tx: Tx, settings: Settings, tenant: str) -> None:
    """A Problem (403) if a tenant's files have as many bytes as they may: the one that passes the limit is the last.

    A pending upload counts with what it was begun for, or with its parts where they are more.
    """
    most = limits_of(settings, tenant).file_bytes
    if most is None:
        return
    kept = tx.total(FileRow, "bytes", tenant=tenant) + sum(
        max(upload.bytes, tx.total(UploadPartRow, "bytes", upload=upload.id))
        for upload in tx.find(UploadRow, tenant=tenant, status="pending")
    )
    if kept >= most:
        raise Problem(
            403, "quotaExceeded", f"Your files have {kept:,} bytes, the most is {most:,}. Delete files that are no longer "
            "needed.", retry=False,
        )  # fmt: skip


def check_rate(tx: Tx, gateway: Gateway, tenant: str, now: float) -> None:
    """A Problem (429) if a tenant created as many batches within a minute as it may."""
    most = limits_of(gateway.settings, tenant).creates_per_minute
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
