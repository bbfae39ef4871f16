"""What validating finds wrong with a batch, in the providers' words (F§5.2, F§5.3)."""

from __future__ import annotations

from typing import Any

from sluicegate.core.limits import format_tokens
from sluicegate.emulator.batch import LIVE, Batch
from sluicegate.emulator.config import Account


def error(code: str, message: str) -> dict[str, Any]:
    """An error of a whole batch."""
    return {"code": code, "message": message, "param": None, "line": None}


def own_problems(batch: Batch, refused_type: str | None) -> list[dict[str, Any]]:
    """Without regard to any limit: the file's own problems first, then a fault's, the deployment's.

    Args:
        refused_type: The deployment's type if it is not one for batches.
    """
    if batch.facts.problems:
        return batch.facts.problems
    if batch.fault == "input_modified":
        return [error("input_modified", "The input blob was changed while the batch was being processed.")]
    if batch.fault == "fail":
        return [error("invalid_request", "The batch could not be processed.")]
    if refused_type is not None:
        text = (
            f"The deployment '{batch.deployment}' is of type '{refused_type}', which is not supported by the Batch API."
        )
        return [error("invalid_request", text)]
    return []


def too_many_tokens(account: Account, batch: Batch, before: int, limit: int | None) -> list[dict[str, Any]]:
    """The refusal of a batch whose tokens exceed the limit together with the ``before`` that count already."""
    if limit is None or before + batch.tokens <= limit:
        return []
    return [error("token_limit_exceeded", refusal_text(account, batch.deployment, limit))]


def too_many_inputs(account: Account, batch: Batch, before: list[Batch]) -> list[dict[str, Any]]:
    """OpenAI's limit of enqueued requests for embeddings (F§3.1)."""
    if account.dialect != "openai" or not batch.facts.url.endswith("/embeddings"):
        return []
    most = account.enqueued_requests_max
    if batch.facts.inputs + sum(b.facts.inputs for b in before if b.status in LIVE) <= most:
        return []
    text = (
        f"Enqueued request limit reached for {batch.deployment} in organization org-emulated. Limit: {most:,} enqueued "
        "requests. Please try again once some in_progress batches have been completed."
    )
    return [error("token_limit_exceeded", text)]


def refusal_text(account: Account, deployment: str, limit: int) -> str:
    """The sentence of a refusal by the enqueued-token limit."""
    match account.refusal:
        case "azure":
            return (
                f"The number of enqueued tokens has surpassed the configured limit of {format_tokens(limit)} for the "
                f"deployment '{deployment}'. Please either increase the limit or try again once the current jobs "
                "have finished."
            )
        case "openai":
            return (
                f"Enqueued token limit reached for {deployment} in organization org-emulated. Limit: {limit:,} "
                "enqueued tokens. Please try again once some in_progress batches have been completed."
            )
        case _:
            return "The number of enqueued tokens has surpassed the configured limit. Please try again later."
