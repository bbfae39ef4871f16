"""What a provider's reply means: JSON to our values, and refusals to our errors. No I/O.

Everything is read tolerantly, since the published schemas are stricter than the services (facts on the batch object,
collected 2026-11 from Azure's and OpenAI's documents and samples): ids may be ``""``, counts null, times integers or
ISO text, statuses capitalised or ``canceled``, the ``line`` of an error a string. What guards the quota fails closed: a
status that nobody knows counts as one that still holds tokens, and a 404 that is not about the very batch is no proof
that the batch is gone.
"""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Final

import msgspec

from sluicegate.adapters.credentials import Scrubber
from sluicegate.core import refusal
from sluicegate.core.types import BatchError, BatchPage, BatchStatus, ProviderBatch, QuotaHeaders, RemoteFile, Usage
from sluicegate.errors import (
    AuthenticationFailed,
    CallRefused,
    Conflict,
    DeploymentNotFound,
    FileNotReady,
    FileQuotaExceeded,
    NotFound,
    OutcomeUnknown,
    ProviderRefused,
    SluicegateError,
    Throttled,
    TokenLimitExceeded,
    Unavailable,
)

Headers = Mapping[str, str]
"""An HTTP reply's headers, looked up case-insensitively."""

RETRY_AFTER_MAX_S: Final = 86_400.0
"""No wait longer than a day is believed."""

_TEXT_BYTES_MAX: Final = 16_384
_MILLISECONDS_FROM: Final = 1e11


# Calls and replies


