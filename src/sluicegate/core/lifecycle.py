"""The stages of a part and of a run, and which transitions are legal (docs/design.md, "State machines")."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from sluicegate.core.types import BatchStatus


class Stage(StrEnum):
    """Where a part is. ``phrase`` says it to a person."""

    RESERVED = "reserved"
    SUBMITTING = "submitting"
    HELD = "held"
    ENDED = "ended"
    COLLECTED = "collected"
    REFUSED = "refused"
    VOID = "void"

    @property
    def phrase(self) -> str:
        """The stage in words."""
        return _PHRASES[self]

    @property
    def final(self) -> bool:
        """True if nothing more happens to the part."""
        return not TRANSITIONS[self]

    @property
    def counts(self) -> bool:
        """True while the part's reservation stands in the ledger."""
        return self in (Stage.RESERVED, Stage.SUBMITTING, Stage.HELD)


_PHRASES: Final = {
    Stage.RESERVED: "room is reserved; the file is being uploaded",
    Stage.SUBMITTING: "the create was sent, or may have been",
    Stage.HELD: "the provider holds its tokens",
    Stage.ENDED: "ended at the provider; its results are being fetched",
    Stage.COLLECTED: "its results are home",
    Stage.REFUSED: "refused for want of enqueued tokens; its requests wait again",
    Stage.VOID: "given up before it reached the provider; its requests wait again",
}

TRANSITIONS: Final[dict[Stage, frozenset[Stage]]] = {
    # A refusal at create leaves from SUBMITTING; one after validating leaves from HELD. A refused part is offered
    # again with the same file from RESERVED as a new part row would be, so REFUSED and VOID are final.
    Stage.RESERVED: frozenset({Stage.SUBMITTING, Stage.VOID}),
    Stage.SUBMITTING: frozenset({Stage.HELD, Stage.REFUSED, Stage.VOID, Stage.RESERVED}),
    Stage.HELD: frozenset({Stage.ENDED, Stage.REFUSED}),
    Stage.ENDED: frozenset({Stage.COLLECTED}),
    Stage.COLLECTED: frozenset(),
    Stage.REFUSED: frozenset(),
    Stage.VOID: frozenset(),
}
UNDER_WAY: Final = frozenset(stage for stage in Stage if not stage.final)
"""Stages of parts of which something is still to come."""

UNUSED: Final = frozenset({Stage.REFUSED, Stage.VOID})
"""Stages of parts whose input file nobody needs, unless a refused one is offered again as it was."""


def check_transition(before: Stage, after: Stage) -> None:
    """Raise AssertionError unless ``before → after`` is legal."""
    assert after in TRANSITIONS[before], f"a part never goes from {before} to {after}"


class RunState(StrEnum):
    """Where a run is."""

    ACTIVE = "active"
    CANCELLING = "cancelling"
    FINISHED = "finished"

    @property
    def final(self) -> bool:
        """True if the run does nothing more."""
        return self is RunState.FINISHED


# Statuses in which a provider batch has passed validation, so its create was within the limit.
PROVEN: Final = frozenset({BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.COMPLETED, BatchStatus.EXPIRED})
