"""Our rows as values (D12: the rows are the truth). Field names are column names; times are Unix seconds."""

from __future__ import annotations

from dataclasses import dataclass

from sluicegate.core.lifecycle import RunState, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One ``sluicegate run``: its inputs by content, and how it is to be done.

    Attributes:
        digest: SHA-256 over the inputs' digests, in order.
        groups: JSON list of ``[url, model]``; a group's number is its place.
        redirect: The deployment that every line goes to, or None: each to the one it names.
        cap: The person's ``--limit`` in tokens, or None.
        serial: How many parts were cut so far.
        tenant: Whose batch it is at the gateway; None for a ``sluicegate run``. Only the gateway drives a tenant's runs.
        due_at: When the gateway's client wants it done.
        names: JSON object, name that clients use → deployment; None: each line names its deployment.
        closing: ``code: message`` once what still waits is to end as errors (cancelled, expired), else None.
    """

    id: str
    digest: str
    state: RunState
    resource: str
    dialect: str
    groups: str
    redirect: str | None
    cap: int | None
    requests: int
    tokens: int
    serial: int
    created_at: float
    finished_at: float | None = None
    exit_code: int | None = None
    tenant: str | None = None
    due_at: float | None = None
    closing: str | None = None
    names: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """One input file of a run: one output file, one error file.

    Attributes:
        first: The run-wide ordinal of its first request; it has ``requests`` of them.
        input, index: Blob keys.
        written: How many of its requests are in the output or error file, fsynced; ``out_bytes``, ``err_bytes`` and
            ``out_lines``, ``err_lines`` are these files' sizes at that point.
    """

    id: str
    run: str
    ordinal: int
    name: str
    digest: str
    input: str
    index: str
    bytes: int
    first: int
    requests: int
    output: str
    errors: str
    written: int = 0
    out_bytes: int = 0
    err_bytes: int = 0
    out_lines: int = 0
    err_lines: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRow:
    """A slice of a run's requests that becomes one provider batch.

    Attributes:
        requests: Ordinals, as :class:`~sluicegate.core.waiting.Spans` text; ``retries`` is JSON ``{attempt: spans}``
            of those that were sent before.
        tokens, quarter_chars: Our two counts, uncalibrated; ``charge`` what the ledger reserved for them at the cut.
        attempt: How many intents to create it were written.
        fill: What counted against the limit when it was offered, itself included.
        intent_at: When the newest intent was written; a create may be under way since then.
        progress_at: When its status or counts were last seen to change.
        objections: JSON list of ``[line, code, message]``, where validation refused single lines of the part's file
            (counted from 1), else None.
        left_at: When the provider freed it, by our clock; its tokens may still count for the learned release lag.
        cleaned: Its files at the provider are deleted (or are kept on purpose).
    """

    id: str
    run: str
    deployment: str
    resource: str
    url: str
    group: int
    stage: Stage
    requests: str
    retries: str
    count: int
    tokens: int
    quarter_chars: int
    bytes: int
    charge: int
    attempt: int
    fill: int
    unproven: bool
    probing: bool
    reason: str
    created_at: float
    blob: str
    file_id: str | None = None
    provider_batch: str | None = None
    status: str | None = None
    intent_at: float | None = None
    held_at: float | None = None
    validated_at: float | None = None
    progress_at: float | None = None
    left_at: float | None = None
    collected_at: float | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    seen_completed: int = 0
    seen_failed: int = 0
    answered: int = 0
    failed: int = 0
    salvaged: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None
    objections: str | None = None
    stuck: bool = False
    cleaned: bool = False
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRow:
    """A deployment on a resource: the ledger's scope, and what is believed of it (JSON of ``core.belief``)."""

    id: str
    resource: str
    name: str
    model: str | None
    belief: str
    cap_override: int | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRow:
    """A provider batch that is not ours and has not ended.

    Attributes:
        deployment: Its deployment's name, or ``*`` where that could not be found out: it counts on all.
        requests: How many of its requests count against the limit of enqueued requests; 0 where there is none.
        tokens, quarter_chars: Estimate, uncalibrated; ``basis`` says from what: content, bytes, counts, or
            provisional: it is made anew at the next look.
    """

    provider_batch: str
    resource: str
    deployment: str
    status: str
    tokens: int
    quarter_chars: int
    basis: str
    seen_at: float
    requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRow:
    """When a resource's list was last read, by any process on this data folder."""

    id: str
    listed_at: float
    listing_until: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandRow:
    """What a run could still submit to a deployment when it last turned, or began, in ledger tokens, and the cap it was
    told; ``needs``, ``needs_since``: as in :class:`~sluicegate.core.fairness.Claim`."""

    run: str
    deployment: str
    tokens: int
    cap: int | None
    at: float
    needs: int = 0
    needs_since: float = 0.0


def scope(resource: str, deployment: str) -> str:
    """The id of a deployment, which is also the ledger's scope."""
    return f"{resource}#{deployment}"
