"""Who calls: keys as the SDKs send them, against digests, in constant time."""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from sluicegate.core.tenancy import KeyRow, Role
from sluicegate.ports import Store
from sluicegate.service.keys import PREFIX, digest_of
from sluicegate.web.dialects import Problem, family_of
from sluicegate.web.entra import Entra

REMEMBERED_S: Final = 1.0
"""How long a key that was looked up is believed; a revocation takes effect after this at the latest."""

REMEMBERED_MOST: Final = 10_000
NOBODY: Final = hashlib.sha256(b"nobody").hexdigest()


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request this is."""

    tenant: str
    key: str
    role: Role

    @property
    def sees(self) -> dict[str, str]:
        """The rows that the caller sees: its tenant's, or all."""
        return {} if self.role is Role.ADMIN else {"tenant": self.tenant}


class Gatekeeper:
    """Tells callers apart by their keys."""

    def __init__(self, store: Store, entra: Entra | None = None) -> None:
        self._store, self._entra = store, entra
        self._known: dict[str, tuple[float, KeyRow | None]] = {}

    async def caller(self, request: Request, *, writes: bool) -> Caller:
        """The caller, or a Problem: 401 without a valid key, 403 if its role may not write."""
        family = family_of(request)
        if family.dated and "api-version" not in request.query_params:
            raise Problem(404, "404", "Resource not found")
        bearer = request.headers.get("authorization", "")
        given = [request.headers.get("api-key", "").strip()]
        if bearer[:7].lower() == "bearer ":
            given.append(bearer[7:].strip())
        now = time.time()
        for text in given:
            row = await self._row(text) if text else None
            if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
                continue
            if writes and row.role is Role.OBSERVER:
                raise Problem(403, "forbidden", "This key may look, not change.", retry=False)
            return Caller(row.tenant, row.id, row.role)
        token = bearer[7:].strip() if bearer[:7].lower() == "bearer " else ""
        known = await self._entra.caller(token) if self._entra is not None and token else None
        if known is not None:
            if writes and known[2] is Role.OBSERVER:
                raise Problem(403, "forbidden", "This token may look, not change.", retry=False)
            return Caller(*known)
        if family.azure:
            raise Problem(
                401, "401", "Access denied due to invalid subscription key. Make sure to provide a valid key."
            )
        raise Problem(401, "invalid_api_key", "Incorrect API key provided.")

    async def _row(self, text: str) -> KeyRow | None:
        prefix, _, rest = text[:200].partition("_")
        name, _, secret = rest.partition("_")
        if prefix != PREFIX:
            name = ""
        seen_at, row = self._known.get(name, (0.0, None))
        if time.monotonic() - seen_at > REMEMBERED_S:
            found = await self._store.read(lambda tx: tx.find(KeyRow, id=f"key_{name}"))
            row = found[0] if found else None
            if len(self._known) >= REMEMBERED_MOST:
                self._known.clear()
            self._known[name] = (time.monotonic(), row)
        same = hmac.compare_digest(digest_of(secret), row.digest if row is not None else NOBODY)
        return row if same else None
