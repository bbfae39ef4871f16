"""What a refusal for want of enqueued quota says: which deployment, which limit, tokens or requests.

The texts are the providers' own, as users reported them (learn.microsoft.com/answers 2285577 for Azure;
openai/openai-python issue 1643 and community.openai.com 722249 for OpenAI; 2024 to 2026). A text is read, never trusted
to be there: every function takes any string and raises nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sluicegate.core.ledger import Dimension

TOKEN_LIMIT_EXCEEDED: Final = "token_limit_exceeded"
"""The code of both providers, at create (HTTP 400) and in a failed batch's ``errors``."""

DIGITS_MAX: Final = 18
"""A number with more digits is not a limit; the largest known quota is 15 B."""

_NUMBER: Final = (
    rf"(?P<number>[0-9][0-9,_]{{0,{DIGITS_MAX + 6}}}(?:\.[0-9]{{1,9}})?)\s?(?P<unit>[KkMmBb]?)(?![0-9A-Za-z])"
)
_UNITS: Final = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}

# Azure: "The number of enqueued tokens has surpassed the configured limit of 30K for the deployment 'gpt-4.1-batch'."
_AZURE: Final = re.compile(rf"configured limit of\s+{_NUMBER}", re.IGNORECASE)
# OpenAI: "Enqueued token limit reached for gpt-4o in organization org-x. Limit: 90,000 enqueued tokens."
_OPENAI: Final = re.compile(rf"limit:\s*{_NUMBER}\s+enqueued\s+(?P<what>tokens?|requests?)", re.IGNORECASE)

_DEPLOYMENT: Final = (
    re.compile(r"for the deployment\s+['\"](?P<name>[^'\"]{1,256})['\"]", re.IGNORECASE),
    re.compile(r"enqueued (?:token|request) limit reached for (?P<name>\S{1,256}) in organi[sz]ation", re.IGNORECASE),
)
_TELLTALES: Final = (
    TOKEN_LIMIT_EXCEEDED,
    "number of enqueued tokens has surpassed",
    "enqueued token limit reached",
    "enqueued request limit reached",
)
_REQUESTS: Final = re.compile(r"enqueued request limit|enqueued requests", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal for want of enqueued quota.

    Attributes:
        limit: The limit that the text names, in tokens or requests, or None where it names none.
        dimension: What is used up.
        deployment: The deployment (Azure) or model (OpenAI) that the text names, or None.
        message: The provider's text.
    """

    limit: int | None
    dimension: Dimension
    deployment: str | None
    message: str


def is_token_refusal(code: str | None, message: str | None) -> bool:
    """True if an error says that the enqueued quota, of tokens or of requests, is used up.

    Args:
        code: ``error.code`` of the HTTP reply, or ``code`` of an entry of the batch's ``errors``.
        message: The text beside it; some replies have the code only there.
    """
    if code is not None and code.strip().casefold() == TOKEN_LIMIT_EXCEEDED:
        return True
    text = (message or "").casefold()
    return any(telltale in text for telltale in _TELLTALES)


def dimension_in_text(message: str) -> Dimension:
    """What the text says is used up: requests only where it says so, else tokens."""
    return Dimension.REQUESTS if _REQUESTS.search(message) else Dimension.TOKENS


def limit_in_text(message: str, dimension: Dimension = Dimension.TOKENS) -> int | None:
    """The limit of ``dimension`` that a refusal's text names ("30K" is 30,000), or None.

    A text about requests has no limit of tokens, and the other way round. A limit of zero counts as none named: it is
    nothing that work could be planned with.
    """
    for pattern in (_OPENAI, _AZURE):
        found = pattern.search(message)
        if found is None:
            continue
        what = found.groupdict().get("what")
        named = Dimension.REQUESTS if what and what.casefold().startswith("request") else Dimension.TOKENS
        if named is dimension:
            return _whole(found["number"], found["unit"])
    return None


def parse(code: str | None, message: str | None) -> Refusal | None:
    """All that an error says about the quota, or None if it is not about the quota."""
    if not is_token_refusal(code, message):
        return None
    text = message or ""
    dimension = dimension_in_text(text)
    return Refusal(
        limit=limit_in_text(text, dimension), dimension=dimension, deployment=_deployment(text), message=text
    )


def _deployment(text: str) -> str | None:
    for pattern in _DEPLOYMENT:
        if found := pattern.search(text):
            return found["name"]
    return None


def _whole(number: str, unit: str) -> int | None:
    digits = number.replace(",", "").replace("_", "")
    if len(digits) > DIGITS_MAX:
        return None
    value = int(Decimal(digits) * _UNITS[unit.lower()])
    return value if value > 0 else None
