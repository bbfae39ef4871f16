"""Keys of the gateway: made, shown once, listed, revoked, rotated. Only digests are stored."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Any, Final

from sluicegate.core.tenancy import KeyRow, Role, TenantRow
from sluicegate.errors import UsageError
from sluicegate.ports import Clock, Ids, Store, Tx

PREFIX: Final = "sgk"
TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def digest_of(secret: str) -> str:
    """The digest of a key's secret. It is random and long, so a plain hash cannot be searched through."""
    return hashlib.sha256(secret.encode()).hexdigest()


def make_key(key_id: str) -> tuple[str, str]:
    """A new key's text, shown once, and the digest that is stored. The secret has 192 random bits."""
    secret = secrets.token_hex(24)
    return f"{PREFIX}_{key_id.removeprefix('key_')}_{secret}", digest_of(secret)


async def create(
    store: Store, ids: Ids, clock: Clock, *, tenant: str, role: Role = Role.USER, expires_s: float | None = None,
    weight: float | None = None, only_first: bool = False,
) -> dict[str, Any] | None:  # fmt: skip
    """Make a key, and its tenant if it is new.

    Args:
        expires_s: Seconds until it is refused. ``weight``: the tenant's share relative to others, None leaves it.
        only_first: Make one only if there is none at all.

    Returns:
        ``{"id", "tenant", "key"}``, or None if ``only_first`` and there was one.

    Raises:
        UsageError: the tenant's name or weight is impossible.
    """
    if not TENANT.fullmatch(tenant):
        raise UsageError(f"{tenant!r} is no tenant name; use up to 64 letters, digits, dots, dashes and underscores")
    if weight is not None:
        _check_weight(weight)
    key_id, now = ids.new("key"), clock.now()
    text, digest = make_key(key_id)

    def write(tx: Tx) -> bool:
        if only_first and tx.find(KeyRow):
            return False
        if not tx.find(TenantRow, id=tenant):
            tx.insert(TenantRow(id=tenant, weight=1.0 if weight is None else weight, created_at=now))
        elif weight is not None:
            tx.amend(TenantRow, tenant, weight=weight)
        expires_at = None if expires_s is None else now + expires_s
        tx.insert(KeyRow(id=key_id, tenant=tenant, role=role, digest=digest, created_at=now, expires_at=expires_at))
        return True

    return {"id": key_id, "tenant": tenant, "key": text} if await store.transact(write) else None


async def weigh(store: Store, *, tenant: str, weight: float) -> dict[str, Any]:
    """Change a tenant's share of the limit relative to others; it holds from the next part that is cut.

    Raises:
        UsageError: there is no such tenant, or the weight is impossible.
    """
    _check_weight(weight)
    if not await store.transact(lambda tx: tx.amend(TenantRow, tenant, weight=weight)):
        raise UsageError(f"there is no tenant {tenant}; `sluicegate keys list` shows all")
    return {"tenant": tenant, "weight": weight}


def _check_weight(weight: float) -> None:
    if not 0.001 <= weight <= 1_000:
        raise UsageError("a tenant's weight is from 0.001 to 1000")


async def listed(store: Store) -> list[dict[str, Any]]:
    """All keys, oldest first, with their tenants' weights, without their digests."""
    rows, tenants = await store.transact(lambda tx: (tx.find(KeyRow), tx.find(TenantRow)))
    weights = {tenant.id: tenant.weight for tenant in tenants}
    return [
        {"id": row.id, "tenant": row.tenant, "weight": weights.get(row.tenant, 1.0), "role": row.role.value,
         "created_at": row.created_at, "expires_at": row.expires_at, "revoked_at": row.revoked_at}
        for row in rows
    ]  # fmt: skip


async def revoke(store: Store, clock: Clock, key_id: str) -> dict[str, Any]:
    """Refuse a key from now on."""
    row = await _row(store, key_id)
    now = clock.now()
    await store.transact(lambda tx: tx.amend(KeyRow, key_id, {"revoked_at": None}, revoked_at=now))
    return {"id": key_id, "tenant": row.tenant, "revoked": True}


async def rotate(store: Store, ids: Ids, clock: Clock, key_id: str, *, grace_s: float) -> dict[str, Any]:
    """A new key like an old one, which is refused after ``grace_s`` seconds."""
    row = await _row(store, key_id)
    if row.revoked_at is not None:
        raise UsageError(f"{key_id} is revoked; create a new key instead")
    now = clock.now()
    lasts = None if row.expires_at is None else max(0.0, row.expires_at - now)
    made = await create(store, ids, clock, tenant=row.tenant, role=row.role, expires_s=lasts)
    assert made is not None
    until = now + grace_s if row.expires_at is None else min(row.expires_at, now + grace_s)
    await store.transact(lambda tx: tx.amend(KeyRow, key_id, expires_at=until))
    return made


async def _row(store: Store, key_id: str) -> KeyRow:
    found = await store.transact(lambda tx: tx.find(KeyRow, id=key_id))
    if not found:
        if key_id.startswith(PREFIX):
            raise UsageError("that is a key itself: give its id, key_…; `sluicegate keys list` shows all")
        raise UsageError(f"there is no key {key_id}; `sluicegate keys list` shows all")
    return found[0]
