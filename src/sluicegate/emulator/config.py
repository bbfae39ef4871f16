"""What is emulated: an account as data (docs/emulate.md). Durations are seconds, limits tokens."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from sluicegate.core.limits import parse_duration, parse_tokens
from sluicegate.emulator.faults import Fault, checked
from sluicegate.errors import UsageError

DAY_S: Final = 86_400.0
NEVER: Final = float("inf")
GENERAL_FILE_BYTES_MAX: Final = 512 << 20
"""Of any file at OpenAI (F§3.1)."""
CAPACITY_UNIT: Final = 1_000
"""Enqueued tokens of one unit of a batch deployment's ``sku.capacity`` (F§3.4)."""

FAIL_FAST_REGIONS: Final = frozenset(
    {
        "australiaeast", "eastus", "eastus2", "germanywestcentral", "italynorth", "northcentralus", "polandcentral",
        "swedencentral", "switzerlandnorth", "westus",
    }
)  # fmt: skip
"""Regions that refuse at create already (Azure, "How to use global batch", 2026; F§5.2)."""

BATCH_TYPES: Final = frozenset({"GlobalBatch", "DataZoneBatch"})


class Deployment(NamedTuple):
    """A deployment (Azure) or a model (OpenAI) that exists.

    Attributes:
        limit: Enqueued tokens, None for no limit. ``model``: whose encoding counts; None: the name's own.
        type: Its SKU; only those of :data:`BATCH_TYPES` serve batches. ``dead``: it accepts work and never does any.
    """

    name: str
    limit: int | None = None
    model: str | None = None
    type: str = "GlobalBatch"
    dead: bool = False


class LongLimit(NamedTuple):
    """Requests of a model with more than ``above`` tokens of input have a queue of their own, of ``limit`` tokens."""

    model: str
    above: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """At ``at_s`` after the first create: a new ``limit`` or ``rate``, or load of somebody else.

    Attributes:
        tokens, for_s: Others hold that many tokens for that long; ``listed``: as a batch that the list shows.
        deployment: Of this one; None: a limit is everybody's, a load that of the first deployment in use.
    """

    at_s: float
    limit: int | None = None
    rate: float | None = None
    tokens: int = 0
    for_s: float = 0.0
    listed: bool = True
    deployment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One resource.

    Attributes:
        dialect: Whose texts, envelopes and habits; also which surface ``/openai`` is.
        region: An Azure region: it decides ``fail_fast`` unless that is given.
        limit: Enqueued tokens of each deployment, or None for no limit. ``deployments``: the only names that exist, some
            with a limit of their own; empty: every name exists. ``model_limits``: limits by the beginning of a model's name.
        long_limits: Models that have a separate queue for long contexts (OpenAI, F§3.5).
        rate: Tokens per second of the service, 0 for no bound. ``discipline``: ``shared`` equally by the running
            batches, ``fifo``, or ``slots``: so many at once, each at its part of the rate.
        rhythm: (hour of the day in UTC, factor of the rate from then on), ascending.
        delays: How ``validating_s``, ``start_s`` and ``finalizing_s`` vary: not, log-normally or with a Pareto tail
            around them; ``spread`` is sigma, or the tail's exponent.
        cancelling_s: Time in ``cancelling`` (both say: up to ten minutes, F§2.3); None: as ``finalizing_s``.
        fail_fast: Refuse at create by characters (some Azure regions), not only after validating.
        refusal: The refusals' text: ``azure``, ``openai``, or ``bare`` without any number.
        headers: Azure's two headers on create.
        count_factor: Tokens that this provider counts for one of tiktoken's, in the queue and in ``usage`` alike.
        release_lag_s: How long tokens count after a batch's end; :data:`NEVER` for ever.
        pending_s: How long an uploaded file stays ``pending`` (Azure).
        expire_s: Batches expire after this (OpenAI: 24 h; Azure: None, F§2.3).
        files_max, files_expiring_max: Input files kept at once, without and with an expiry.
        upload_bytes_max: Of one ``POST /files``; OpenAI takes larger files than a batch may have (F§3.1).
        requests_max, file_bytes_max: Of one input file. ``enqueued_requests_max``: of a model's embeddings batches (OpenAI).
        calls_per_minute: More are answered with 429. ``uploads_per_minute``: of input files (Azure 1,800, OpenAI 1,000).
        keys: Accepted keys, empty for any; ``read_only_keys`` get 403 where they write.
        entra_key: Secret that signs Bearer tokens (HS256); then a Bearer token has to be such a one on Azure.
        created_status: Of a create on Azure's dated surface (F§1.2: documented as 201, seen as 200).
        v1_envelope: Shape of errors on Azure's ``/openai/v1`` (F§5.1: OpenAI's is likelier).
        answers: ``http(s)://…/v1``, or ``module:function`` or ``file.py:function``; None: a fixed text.
        blobs: Folder that stands for blob storage, by account, container and path; None: over HTTP.
        blob_sas: Query string appended to blob URLs that have none.
        speed: How fast the emulated clock runs. ``clock``: ``real``, or ``hand``: only as it is told.
        resources: More accounts, served under ``/resources/NAME``.
    """

    dialect: Literal["azure", "openai"] = "azure"
    region: str | None = None
    limit: int | None = None
    deployments: tuple[Deployment, ...] = ()
    model_limits: tuple[tuple[str, int], ...] = ()
    long_limits: tuple[LongLimit, ...] = ()
    rate: float = 0.0
    discipline: Literal["shared", "fifo", "slots"] = "shared"
    slots: int = 4
    rhythm: tuple[tuple[float, float], ...] = ()
    delays: Literal["fixed", "lognormal", "pareto"] = "fixed"
    spread: float = 1.0
    validating_s: float = 1.0
    start_s: float = 1.0
    finalizing_s: float = 0.5
    cancelling_s: float | None = None
    fail_fast: bool | None = None
    refusal: Literal["azure", "openai", "bare"] | None = None
    headers: bool = True
    count_factor: float = 1.0
    release_lag_s: float = 0.0
    pending_s: float = 0.0
    expire_s: float | None = None
    files_max: int | None = None
    files_expiring_max: int | None = None
    requests_max: int | None = None
    file_bytes_max: int = 209_715_200
    upload_bytes_max: int | None = None
    creates_per_hour: int | None = None
    enqueued_requests_max: int = 1_000_000
    calls_per_minute: int | None = None
    uploads_per_minute: int | None = None
    keys: tuple[str, ...] = ()
    read_only_keys: tuple[str, ...] = ()
    entra_key: str | None = None
    created_status: int = 201
    v1_envelope: Literal["openai", "azure"] = "openai"
    answers: str | None = None
    blobs: str | None = None
    blob_sas: str | None = None
    seed: int = 0
    speed: float = 1.0
    clock: Literal["real", "hand"] = "real"
    timetable: tuple[Change, ...] = ()
    faults: tuple[Fault, ...] = ()
    resources: tuple[tuple[str, Account], ...] = ()

    def with_defaults(self) -> Account:
        """Fill what depends on the dialect and the region (F§3.1, F§2.3, F§5.2)."""
        azure = self.dialect == "azure"
        return replace(
            self,
            deployments=tuple(Deployment(*one) for one in self.deployments),
            fail_fast=self.fail_fast if self.fail_fast is not None else self.region in FAIL_FAST_REGIONS,
            refusal=self.refusal or self.dialect,
            files_max=self.files_max if self.files_max is not None else (500 if azure else None),
            files_expiring_max=self.files_expiring_max or (10_000 if azure else None),
            upload_bytes_max=self.upload_bytes_max or (self.file_bytes_max if azure else GENERAL_FILE_BYTES_MAX),
            requests_max=self.requests_max or (100_000 if azure else 50_000),
            creates_per_hour=self.creates_per_hour or (None if azure else 2_000),
            uploads_per_minute=self.uploads_per_minute or (1_800 if azure else 1_000),
            expire_s=self.expire_s if self.expire_s is not None or azure else DAY_S,
            headers=self.headers and azure,
        )

    def model_of(self, deployment: str) -> str:
        """The model behind a deployment's name."""
        return next((d.model for d in self.deployments if d.name == deployment and d.model), deployment)


