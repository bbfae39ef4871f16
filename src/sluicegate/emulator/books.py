"""What the emulator writes down of itself: most offered, most held, use of the quota over time. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from sluicegate.emulator.batch import Batch

SAMPLES_MOST: Final = 20_000
"""More are thinned out to half, so that a long life stays small; maxima and means are kept apart from them."""


@dataclass(slots=True)
class DeploymentBooks:
    """Of one deployment.

    Attributes:
        samples: (Unix seconds, tokens held, limit) at each change.
        integral, measured: ∫ held ÷ limit dt, and over how many seconds, since the first create.
    """

    samples: list[tuple[float, int, int | None]] = field(default_factory=list)
    held_max: int = 0
    held_max_ratio: float = 0.0
    offered_max: float = 0.0
    offered_max_tokens: int = 0
    integral: float = 0.0
    measured: float = 0.0

    @property
    def utilisation(self) -> float | None:
        """Mean of held ÷ limit since the first create, None where there was no limit."""
        return round(self.integral / self.measured, 4) if self.measured else None

    def offered(self, tokens: int, limit: int | None) -> None:
        """A create came, accepted or not: held and new tokens together."""
        if limit:
            self.offered_max = max(self.offered_max, tokens / limit)
            self.offered_max_tokens = max(self.offered_max_tokens, tokens)

    def passed(self, seconds: float, held: int, limit: int | None) -> None:
        """Time went by with so much held."""
        if limit:
            self.integral += held / limit * seconds
            self.measured += seconds

    def note(self, at: float, held: int, limit: int | None) -> None:
        """Write down what is held now, if it changed."""
        self.held_max = max(self.held_max, held)
        if limit:
            self.held_max_ratio = max(self.held_max_ratio, held / limit)
        if not self.samples or self.samples[-1][1:] != (held, limit):
            self.samples.append((at, held, limit))
        if len(self.samples) > SAMPLES_MOST:
            del self.samples[1:-1:2]


def timeline(batch: Batch, began: float) -> dict[str, Any]:
    """A batch's life in seconds since the first create."""
    return {
        "id": batch.id, "number": batch.number, "deployment": batch.deployment, "status": batch.status,
        "tokens": batch.tokens, "requests": len(batch.facts.tokens), "executed": batch.executed,
        "created": round(batch.created_at - began, 3),
        **{name.removesuffix("_at"): round(at - began, 3) for name, at in batch.times.items()},
    }  # fmt: skip


def books_json(books: DeploymentBooks, began: float) -> dict[str, Any]:
    """A deployment's books, times in seconds since the first create."""
    return {
        "offered_max": round(books.offered_max, 6), "held_max": books.held_max,
        "held_max_ratio": round(books.held_max_ratio, 6), "utilisation": books.utilisation,
        "samples": [[round(at - began, 3), held, limit] for at, held, limit in books.samples],
    }  # fmt: skip
