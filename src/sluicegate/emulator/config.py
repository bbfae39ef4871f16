"""What is emulated: an account as data (docs/emulate.md). Durations are seconds, limits tokens."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

from sluicegate.core.limits import parse_duration, parse_tokens
from sluicegate.errors import UsageError

DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """At ``at_s`` after the first create: a new ``limit`` or ``rate``, or load of somebody else.

    Attributes:
        tokens, for_s: Others hold that many tokens for that long; ``listed``: as a batch that the list shows.
    """

    at_s: float
    limit: int | None = None
    rate: float | None = None
    tokens: int = 0
    for_s: float = 0.0
    listed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something goes wrong.

    Attributes:
        on: create, upload, download, list, batch, line.
        kind: For calls: ``lost`` (the reply is lost after the commit), ``reset`` (the connection breaks before it),
            ``429``, ``500``, ``502``, ``503``, ``broken`` (a download breaks off half-way). For a batch:
            ``stuck_validating``, ``stuck_in_progress``, ``expire`` (half done). For lines: ``missing``, ``doubled``,
            ``unknown``, ``0``, ``429``, ``500``, ``content_filter``.
        nth: The first call, batch or line of each file that it hits, counted from 1. ``times``: how many from there.
        once: For lines: only the first time that a request is executed.
    """

    on: Literal["create", "upload", "download", "list", "batch", "line"]
    kind: str
    nth: int = 1
    times: int = 1
    once: bool = True


CALL_KINDS: Final = frozenset({"lost", "reset", "429", "500", "502", "503"})
KINDS: Final[dict[str, frozenset[str]]] = {
    "create": CALL_KINDS,
    "upload": CALL_KINDS,
    "list": CALL_KINDS,
    "download": CALL_KINDS | {"broken"},
    "batch": frozenset({"stuck_validating", "stuck_in_progress", "expire"}),
    "line": frozenset({"missing", "doubled", "unknown", "0", "429", "500", "content_filter"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One resource.

    Attributes:
        dialect: Whose texts, envelopes and habits; also which surface ``/openai`` is.
        limit: Enqueued tokens of each deployment, or None for no limit. ``deployments``: the only names that exist, each
            with its own limit; empty: every name exists.
        rate: Tokens per second of the service, 0 for no bound. ``discipline``: ``shared`` equally by the running
            batches, or ``fifo``.
        fail_fast: Refuse at create by characters (some Azure regions), not only after validating.
        refusal: The refusals' text: ``azure``, ``openai``, or ``bare`` without any number.
        headers: Azure's two headers on create.
        count_factor: What is counted here per token of the real count.
        release_lag_s: How long tokens count after a batch's end.
        pending_s: How long an uploaded file stays ``pending`` (Azure).
        expire_s: Batches expire after this (OpenAI: 24 h; Azure: None, F§2.3).
        speed: How fast the emulated clock runs.
    """

    dialect: Literal["azure", "openai"] = "azure"
    limit: int | None = None
    deployments: tuple[tuple[str, int | None], ...] = ()
    rate: float = 0.0
    discipline: Literal["shared", "fifo"] = "shared"
    validating_s: float = 1.0
    start_s: float = 1.0
    finalizing_s: float = 0.5
    fail_fast: bool = False
    refusal: Literal["azure", "openai", "bare"] | None = None
    headers: bool = True
    count_factor: float = 1.0
    release_lag_s: float = 0.0
    pending_s: float = 0.0
    expire_s: float | None = None
    files_max: int | None = None
    requests_max: int | None = None
    file_bytes_max: int = 209_715_200
    creates_per_hour: int | None = None
    enqueued_requests_max: int = 1_000_000
    keys: tuple[str, ...] = ()
    seed: int = 0
    speed: float = 1.0
    timetable: tuple[Change, ...] = ()
    faults: tuple[Fault, ...] = ()

    def with_defaults(self) -> Account:
        """Fill what depends on the dialect (F§3.1, F§2.3)."""
        azure = self.dialect == "azure"
        return replace(
            self,
            refusal=self.refusal or self.dialect,
            files_max=self.files_max if self.files_max is not None else (500 if azure else None),
            requests_max=self.requests_max or (100_000 if azure else 50_000),
            creates_per_hour=self.creates_per_hour or (None if azure else 2_000),
            expire_s=self.expire_s if self.expire_s is not None or azure else DAY_S,
            headers=self.headers and azure,
        )


_DURATIONS: Final = {
    "validating": "validating_s", "start": "start_s", "finalizing": "finalizing_s", "release_lag": "release_lag_s",
    "pending": "pending_s", "expire": "expire_s",
}  # fmt: skip


def load(path: Path) -> dict[str, Any]:
    """Account fields from an ``emulator.toml``.

    Raises:
        UsageError: it cannot be read, or a key or value is wrong.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as the emulator's settings: {error}") from error
    found: dict[str, Any] = {}
    try:
        for key, value in table.items():
            if key == "timetable":
                found[key] = tuple(_change(one) for one in value)
            elif key == "fault":
                found["faults"] = tuple(fault_of(one) for one in value)
            elif key == "deployments":
                found[key] = tuple((name, _tokens(limit)) for name, limit in value.items())
            elif key == "limit":
                found[key] = _tokens(value)
            elif key in _DURATIONS:
                found[_DURATIONS[key]] = _seconds(value)
            elif key in {f.name for f in fields(Account)}:
                found[key] = tuple(value) if isinstance(value, list) else value
            else:
                raise UsageError(f"there is no setting {key!r}")
    except (TypeError, ValueError, UsageError) as error:
        raise UsageError(f"{path}: {error}") from error
    return found


def _tokens(value: Any) -> int:
    return parse_tokens(value) if isinstance(value, str) else int(value)


def _seconds(value: Any) -> float:
    return parse_duration(value) if isinstance(value, str) else float(value)


def _change(table: dict[str, Any]) -> Change:
    table = dict(table)
    return Change(
        at_s=_seconds(table.pop("at")), for_s=_seconds(table.pop("for", 0)),
        limit=_tokens(table.pop("limit")) if "limit" in table else None, **table,
    )  # fmt: skip


def fault_of(table: dict[str, Any]) -> Fault:
    """A fault from a table of its fields.

    Raises:
        UsageError: there is no such place or kind.
    """
    fault = Fault(**(table | {"kind": str(table.get("kind"))}))
    if fault.kind not in KINDS.get(fault.on, frozenset()):
        known = "; ".join(f"{on}: {', '.join(sorted(kinds))}" for on, kinds in KINDS.items())
        raise UsageError(f"there is no fault {fault.kind!r} on {fault.on!r}; there are {known}")
    return fault