_DURATIONS: Final = {
    "validating": "validating_s", "start": "start_s", "finalizing": "finalizing_s", "cancelling": "cancelling_s",
    "release_lag": "release_lag_s", "pending": "pending_s", "expire": "expire_s",
}  # fmt: skip

_CHOICES: Final[dict[str, frozenset[str]]] = {
    "dialect": frozenset({"azure", "openai"}), "discipline": frozenset({"shared", "fifo", "slots"}),
    "delays": frozenset({"fixed", "lognormal", "pareto"}), "refusal": frozenset({"azure", "openai", "bare"}),
    "clock": frozenset({"real", "hand"}), "v1_envelope": frozenset({"openai", "azure"}),
}  # fmt: skip


def build(*, presets: tuple[str, ...] = (), path: Path | None = None, given: dict[str, Any]) -> Account:
    """An account from presets, a file and what was given by itself; what comes later wins.

    Args:
        given: Account fields.

    Raises:
        UsageError: no such preset or setting, or a value is wrong.
    """
    from sluicegate.emulator.presets import preset

    layers: dict[str, Any] = {}
    for name in presets:
        layers |= preset(name)
    others: dict[str, dict[str, Any]] = {}
    if path is not None:
        layers |= load(path, others)
    layers |= given
    resources = tuple((name, _checked(Account(**(layers | own)))) for name, own in others.items())
    return _checked(Account(**(layers | {"resources": resources})))


