"""Who may call: keys, and Entra's Bearer tokens signed by a test key. Also makes such tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any, Final

from starlette.requests import Request

from sluicegate.emulator.config import Account
from sluicegate.emulator.wire import Problem, Surface

AUDIENCES: Final = ("https://cognitiveservices.azure.com", "https://ai.azure.com")
"""Accepted with and without a slash at the end (F§1.4)."""

_BAD_KEY: Final = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active "
    "subscription and use a correct regional API endpoint for your resource."
)
_BAD_TOKEN: Final = (
    "Unauthorized. Access token is missing, invalid, audience is incorrect (https://cognitiveservices.azure.com), or have "
    "expired."
)


def check(request: Request, surface: Surface, account: Account, now: float) -> None:
    """Let a call in, or not.

    Any key will do unless some are configured. On Azure's surfaces a Bearer token is Entra's where ``entra_key`` is set:
    its signature, audience and times are checked.

    Raises:
        Problem: 401 or 403, in the surface's words.
    """
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    bearer = bearer.strip() if scheme.lower() == "bearer" else ""
    key = request.headers.get("api-key", "").strip()
    known = {*account.keys, *account.read_only_keys}
    if surface.azure and bearer and account.entra_key and bearer not in known:
        if token_problem(bearer, account.entra_key, now) is None:
            return
        raise Problem(401, "401", _BAD_TOKEN)
    given = [one for one in (key, bearer) if one]
    accepted = [one for one in given if not known or one in known]
    if not accepted:
        if surface.azure:
            raise Problem(401, "401", _BAD_KEY)
        if not given:
            raise Problem(401, "missing_api_key", "You didn't provide an API key.")
        shown = f"{given[0][:3]}***{given[0][-2:]}" if len(given[0]) > 8 else "***"
        raise Problem(401, "invalid_api_key", f"Incorrect API key provided: {shown}.")
    if request.method not in ("GET", "HEAD") and all(one in account.read_only_keys for one in accepted):
        if surface.azure:
            text = f"The principal lacks the required data action to perform `{request.method} {request.url.path}`."
            raise Problem(403, "PermissionDenied", text)
        raise Problem(403, "insufficient_permissions", "You have insufficient permissions for this operation.")


def make_token(secret: str, *, audience: str, expires_at: float, now: float) -> str:
    """A Bearer token as Entra's are shaped, but signed with HS256 by a secret of the test's own.

    Real ones are signed with RS256 by keys that no test has; a client passes either on unread.
    """
    claims = {
        "aud": audience,
        "iat": int(now),
        "nbf": int(now),
        "exp": int(expires_at),
        "iss": "https://sts.windows.net/emulated/",
    }
    head = _pack(json.dumps({"typ": "JWT", "alg": "HS256"}).encode())
    body = f"{head}.{_pack(json.dumps(claims).encode())}"
    return f"{body}.{_pack(_signature(secret, body))}"


def token_problem(token: str, secret: str, now: float) -> str | None:
    """What is wrong with a token: its form, its signature, its audience, its times. None if it is good."""
    try:
        head, claims, signature = token.split(".")
        header, found = json.loads(_unpack(head)), json.loads(_unpack(claims))
        signed = _unpack(signature)
    except ValueError:
        return "form"
    if not isinstance(header, dict) or not isinstance(found, dict) or header.get("alg") != "HS256":
        return "form"
    if not hmac.compare_digest(signed, _signature(secret, f"{head}.{claims}")):
        return "signature"
    if str(found.get("aud", "")).rstrip("/") not in AUDIENCES:
        return "audience"
    if not _number(found.get("nbf", 0)) <= now < _number(found.get("exp", 0)):
        return "times"
    return None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _signature(secret: str, text: str) -> bytes:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()


def _pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unpack(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