class Kind(Enum):
    """What a call does, as far as the meaning of a refusal depends on it."""

    LIST = auto()  # reads a collection: a 404 means a wrong address
    ITEM = auto()  # reads or deletes one file or batch: a 404 is a finding
    CANCEL = auto()
    UPLOAD = auto()
    CREATE = auto()

    @property
    def once(self) -> bool:
        """True for calls that must not be repeated when their outcome is unknown."""
        return self in (Kind.UPLOAD, Kind.CREATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call, described for the messages.

    Attributes:
        kind: What it does.
        what: In words, for people: "list the batches".
        path: Method and path without host and query: "GET /openai/batches".
        item: The id of the file or batch that the call is about, if it is about one.
    """

    kind: Kind
    what: str
    path: str
    item: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP reply, read to its end."""

    status: int
    headers: Headers
    content: bytes


# JSON to values


def decode(content: bytes) -> Any:
    """The JSON value of a body, or None if it is none."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def batch(value: object) -> ProviderBatch | None:
    """A batch object of either provider, or None if the value is none (no object, or without an id)."""
    if not isinstance(value, dict) or not (batch_id := _text(value.get("id"))):
        return None
    counts = _mapping(value.get("request_counts"))
    metadata = _mapping(value.get("metadata"))
    return ProviderBatch(
        id=batch_id,
        status=status(value.get("status")),
        endpoint=_text(value.get("endpoint")),
        model=_text(value.get("model")),
        input_file_id=_text(value.get("input_file_id")),
        output_file_id=_text(value.get("output_file_id")),
        error_file_id=_text(value.get("error_file_id")),
        created_at=moment(value.get("created_at")),
        in_progress_at=moment(value.get("in_progress_at")),
        finalizing_at=moment(value.get("finalizing_at")),
        completed_at=moment(value.get("completed_at")),
        failed_at=moment(value.get("failed_at")),
        expired_at=moment(value.get("expired_at")),
        cancelled_at=moment(value.get("cancelled_at")),
        requests_total=_count(counts.get("total")) or 0,
        requests_completed=_count(counts.get("completed")) or 0,
        requests_failed=_count(counts.get("failed")) or 0,
        usage=_usage(value.get("usage")),
        metadata={key: item if isinstance(item, str) else str(item) for key, item in metadata.items()},
        errors=_errors(value.get("errors")),
    )


def batch_page(value: object, *, after: str | None, limit: int) -> BatchPage | None:
    """A page of ``GET /batches``, or None if the value is none: also a first page of nothing that says there is more."""
    items = _items(value)
    if items is None:
        return None
    batches = tuple(b for b in map(batch, items) if b is not None)
    following = cursor(value, (b.id for b in batches), after=after, limit=limit)
    if not batches and after is None and following is None and _has_more(value, 0, limit):
        return None  # an empty list would say that a lost create was never made
    return BatchPage(batches=batches, next_after=following)


def file(value: object) -> RemoteFile | None:
    """A file object of either provider, or None if the value is none."""
    if not isinstance(value, dict) or not (file_id := _text(value.get("id"))):
        return None
    # OpenAI calls the field deprecated and may leave it out: a file without a status is ready.
    word = _text(value.get("status"))
    return RemoteFile(
        id=file_id,
        filename=_text(value.get("filename")) or "",
        bytes=_count(value.get("bytes")) or 0,
        status=word.strip().lower() if word else "processed",
        created_at=moment(value.get("created_at")),
        detail=_text(value.get("status_details")),
    )


def files(value: object) -> tuple[RemoteFile, ...] | None:
    """The files of purpose ``batch`` on a page of ``GET /files``, or None if the value is no page."""
    items = _items(value)
    if items is None:
        return None
    ours = (i for i in items if not isinstance(i, dict) or i.get("purpose") in ("batch", None, ""))
    return tuple(f for f in map(file, ours) if f is not None)


def cursor(value: object, ids: Iterable[str], *, after: str | None, limit: int | None) -> str | None:
    """Where the next page begins, or None if this was the last.

    ``last_id`` if there is one, else the last item's id. An empty page that claims to have more leads on only by a
    ``last_id`` that moves; a cursor that stays where it was ends the list (both are seen; facts, known troubles).
    """
    if not isinstance(value, dict):
        return None
    listed = list(ids)
    if not _has_more(value, len(listed), limit):
        return None
    following = _text(value.get("last_id")) or (listed[-1] if listed else None)
    return following if following != after else None


def _has_more(value: object, listed: int, limit: int | None) -> bool:
    more = _mapping(value).get("has_more")
    if more is None:
        return limit is not None and listed >= limit
    return more not in (False, 0, "false", "")


def ids(value: object) -> tuple[str, ...]:
    """The ids of all items of a page, in order."""
    return tuple(item["id"] for item in _items(value) or () if isinstance(item, dict) and _text(item.get("id")))


def status(value: object) -> BatchStatus:
    """A batch's status in whatever spelling. An unknown word counts as ``in_progress``: it still holds its tokens."""
    word = re.sub(r"[^a-z]", "", value.lower()) if isinstance(value, str) else ""
    return _STATUSES.get(word, BatchStatus.IN_PROGRESS)


_STATUSES: Final = {
    **{s.value.replace("_", ""): s for s in BatchStatus},
    "canceled": BatchStatus.CANCELLED,
    "canceling": BatchStatus.CANCELLING,
    "finalising": BatchStatus.FINALIZING,
    "notstarted": BatchStatus.VALIDATING,
    "pending": BatchStatus.VALIDATING,
    "queued": BatchStatus.VALIDATING,
}


def moment(value: object) -> float | None:
    """A time in Unix seconds from an integer, a numeric string or ISO text (UTC where no zone is named), or None."""
    number = _number(value)
    if number is None and isinstance(value, str) and value.strip():
        try:
            parsed = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
        number = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    if number is None or number <= 0:
        return None
    return number / 1_000 if number >= _MILLISECONDS_FROM else number


def quota_headers(headers: Headers) -> QuotaHeaders:
    """Azure's two headers on create, in tokens; what is missing or no number is None."""
    return QuotaHeaders(
        enqueued=_count(headers.get("deployment-enqueued-tokens")),
        maximum=_count(headers.get("deployment-maximum-enqueued-tokens")) or None,
    )


def retry_after(headers: Headers, now: Callable[[], float]) -> float | None:
    """The wait that the provider asks for, seconds: ``retry-after-ms`` or ``retry-after`` (seconds or an HTTP date).

    Args:
        headers: The reply's headers, looked up case-insensitively.
        now: Unix seconds, for a date where the reply has no ``Date`` of its own to compare with.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        number = _number(headers.get(name))
        if number is not None:
            return min(max(0.0, number * unit_s), RETRY_AFTER_MAX_S)
    due = _http_date(headers.get("retry-after"))
    if due is None:
        return None
    # The provider's two clocks agree with each other, ours may not.
    sent = sent_at(headers)
    return min(max(0.0, due - (sent if sent is not None else now())), RETRY_AFTER_MAX_S)


def sent_at(headers: Headers) -> float | None:
    """When the provider sent a reply, Unix seconds by its own clock, or None if it does not say."""
    return _http_date(headers.get("date"))


def _http_date(value: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp() if value else None
    except (TypeError, ValueError, OverflowError):
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _count(value: object) -> int | None:
    number = _number(value.replace(",", "") if isinstance(value, str) else value)
    return int(number) if number is not None and number >= 0 else None


def _items(value: object) -> list[Any] | None:
    data = value.get("data") if isinstance(value, dict) else None
    return data if isinstance(data, list) else None


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    return Usage(
        input_tokens=_count(value.get("input_tokens")) or 0,
        cached_tokens=_count(_mapping(value.get("input_tokens_details")).get("cached_tokens")) or 0,
        output_tokens=_count(value.get("output_tokens")) or 0,
    )


def _errors(value: object) -> tuple[BatchError, ...]:
    entries = value if isinstance(value, list) else _mapping(value).get("data")
    if entries is None and _mapping(value).get("message"):
        entries = [value]
    if not isinstance(entries, list):
        return ()
    return tuple(
        BatchError(
            code=_text(entry.get("code")) or "unknown",
            message=_text(entry.get("message")) or "",
            line=_count(entry.get("line")),
            param=_text(entry.get("param")),
        )
        for entry in entries
        if isinstance(entry, dict)
    )


# Refusals to errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What an error reply says.

    Attributes:
        code: ``error.code``, or None.
        message: The sentence for people; the HTTP reason if the reply has none.
        text: The whole body as text, for signs that stand elsewhere in it.
        structured: True if it is an error object in JSON, as the providers send; False for a proxy's page.
    """

    code: str | None
    message: str
    text: str
    structured: bool


_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_PENDING: Final = re.compile(
    r"in '?(?:pending|running|notrunning|uploaded)'? state|only files with status '?processed", re.IGNORECASE
)
_FILE_ABSENT: Final = re.compile(r"cannot find file|no such file object", re.IGNORECASE)
_NO_CANCEL: Final = re.compile(r"can(?:no|')t (?:be )?cancel", re.IGNORECASE)
# Azure's router: 404 "Resource not found"; OpenAI's: "Invalid URL (GET /v1/…)"; common frameworks': "Not Found".
_NO_ROUTE: Final = re.compile(r"^\W*(?:resource not found|invalid url\b.*|not found|404.*)\W*$", re.IGNORECASE)
_DEPLOYMENT_CODES: Final = frozenset({"deploymentnotfound", "model_not_found", "modelnotfound"})


def envelope(reply: Reply) -> Envelope:
    """Read an error reply of either provider, or of a gateway before it."""
    text = reply.content[:_TEXT_BYTES_MAX].decode("utf-8", "replace")
    value = decode(reply.content)
    code: object = None
    message: object = None
    if isinstance(value, dict):
        error = value.get("error", value)
        if isinstance(error, dict):
            code, message = error.get("code"), error.get("message") or error.get("detail")
            code = code if code not in (None, "") else _mapping(error.get("innererror")).get("code")
        else:
            code, message = value.get("code"), error
    elif found := _TITLE.search(text):
        message = found[1]
    elif value is None and "<" not in text:
        message = text
    if not isinstance(message, str) or not message.strip():
        message = _reason(reply.status)
    return Envelope(
        code=str(code) if isinstance(code, str | int) and not isinstance(code, bool) else None,
        message=message,
        text=text,
        structured=isinstance(value, dict) and ("error" in value or "message" in value),
    )


def _reason(status_code: int) -> str:
    try:
        return f"HTTP {status_code} {HTTPStatus(status_code).phrase}"
    except ValueError:
        return f"HTTP {status_code}"


def refused(call: Call, reply: Reply, *, scrub: Scrubber, now: Callable[[], float]) -> SluicegateError:
    """The error that an HTTP reply of 3xx, 4xx or 5xx means for this call."""
    said = envelope(reply)
    message = scrub(said.message)
    code = (said.code or "").casefold()
    wait_s = retry_after(reply.headers, now)
    if reply.status in (401, 403):
        return _not_let_in(call, reply.status, message)
    if call.kind is Kind.CREATE and reply.status in (400, 429) and refusal.is_token_refusal(said.code, said.text):
        dimension = refusal.dimension_in_text(said.message)
        limit = refusal.limit_in_text(said.message, dimension)
        return TokenLimitExceeded(message, limit=limit, dimension=dimension, status=reply.status)
    if reply.status == 429:
        if code == "insufficient_quota":
            return ProviderRefused(f"the account has no credit left: {message}. Waiting does not help; see its billing")
        return Throttled(f"cannot {call.what}: {message}", retry_after_s=wait_s)
    if reply.status == 408 or reply.status >= 500:
        short = f"cannot {call.what}: {_reason(reply.status)}"
        detail = short if message in short else f"{short}: {message}"
        if call.kind.once:
            return OutcomeUnknown(detail, status=reply.status, code=said.code)
        return Unavailable(detail, retry_after_s=wait_s, status=reply.status)
    if 300 <= reply.status < 400:
        return ProviderRefused(
            f"{call.path} is redirected (HTTP {reply.status}) and was not sent again: set the address that the "
            "provider itself gives, with https"
        )
    return _client_error(call, reply.status, said, code, message)


def _client_error(call: Call, status_code: int, said: Envelope, code: str, message: str) -> SluicegateError:
    if status_code == 404 or (status_code == 410 and call.item) or code == "deploymentnotfound":
        return _absent(call, status_code, said, code, message)
    if status_code == 405 or code == "operationnotsupported":
        return _wrong_address(call, status_code, message)
    if status_code == 409 or (call.kind is Kind.CANCEL and _NO_CANCEL.search(said.message)):
        return Conflict(message, status=status_code, code=said.code)
    if call.kind is Kind.CREATE:
        if _PENDING.search(said.message) or _FILE_ABSENT.search(said.message):
            return FileNotReady(message, status=status_code, code=said.code)
        if code in _DEPLOYMENT_CODES:
            return _no_deployment(message)
    if code == "quotaexceeded" or (call.kind is Kind.UPLOAD and "quota for files" in said.message.casefold()):
        return FileQuotaExceeded(message, status=status_code, code=said.code)
    if code == "invalidpayload" and "purpose" in said.message.casefold():
        return ProviderRefused(
            f"the resource does not know files for batches ({message}): its region has no batch service, or the "
            "api-version is too old; use 2024-10-21 or later, or the /openai/v1 address"
        )
    return CallRefused(message, status=status_code, code=said.code)


def _absent(call: Call, status_code: int, said: Envelope, code: str, message: str) -> SluicegateError:
    if call.kind is Kind.CREATE:
        if code in _DEPLOYMENT_CODES or re.search(r"\b(?:deployment|model)\b", said.message, re.IGNORECASE):
            return _no_deployment(message)
        if _FILE_ABSENT.search(said.message):
            return FileNotReady(message, status=status_code, code=said.code)
        if said.structured and not _NO_ROUTE.search(said.message):
            return NotFound(message, status=status_code, code=said.code)
    elif call.item is not None:
        about_it = call.item in said.text or not _NO_ROUTE.search(said.message)
        if said.structured and about_it and code not in _DEPLOYMENT_CODES:
            return NotFound(message, status=status_code, code=said.code)
        # Not the provider's word about this very item: nothing may be released or given up for it (D3).
        return Unavailable(
            f"cannot {call.what}: {call.path} answers {_reason(status_code)} ({message}), and not that "
            f"{call.item} does not exist",
            status=status_code,
        )
    return _wrong_address(call, status_code, message)


def _no_deployment(message: str) -> DeploymentNotFound:
    return DeploymentNotFound(
        f"the provider knows no such deployment or model: {message}. The `model` of the requests, or --deployment, "
        "must be the name of a deployment that is made for batches (on Azure: Global Batch or Data Zone Batch) on this "
        "resource; one made in the last five minutes may need a moment"
    )


def _wrong_address(call: Call, status_code: int, message: str) -> ProviderRefused:
    return ProviderRefused(
        f"cannot {call.what}: {call.path} answered HTTP {status_code} ({message}). The usual cause is the address: a "
        "base URL with /deployments/ in it, one without /v1 or /openai/v1 at its end, or another resource's. Use "
        "--azure-endpoint https://NAME.openai.azure.com, or --base-url https://NAME.openai.azure.com/openai/v1 or "
        "https://api.openai.com/v1"
    )


def _not_let_in(call: Call, status_code: int, message: str) -> AuthenticationFailed:
    if status_code == 401:
        remedy = (
            "Check the key (OPENAI_API_KEY, or AZURE_OPENAI_API_KEY for Azure) and that it belongs to this address; a "
            "token in AZURE_OPENAI_AD_TOKEN lives about an hour, signing in with Entra renews it"
        )
    else:
        remedy = (
            "The credentials are known but may not do this: on Azure the sign-in needs the role Cognitive Services "
            "OpenAI User or Contributor, and the resource's network rules must let this machine in; on OpenAI the "
            "key's project needs access to files and batches"
        )
    return AuthenticationFailed(f"cannot {call.what}: HTTP {status_code}: {message.rstrip('. ')}. {remedy}")