def load(path: Path, resources: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """Account fields from an ``emulator.toml``; those of its ``[resources.NAME]`` go to ``resources``.

    Raises:
        UsageError: it cannot be read, or a key or value is wrong.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as the emulator's settings: {error}") from error
    try:
        others = table.pop("resources", {})
        found = fields_of(table)
        if resources is not None:
            resources.update({name: fields_of(own) for name, own in _named("resources", others)})
    except (TypeError, ValueError, KeyError, AttributeError, UsageError) as error:
        raise UsageError(f"{path}: {error}") from error
    return found


def fields_of(table: dict[str, Any]) -> dict[str, Any]:
    """Account fields from the words of docs/emulate.md: ``validating = "2m"``, ``limit = "30K"``, tables of faults …

    Raises:
        UsageError: there is no such setting, or a value is not one of those that it takes.
    """
    try:
        return _fields_of(table)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UsageError(f"a value is wrong: {error}") from error


def _fields_of(table: dict[str, Any]) -> dict[str, Any]:
    types = {
        f.name: str(f.type) for f in fields(Account) if f.name not in {"resources", "faults", *_DURATIONS.values()}
    }
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key == "timetable":
            found[key] = tuple(_change(one) for one in value)
        elif key == "fault":
            found["faults"] = tuple(fault_of(one) for one in value)
        elif key == "preset":
            from sluicegate.emulator.presets import preset

            for name in [value] if isinstance(value, str) else value:
                found = preset(name) | found
        elif key == "deployments":
            found[key] = tuple(_deployment(name, one) for name, one in _named(key, value))
        elif key == "model_limits":
            found[key] = tuple((name, _tokens(limit)) for name, limit in _named(key, value))
        elif key == "long_limits":
            found[key] = tuple(
                LongLimit(name, _tokens(one["above"]), _tokens(one["limit"])) for name, one in _named(key, value)
            )
        elif key == "rhythm":
            found[key] = tuple((float(hour), float(factor)) for hour, factor in value)
        elif key == "limit":
            found[key] = _tokens(value)
        elif key in _DURATIONS:
            found[_DURATIONS[key]] = seconds_of(value)
        elif key in types:
            found[key] = _typed(key, value, types[key])
        else:
            raise UsageError(f"there is no setting {key!r}")
    return found


def _named(key: str, value: Any) -> Iterable[tuple[str, Any]]:
    """The entries of a table.

    Raises:
        TypeError: it is none, for instance ``[[deployments]]`` for ``[deployments]``.
    """
    if not isinstance(value, dict):
        raise TypeError(f"{key} is a table, [{key}] with a line NAME = … each, not a {type(value).__name__}")
    return value.items()


def _typed(key: str, value: Any, annotation: str) -> Any:
    """A plain value, if it is of the field's type.

    Raises:
        TypeError: it is not.
    """
    if annotation.startswith("tuple[str"):
        good, found = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value), "a list of texts"
        value = tuple(value) if good else value
    elif annotation.startswith("bool"):
        good, found = isinstance(value, bool), "true or false"
    elif annotation.startswith(("int", "float")):
        kinds = (int,) if annotation.startswith("int") else (int, float)
        good, found = isinstance(value, kinds) and not isinstance(value, bool), "a number"
    else:
        good, found = isinstance(value, str), "a text"
    if not good:
        raise TypeError(f"{key} is {found}, not {value!r}")
    return value


def _checked(account: Account) -> Account:
    for name, words in _CHOICES.items():
        value = getattr(account, name)
        if value is not None and value not in words:
            raise UsageError(f"{name} is one of {', '.join(sorted(words))}, not {value!r}")
    if account.speed <= 0 or account.rate < 0 or account.slots < 1 or account.spread <= 0 or account.count_factor <= 0:
        raise UsageError("speed, spread and count_factor are above 0, slots from 1, rate from 0")
    hours = [hour for hour, _ in account.rhythm]
    if hours != sorted(set(hours)) or any(not 0 <= hour < 24 for hour in hours):
        raise UsageError("the hours of a rhythm ascend from 0 to below 24")
    if any(factor <= 0 for _, factor in account.rhythm):
        raise UsageError("the factors of a rhythm are above 0")
    return account


def _tokens(value: Any) -> int:
    return parse_tokens(value) if isinstance(value, str) else int(value)


def seconds_of(value: Any) -> float:
    """A duration: a number of seconds, ``90s``, ``2h``, or ``never``.

    Raises:
        ValueError, TypeError: it is none.
    """
    if value == "never":
        return NEVER
    return parse_duration(value) if isinstance(value, str) else float(value)


def _deployment(name: str, value: Any) -> Deployment:
    if not isinstance(value, dict):
        return Deployment(name, _tokens(value))
    table = dict(value)
    capacity, limit = table.pop("capacity", None), table.pop("limit", None)
    if capacity is not None:
        limit = int(capacity) * CAPACITY_UNIT
    return Deployment(name, None if limit is None else _tokens(limit), **table)


def _change(table: dict[str, Any]) -> Change:
    table = dict(table)
    return Change(
        at_s=seconds_of(table.pop("at")), for_s=seconds_of(table.pop("for", 0)),
        limit=_tokens(table.pop("limit")) if "limit" in table else None,
        tokens=_tokens(table.pop("tokens", 0)), **table,
    )  # fmt: skip


def fault_of(table: dict[str, Any]) -> Fault:
    """A fault from a table of its fields.

    Raises:
        UsageError: there is no such place or kind, or a number makes no sense.
    """
    table = dict(table)
    for name in {"seconds", "at", "until"} & set(table):
        table[name] = seconds_of(table[name])
    return checked(Fault(**(table | {"kind": str(table.get("kind"))})))
