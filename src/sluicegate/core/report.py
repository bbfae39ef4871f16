"""What a person or a machine is shown: values only. Every screen, ``--json`` line and metric is derived from these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from sluicegate.core.types import Usage

FEW: Final = 3
"""How many of many are named in a sentence."""


def few(words: Sequence[str], *, between: str = ", ") -> str:
    """The first of ``words`` and how many more there are, so that a sentence stays one."""
    more = [f"{len(words) - FEW:,} more"] if len(words) > FEW else []
    return between.join([*words[:FEW], *more])


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaRow:
    """One deployment's quota now. Integers are tokens, times are Unix seconds (docs/glossary.md: quota).

    Attributes:
        resource: Address of the resource at the provider.
        limit: The enqueued-token limit believed in, or None if nothing is known yet.
        limit_source: Where it is known from: configured, account, header, refusal, learned, joined by "+".
        reserved: Reserved for parts that are being submitted.
        held: Held by provider batches of ours.
        foreign: Estimated for batches of others.
        headroom: ``limit - reserved - held - foreign``, at least 0; None without a limit.
        waiting: Estimated tokens of requests of live runs that wait for room.
        provider_batches: Batches at the provider that have not ended, ours and others'.
        calibration: The factor between the provider's count and our estimate.
        next_release_at: When the next provider batch is expected to end, or None.
        idle_at: When all that is held and waiting is expected to be done, or None.
        observed_at: When the provider's list was last read, or None.
        paused: A person paused the deployment.
    """

    deployment: str
    resource: str
    model: str | None
    limit: int | None
    limit_source: str
    reserved: int
    held: int
    foreign: int
    headroom: int | None
    waiting: int
    provider_batches: int
    calibration: float
    next_release_at: float | None
    idle_at: float | None
    observed_at: float | None
    paused: bool = False


class EventKind(StrEnum):
    """What can happen in a run; each member's comment gives its ``fields``."""

    RUN_STARTED = "run_started"  # run, inputs, requests, tokens, resumed
    FOLLOWING = "following"  # run, pid: another process drives this run
    CUT = "cut"  # part, deployment, requests, tokens, reserved, reason
    HELD_BACK = "held_back"  # deployment, reason
    ACCEPTED = "accepted"  # part, provider_batch
    REFUSED = "refused"  # part, deployment, message, limit, dimension
    LIMIT_CHANGED = "limit_changed"  # deployment, limit (or requests_limit), previous, source, reason
    CALIBRATED = "calibrated"  # deployment, factor, previous
    FOREIGN = "foreign"  # deployment, tokens, provider_batches
    STATUS = "status"  # part, provider_batch, status, completed, failed
    ENDED = "ended"  # part, provider_batch, status
    COLLECTED = "collected"  # part, answered, failed, salvaged, missing, unknown, doubled
    STUCK = "stuck"  # part, provider_batch, status, for_s, cancelled
    TROUBLE = "trouble"  # where, message, retry_in_s: the provider or network did not do what was asked
    TWIN = "twin"  # part, provider_batch: one create was committed twice; the second is cancelled
    FINDING = "finding"  # part, message: something odd that was repaired
    RUN_FINISHED = "run_finished"  # run, exit_code, completed, failed, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, at ``at`` (Unix seconds). ``sentence`` says it in words for a person."""

    at: float
    kind: EventKind
    sentence: str
    run: str | None = None
    part: str | None = None
    deployment: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands now. Counts are requests unless named otherwise; ``done`` and ``failed`` are final."""

    at: float
    started_at: float
    total: int
    waiting: int
    enqueued: int
    done: int
    failed: int
    tokens_total: int
    tokens_done: int
    tokens_per_minute: float | None
    finish_at: float | None
    finish_at_late: float | None  # a pessimistic bound; the span between the two says how sure we are
    quotas: tuple[QuotaRow, ...]
    waits_for: str  # a sentence: what it waits for now
    last_refusal: str | None = None
    learned: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        exit_code: 0 every request answered, 1 some ended in the error file.
        outputs: One result file per input, in the order of the inputs.
        errors: The error file of each input, None where it would be empty.
        cost: In USD, by the price table, or None where a price is not known.
    """

    run: str
    exit_code: int
    total: int
    completed: int
    failed: int
    parts: int
    refusals: int
    salvaged: int
    usage: Usage
    cost: float | None
    seconds: float
    outputs: tuple[str, ...]
    errors: tuple[str | None, ...]
