"""Why a client's batch fails before anything is sent: the check's errors, and what the provider alone would refuse.

Codes are the provider's (F§5.2, F§5.3); the client's dialect words them when they are shown (``web.wording``).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from sluicegate.core.index import Index
from sluicegate.core.limits import UPLOAD_BYTES_MAX, limits_of
from sluicegate.core.line import UNREADABLE
from sluicegate.core.report import few
from sluicegate.core.types import Dialect
from sluicegate.service.intake import Inspection

SHOWN: Final = 100
"""Problems listed in a failed batch's ``errors``, as many as the provider lists at most."""

EMBEDDING_INPUTS_PER_BATCH: Final = 50_000
"""Of one OpenAI batch (F§3.1)."""

Problem = dict[str, Any]
"""``{code, message, param, line}``; line None for the file as a whole."""


def objections(inspection: Inspection, source: Path, endpoint: str, dialect: Dialect, *, strict: bool) -> list[Problem]:
    """All problems by line, the first :data:`SHOWN`; empty if the batch may begin.

    Args:
        source: The input file.
        endpoint: The batch's, with ``/v1``.
        dialect: The one that the client speaks.
        strict: Object to what the provider would refuse and we could serve: several models, more lines than one
            provider batch takes.
    """
    found = _provider_alone(inspection, source, endpoint, dialect) if strict else []
    found += [
        {"code": p.code, "message": p.message, "param": None, "line": p.line or None}
        for p in inspection.problems.listed
        if p.severity == "error"
    ]
    return sorted(found, key=lambda problem: int(problem["line"] or 0))[:SHOWN]


def _first(lines: Iterable[int]) -> list[int]:
    return [line for line, _ in zip(lines, range(SHOWN), strict=False)]


def _provider_alone(inspection: Inspection, source: Path, endpoint: str, dialect: Dialect) -> list[Problem]:
    azure = dialect is Dialect.AZURE
    found: list[Problem] = []

    def say(code: str, message: str) -> None:
        found.append({"code": code, "message": message, "param": None, "line": None})

    size = source.stat().st_size
    if not azure and size > UPLOAD_BYTES_MAX:
        name = next((group.model for index in inspection.indexes for group in index.groups if group.model), "requested")
        say("invalid_request",
            f"The batch input file is larger than the {UPLOAD_BYTES_MAX} maximum for the {name} model")  # fmt: skip
    most = limits_of(dialect).requests_per_batch
    for index in inspection.indexes:
        models = sorted({group.model for group in index.groups if group.model})
        if len(index) > most:
            say("too_many_tasks", f"The file has {len(index):,} requests; a batch takes {most:,}.")
        if len(models) > 1:
            say(
                "model_mismatch" if azure else "mismatched_model",
                f"The file names several models: {few(models)}.",
            )
    if azure and any(problem.code == "byte_order_mark" for problem in inspection.problems.listed):
        say("invalid_request", "Model parameter is required.")
    if not azure and endpoint.endswith("/embeddings") and _inputs(source) > EMBEDDING_INPUTS_PER_BATCH:
        say("too_many_tasks", f"The file has more than {EMBEDDING_INPUTS_PER_BATCH:,} embedding inputs.")
    return found


class _Body(msgspec.Struct):
    input: Any = None


class _Line(msgspec.Struct):
    body: _Body


def _inputs(source: Path) -> int:
    """Texts to embed in a file; lines that cannot be read have none."""
    count = 0
    with source.open("rb") as file:
        for line in file:
            try:
                given = msgspec.json.decode(line, type=_Line).body.input
            except UNREADABLE:
                continue
            count += len(given) if isinstance(given, list) else 1
    return count


def lines_naming(index: Path, model: str) -> list[int]:
    """Numbers of the first lines whose ``model`` it is."""
    with index.open("rb") as file:
        columns = Index.read(file)
    groups = {g for g, group in enumerate(columns.groups) if group.model == model}
    return _first(columns.line[i] for i, group in enumerate(columns.group) if group in groups)
