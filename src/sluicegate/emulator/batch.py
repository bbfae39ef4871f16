"""A batch at the provider, what its input file showed, and a refusal: the values of the model."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final

from sluicegate.emulator.faults import FAILED_LINES, SILENT_LINES

LIVE: Final = frozenset({"validating", "in_progress", "finalizing", "cancelling"})


@dataclass(slots=True)
class InputFacts:
    """What reading an input file showed.

    Attributes:
        tokens: Of each line, counted by tiktoken. ``identity``: a hash of custom_id and body of each line.
        quarter_chars: Characters of the bodies ÷ 4, each line rounded down, summed.
        problems: Batch errors as the provider words them.
        counted: ``tokens`` and ``identity`` are there; until then they are as many zeros as there are lines.
        inputs: Things to embed, for ``/v1/embeddings``.
    """

    tokens: array[int]
    identity: array[int]
    quarter_chars: int
    deployment: str
    url: str
    problems: list[dict[str, Any]] = field(default_factory=list)
    inputs: int = 0
    counted: bool = True


@dataclass(slots=True)
class Batch:
    """A batch at the provider. Times are Unix seconds.

    Attributes:
        number: From 1, among ours; 0 for somebody else's.
        factor: What the provider counts for a token. ``found``: tokens held by others and by ours at the create.
        queue: In which enqueued tokens it counts: its deployment's, or the deployment's for long contexts.
        fates: Faults of executed lines, by line from 0.
        gated: It stays in ``finalizing`` or ``cancelling`` until its results are written; whoever writes them tells.
        input_tokens, output_tokens: Of the answers, as these say. ``failed_more``: lines that the one who answers failed,
            beyond ``fates``.
        foreign: Somebody else's; it ends at ``leaves_at``.
    """

    id: str
    deployment: str
    endpoint: str
    input_file_id: str
    created_at: float
    metadata: dict[str, str] | None
    facts: InputFacts
    queue: str = ""
    number: int = 0
    factor: float = 1.0
    found: int = 0
    status: str = "validating"
    charge: int = 0
    tokens: int = 0
    until: float = 0.0
    served: float = 0.0
    running: bool = False
    sums: array[int] = field(default_factory=lambda: array("Q"))
    executed: int = 0
    fates: dict[int, str] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    output_file_id: str | None = None
    error_file_id: str | None = None
    ended_at: float | None = None
    lag_s: float = 0.0
    foreign: bool = False
    leaves_at: float | None = None
    ends_as: str = "completed"
    fault: str | None = None
    gated: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    failed_more: int = 0
    extras: dict[str, Any] = field(default_factory=dict)

    def count(self) -> None:
        """Take over what was counted of the input."""
        self.tokens = round(sum(self.facts.tokens) * self.factor)
        self.sums = array("Q", accumulate(round(t * self.factor) for t in self.facts.tokens))

    @property
    def largest(self) -> int:
        """What is counted for its largest line."""
        return round(max(self.facts.tokens, default=0) * self.factor)

    @property
    def key(self) -> str:
        """What to seed with for it: of ours the number, since the id is random; of others the id, which is not."""
        return self.id if self.foreign else str(self.number)

    @property
    def left(self) -> float:
        """Tokens that have still to be served."""
        return max(0.0, self.tokens - self.served)

    def tokens_of(self, line: int) -> int:
        """What is counted for a line (from 0)."""
        return self.sums[line] - (self.sums[line - 1] if line else 0)

    @property
    def unanswered(self) -> list[int]:
        """Executed lines (from 0) to which nobody answers."""
        return [line for line, kind in self.fates.items() if kind in SILENT_LINES]

    @property
    def tokens_answered(self) -> int:
        """What is counted for the executed lines that are answered."""
        done = self.sums[self.executed - 1] if self.executed and self.sums else 0
        return done - sum(map(self.tokens_of, self.unanswered))

    @property
    def failed(self) -> int:
        """Executed lines that ended in the error file."""
        return self.failed_more + sum(1 for kind in self.fates.values() if kind in FAILED_LINES)


class Refused(Exception):
    """A create or cancel is refused: HTTP status, code, text."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after_s = status, code, message, retry_after_s
