"""The stages of a part, enumerated."""

from itertools import product

import pytest

from sluicegate.core.lifecycle import TRANSITIONS, RunState, Stage, check_transition
from sluicegate.core.types import BatchStatus

LEGAL = {
    ("reserved", "submitting"), ("reserved", "void"), ("submitting", "held"), ("submitting", "refused"),
    ("submitting", "void"), ("submitting", "reserved"), ("held", "ended"), ("held", "refused"), ("ended", "collected"),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), list(product(Stage, Stage)))
def test_only_the_documented_transitions_are_legal(before: Stage, after: Stage) -> None:
    """All 49 pairs: nine are legal, the others are errors of ours."""
    if (before.value, after.value) in LEGAL:
        check_transition(before, after)
    else:
        with pytest.raises(AssertionError):
            check_transition(before, after)


def test_every_stage_reaches_a_final_one_and_says_what_it_means() -> None:
    """No part can be stuck by construction, and every stage has a phrase for people."""
    for stage in Stage:
        reached, todo = set(), [stage]
        while todo:
            now = todo.pop()
            if now not in reached:
                reached.add(now)
                todo += TRANSITIONS[now]

        assert any(one.final for one in reached)
        assert stage.phrase


def test_a_reservation_stands_exactly_while_the_provider_may_hold_tokens() -> None:
    """D3: what was sent counts until its end was seen."""
    assert {stage for stage in Stage if stage.counts} == {Stage.RESERVED, Stage.SUBMITTING, Stage.HELD}
    assert {status for status in BatchStatus if status.terminal} == {"failed", "completed", "expired", "cancelled"}
    assert RunState.FINISHED.final and not RunState.ACTIVE.final
