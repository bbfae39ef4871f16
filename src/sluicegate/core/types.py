"""The values that cross module borders: what a provider shows us, in one spelling for all dialects."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Dialect(StrEnum):
    """Which provider's rules, limits and texts hold."""

    AZURE = "azure"
    OPENAI = "openai"


class BatchStatus(StrEnum):
    """A provider batch's status as on the wire (both providers; parse case-insensitively, facts §1.8)."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """True if the provider has freed the batch's enqueued tokens (facts §4.1): nothing else frees them."""
        return self in _TERMINAL


_TERMINAL = frozenset({BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchError:
    """One entry of a provider batch's ``errors.data``."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens that the provider says it used, summed; ``reasoning_tokens`` are among ``output_tokens``."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderBatch:
    """A provider batch as one call showed it. Times are Unix seconds; ``""`` and null ids are None.

    Never infer the status from the times: Azure fills ``completed_at`` of failed batches (facts §2.4).
    """

    id: str
    status: BatchStatus
    endpoint: str | None = None
    model: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: float | None = None
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelled_at: float | None = None
    requests_total: int = 0
    requests_completed: int = 0
    requests_failed: int = 0
    usage: Usage | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    errors: tuple[BatchError, ...] = ()

    @property
    def ended_at(self) -> float | None:
        """When it ended, by the provider's clock, or None while it has not."""
        if not self.status.terminal:
            return None
        times = (self.completed_at, self.failed_at, self.expired_at, self.cancelled_at)
        return max((t for t in times if t is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file at the provider. ``status`` is ``pending``, ``uploaded``, ``processed`` or ``error``."""

    id: str
    filename: str
    bytes: int
    status: str
    created_at: float | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaHeaders:
    """Azure's two headers on create (facts §4.1): tokens of the file by characters, and the deployment's limit."""

    enqueued: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A create that the provider answered with a batch object."""

    batch: ProviderBatch
    headers: QuotaHeaders = QuotaHeaders()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPage:
    """One page of the provider's list, newest first. ``next_after`` is None on the last page."""

    batches: tuple[ProviderBatch, ...]
    next_after: str | None
