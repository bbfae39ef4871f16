"""Entra tokens (any OpenID Connect issuer's) beside keys of our own: who calls is in a signed claim.

Only RS256 is taken, whatever the token says; issuer, audience and times are checked; keys are those that the issuer
publishes, fetched in a thread, again for an unknown key id at most once in :data:`REFETCH_S`. What cannot be checked is
refused.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.request
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sluicegate.core.tenancy import Role
from sluicegate.errors import UsageError
from sluicegate.service.keys import TENANT
from sluicegate.settings import Settings

LOG = logging.getLogger("sluicegate.gateway")

REFETCH_S: Final = 60.0
LIFETIME_S: Final = 86_400.0
"""Published keys are read again after this, though none is unknown: a key that the issuer withdrew is forgotten."""

FETCH_S: Final = 10.0
JWKS_BYTES_MAX: Final = 1_000_000
LEEWAY_S: Final = 60.0
TOKEN_CHARS_MAX: Final = 20_000
ROLES: Final = {"sluicegate.admin": Role.ADMIN, "sluicegate.observer": Role.OBSERVER, "sluicegate.user": Role.USER}
"""App roles in the claim ``roles``; a token without one of them is a user's."""


class Entra:
    """Tokens of one issuer.

    Raises:
        UsageError: settings are missing or make no sense, or the library for tokens is not installed.
    """

    def __init__(self, settings: Settings) -> None:
        try:
            import jwt
        except ImportError as error:
            raise UsageError(
                "Entra tokens need the extra sluicegate[azure]: install it, or unset gateway_entra_issuer"
            ) from error
        self._jwt = jwt
        names = ("gateway_entra_issuer", "gateway_entra_audience", "gateway_entra_jwks")
        missing = [name for name in names if not getattr(settings, name)]
        if missing:
            raise UsageError(f"{', '.join(missing)} missing: Entra tokens need {', '.join(names)}")
        self._issuer, self._audience = settings.gateway_entra_issuer, settings.gateway_entra_audience
        self._jwks, self._claim = str(settings.gateway_entra_jwks), settings.gateway_entra_tenant_claim
        place = urlsplit(self._jwks)
        if place.scheme == "http" and place.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise UsageError("gateway_entra_jwks is fetched over https only")
        self._keys: dict[str, Any] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def caller(self, token: str) -> tuple[str, str, Role] | None:
        """(tenant, who, role) of a token, or None if it is not a good one."""
        if token.count(".") != 2 or len(token) > TOKEN_CHARS_MAX:
            return None
        try:
            head = self._jwt.get_unverified_header(token)
            key = await self._key(str(head.get("kid", "")))
            if key is None:
                return None
            claims = self._jwt.decode(
                token, key, algorithms=["RS256"], audience=self._audience, issuer=self._issuer, leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )  # fmt: skip
        except self._jwt.InvalidTokenError:
            return None
        tenant = claims.get(self._claim)
        if not isinstance(tenant, str) or not TENANT.fullmatch(tenant):
            return None
        given = claims.get("roles")
        roles = [ROLES[name] for name in ROLES if isinstance(given, list) and name in given]
        who = str(claims.get("oid") or claims.get("sub") or "")[:64]
        return tenant, f"entra:{who}", roles[0] if roles else Role.USER

    async def _key(self, kid: str) -> Any:
        age = time.monotonic() - self._read_at
        if (kid not in self._keys and age > REFETCH_S) or age > LIFETIME_S:
            async with self._reading:
                if time.monotonic() - self._read_at >= age:  # nobody has read them meanwhile
                    await self._read()
        return self._keys.get(kid)

    async def _read(self) -> None:
        expired = time.monotonic() - self._read_at > LIFETIME_S
        self._read_at = time.monotonic()
        try:
            text = await asyncio.to_thread(_fetch, self._jwks)
            keys: list[Any] | None = self._jwt.PyJWKSet.from_dict(json.loads(text)).keys
        except (OSError, ValueError, AttributeError, self._jwt.PyJWTError) as error:
            LOG.error("the keys at gateway_entra_jwks cannot be read: %s", type(error).__name__)
            keys = [] if expired else None
        if keys is not None:
            self._keys = {key.key_id: key for key in keys if key.key_id and key.key_type == "RSA"}


def _fetch(place: str) -> bytes:
    if urlsplit(place).scheme not in ("http", "https"):
        return Path(place).read_bytes()
    with urllib.request.urlopen(place, timeout=FETCH_S) as answer:
        return bytes(answer.read(JWKS_BYTES_MAX))
