"""The gateway's rows as values: tenants, their keys, files and batches. Times are Unix seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sluicegate.core.types import BatchStatus, Dialect

ENDS = frozenset({BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED})
OPEN = frozenset(BatchStatus) - ENDS


class Role(StrEnum):
    """What a key may do: ``user`` its tenant's work, ``observer`` only look at it, ``admin`` look at all tenants'."""

    USER = "user"
    OBSERVER = "observer"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRow:
    """Who is charged and fairly shared. ``weight``: its share of the limit relative to other tenants'."""

    id: str
    weight: float
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """A key of the gateway; only ``digest``, the SHA-256 of its secret (192 random bits), is stored."""

    id: str
    tenant: str
    role: Role
    digest: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """A client's file: an upload, or a batch's output or error file. ``blob`` is where its content is."""

    id: str
    tenant: str
    filename: str
    purpose: str
    bytes: int
    lines: int
    sha256: str
    blob: str
    created_at: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRow:
    """A file that a client uploads in parts (F§1.1). ``bytes``: as announced; ``seconds``: until the file expires.

    Attributes:
        status: pending, completed, cancelled or expired; a pending one expires after an hour, whether or not a sweep has
            noted that.
        file: Id of the file that it became.
    """

    id: str
    tenant: str
    filename: str
    purpose: str
    bytes: int
    created_at: float
    status: str = "pending"
    seconds: int | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPartRow:
    """One part of an upload; ``blob`` is where its content is."""

    id: str
    upload: str
    bytes: int
    blob: str
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientBatchRow:
    """A batch as a client of the gateway sees it; the run of id ``run`` does its work once it is checked.

    Attributes:
        key: Id of the key that created it.
        metadata, errors: JSON, as on the wire.
        idempotency: The client's ``Idempotency-Key``; ``fingerprint``: SHA-256 of who asked for what, by which a
            repeated create is recognised.
        due_at: When the completion window ends.
        dialect: The one in which it was created; results come as this provider gives them.
        reason: Why it does not move, in words, or None.
        attempt, answered_at: Which attempt of its create (from 0, as SDKs count) was answered last, and when; None once
            its client has asked for it by its id, so that this answer is known to have come.
        input_blob, output_blob, error_blob: URLs where its input is and its results go, instead of files.
        output_seconds: How long its output and error files are kept, or None: as the settings say.
    """

    id: str
    tenant: str
    key: str
    input_file: str
    input: str
    input_bytes: int
    endpoint: str
    window: str
    metadata: str | None
    status: BatchStatus
    fingerprint: str
    created_at: float
    due_at: float
    idempotency: str | None = None
    run: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file: str | None = None
    error_file: str | None = None
    errors: str | None = None
    reason: str | None = None
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    cancelling_at: float | None = None
    ended_at: float | None = None
    dialect: Dialect = Dialect.OPENAI
    input_blob: str | None = None
    output_blob: str | None = None
    error_blob: str | None = None
    output_seconds: int | None = None
    attempt: int = 0
    answered_at: float | None = None
