"""The submit protocol's pure half (D4): keys, and how the answer to a create, or its absence, is read from a list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sluicegate.core.types import ProviderBatch

KEY: Final = "sluicegate"
INPUT: Final = "sluicegate_input"

CLOCKS_DIFFER_S: Final = 3_600.0
"""A list is read back to this long before an intent, since the provider's clock may differ from ours."""


def key(part: str, attempt: int) -> str:
    """The metadata value that names an intent: unique for ever, since part ids are."""
    return f"{part}:{attempt}"


def filename(part: str, attempt: int) -> str:
    """The input file's name at the provider, unique per attempt so that deleting it fails a late create."""
    return f"sluicegate-{part}-{attempt}.jsonl"


def metadata(part: str, attempt: int, digest: str) -> dict[str, str]:
    """What a create carries: strings only (F§1.6), so that the batch can be found again by anyone."""
    return {KEY: key(part, attempt), INPUT: digest}


def part_of(batch: ProviderBatch) -> str | None:
    """The part id in a provider batch's metadata, or None if Sluicegate did not make it."""
    value = batch.metadata.get(KEY)
    return value.partition(":")[0] if value else None


def digest_of(batch: ProviderBatch) -> str | None:
    """The run's digest in a provider batch's metadata."""
    return batch.metadata.get(INPUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a list shows of an intent: the batch that it made, and others that the same POST made besides."""

    batch: ProviderBatch | None
    twins: tuple[ProviderBatch, ...] = ()


def find(batches: Iterable[ProviderBatch], *, part: str, attempt: int, file_id: str | None) -> Found:
    """The batches that an intent made, by its key, else by its input file. The oldest is the one that counts."""
    wanted = key(part, attempt)
    mine = [
        batch
        for batch in batches
        if batch.metadata.get(KEY) == wanted
        or (not batch.metadata and file_id is not None and batch.input_file_id == file_id)
    ]
    mine.sort(key=lambda batch: (batch.created_at or 0.0, batch.id))
    return Found(batch=mine[0] if mine else None, twins=tuple(mine[1:]))
