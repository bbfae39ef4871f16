"""Our batch rows as the API's batch object."""

from __future__ import annotations

from typing import Any

import msgspec

from sluicegate.core.lifecycle import Stage
from sluicegate.core.rows import PartRow
from sluicegate.core.tenancy import ENDS, ClientBatchRow
from sluicegate.core.types import BatchStatus, Usage
from sluicegate.ports import Tx
from sluicegate.service.desk import Outlook
from sluicegate.service.runs import usage_of
from sluicegate.web.dialects import Family
from sluicegate.web.wording import worded


def batch_json(tx: Tx, batch: ClientBatchRow, family: Family, outlook: Outlook) -> dict[str, Any]:
    """The batch object, with what only the gateway knows under ``sluicegate``."""
    parts = tx.parts(run=batch.run) if batch.run else []
    completed, failed = _counts(batch, parts)
    ended = batch.ended_at
    times = {
        f"{status.value}_at": int(ended) if ended is not None and batch.status is status else None
        for status in sorted(ENDS)
    }
    problems = [worded(p, azure=family.azure) for p in msgspec.json.decode(batch.errors)] if batch.errors else []
    usage = Usage()
    for part in parts:
        usage = usage + usage_of(part)
    return {
        "id": batch.id, "object": "batch",
        "endpoint": batch.endpoint.removeprefix("/v1") if family.azure else batch.endpoint,
        "errors": {"object": "list", "data": problems} if problems else None,
        "input_file_id": batch.input_file or None, "completion_window": batch.window, "status": batch.status.value,
        "output_file_id": batch.output_file, "error_file_id": batch.error_file, "created_at": int(batch.created_at),
        "expires_at": int(batch.due_at), "in_progress_at": _whole(batch.in_progress_at),
        "finalizing_at": _whole(batch.finalizing_at), "cancelling_at": _whole(batch.cancelling_at), **times,
        "request_counts": {"total": batch.total, "completed": completed, "failed": failed},
        "usage": {
            "input_tokens": usage.input_tokens, "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
        "metadata": msgspec.json.decode(batch.metadata) if batch.metadata else None,
        "sluicegate": _own(tx, batch, parts, outlook),
    } | (_blobs(batch) if family.azure else {})  # fmt: skip


def _blobs(batch: ClientBatchRow) -> dict[str, str | None]:
    """Where Azure's clients find a batch's blobs; their names are given even if nothing was written (F§1.11)."""
    return {"input_blob": batch.input_blob, "output_blob": batch.output_blob, "error_blob": batch.error_blob}


def _counts(batch: ClientBatchRow, parts: list[PartRow]) -> tuple[int, int]:
    if batch.finalizing_at is not None or batch.status in ENDS:
        return batch.completed, batch.failed
    home = [part for part in parts if part.stage is Stage.COLLECTED]
    failed = sum(part.failed for part in home)
    return min(sum(part.answered for part in home), batch.total - failed), failed


def _own(tx: Tx, batch: ClientBatchRow, parts: list[PartRow], outlook: Outlook) -> dict[str, Any]:
    progress = outlook.progress
    if batch.status in ENDS:
        reasons = []
    elif batch.reason:
        reasons = [batch.reason]
    elif outlook.trouble:
        reasons = [outlook.trouble]
    elif progress is not None:
        reasons = [progress.waits_for]
    elif batch.status is BatchStatus.VALIDATING:
        reasons = ["the input file is being checked, or waits for it"]
    else:
        reasons = ["waits for its turn among the tenant's batches"]
    waits = sum(len(spans) for spans in tx.waiting(batch.run).values()) if batch.run else 0
    run = tx.run(batch.run) if batch.run and waits else None
    return {
        "waiting_requests": waits,
        # Their share of the batch's estimate: what each of them counts is in the index, which is too much to read here.
        "waiting_tokens": round(run.tokens * waits / run.requests) if run is not None else 0,
        "held_tokens": sum(part.charge for part in parts if part.stage is Stage.HELD),
        "reserved_tokens": sum(part.charge for part in parts if part.stage in (Stage.RESERVED, Stage.SUBMITTING)),
        "parts": sum(1 for part in parts if part.provider_batch),
        "expected_at": _whole(progress.finish_at) if progress else None,
        "expected_at_latest": _whole(progress.finish_at_late) if progress else None,
        "reasons": reasons, "position": outlook.position,
    }  # fmt: skip


def part_json(part: PartRow) -> dict[str, Any]:
    """Where a slice of a batch ran; the provider's own texts are left out."""
    return {
        "id": part.id, "object": "batch.part", "deployment": part.deployment.rpartition("#")[2],
        "provider_batch_id": part.provider_batch, "stage": part.stage.value, "means": part.stage.phrase,
        "status": part.status, "requests": part.count, "tokens": part.tokens, "reserved": part.charge,
        "answered": part.answered, "failed": part.failed, "salvaged": part.salvaged,
        "created_at": int(part.created_at), "held_at": _whole(part.held_at), "collected_at": _whole(part.collected_at),
    }  # fmt: skip


def _whole(at: float | None) -> int | None:
    return None if at is None else int(at)
