"""A provider that does not answer is left alone, by all together."""

from __future__ import annotations

from typing import Any

import pytest

from sluicegate.adapters.circuit import FAILURES, Circuit
from sluicegate.errors import NotFound, OutcomeUnknown, Throttled, Unavailable


class Provider:
    """Answers what it is told to."""

    resource, dialect = "r", None

    def __init__(self) -> None:
        self.says: Any = Unavailable("no answer")
        self.calls = 0

    async def batch(self, batch_id: str) -> str:
        self.calls += 1
        if isinstance(self.says, Exception):
            raise self.says
        return batch_id

    async def create(self, **_: Any) -> str:
        return await self.batch("made")


class Clock:
    """Moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def made() -> tuple[Circuit, Provider, Clock]:
    """A circuit, what is behind it, and its clock."""
    provider, clock = Provider(), Clock()
    return Circuit(provider, clock), provider, clock  # type: ignore[arg-type]


async def fail(circuit: Circuit, times: int) -> None:
    for _ in range(times):
        with pytest.raises(Unavailable):
            await circuit.batch("b")


async def test_after_failures_in_a_row_nobody_calls_for_a_while(made: tuple[Circuit, Provider, Clock]) -> None:
    """Then one tries, while the others still wait, and pauses double; an answer ends it."""
    circuit, provider, clock = made
    await fail(circuit, FAILURES)
    for _ in range(50):
        with pytest.raises(Throttled) as told:
            await circuit.create(input_file_id="f", endpoint="e", metadata={})
        assert told.value.retry_after_s == 1.0
    assert provider.calls == FAILURES

    clock.now += 1.0
    await fail(circuit, 1)
    with pytest.raises(Throttled) as told:
        await circuit.batch("b")
    assert told.value.retry_after_s == 2.0
    clock.now += 2.0
    provider.says = None
    assert await circuit.batch("b") == "b"
    provider.says = OutcomeUnknown("lost")
    with pytest.raises(OutcomeUnknown):
        await circuit.create(input_file_id="f", endpoint="e", metadata={})
    assert provider.calls == FAILURES + 3


async def test_pauses_do_not_grow_for_ever(made: tuple[Circuit, Provider, Clock]) -> None:
    """A minute at most."""
    circuit, _, clock = made
    await fail(circuit, FAILURES)
    for _ in range(12):
        clock.now += 60.0
        await fail(circuit, 1)
    with pytest.raises(Throttled) as told:
        await circuit.batch("b")
    assert told.value.retry_after_s == 60.0


async def test_a_provider_that_says_no_has_answered(made: tuple[Circuit, Provider, Clock]) -> None:
    """Only silence opens the circuit."""
    circuit, provider, _ = made
    await fail(circuit, FAILURES - 1)
    provider.says = NotFound("no such batch", status=404)
    with pytest.raises(NotFound):
        await circuit.batch("b")
    provider.says = Unavailable("no answer")
    await fail(circuit, FAILURES - 1)
    provider.says = None
    assert await circuit.batch("b") == "b"
