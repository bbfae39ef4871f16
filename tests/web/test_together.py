"""Reads that are joined are as fresh as reads of one's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sluicegate.errors import StateUnusable
from sluicegate.web.together import ROUND, Together


class Slow:
    """A store whose reads take a moment and see what was there when they began."""

    def __init__(self) -> None:
        self.value = 0
        self.reads = 0
        self.error: Exception | None = None

    async def read(self, function: Callable[[Any], Any]) -> Any:
        self.reads += 1
        seen, error = self.value, self.error
        await asyncio.sleep(0.02)
        if error is not None:
            raise error
        return function(seen)


def made() -> tuple[Together, Slow]:
    store = Slow()
    return Together(store), store  # type: ignore[arg-type]


async def test_many_who_ask_at_once_cost_a_few_reads_and_all_are_answered() -> None:
    """Five hundred polls of twenty batches."""
    together, store = made()
    answers = await asyncio.gather(*(together.read(i % 20, lambda tx, i=i: (i % 20, tx)) for i in range(500)))
    assert answers == [(i % 20, 0) for i in range(500)] and store.reads == 1
    await asyncio.gather(*(together.read(i, lambda tx: tx) for i in range(3 * ROUND)))
    assert store.reads == 4


async def test_who_asks_after_a_write_sees_it_though_a_read_is_under_way() -> None:
    """Otherwise a client would not see its own cancel."""
    together, store = made()
    early = asyncio.create_task(together.read("batch", lambda tx: tx))
    await asyncio.sleep(0.01)
    store.value = 1
    assert await together.read("batch", lambda tx: tx) == 1
    assert await early == 0 and store.reads == 2


async def test_a_client_that_hangs_up_takes_nobodys_answer_along() -> None:
    """Nor the reader."""
    together, _ = made()
    first = asyncio.create_task(together.read("batch", lambda tx: tx))
    second = asyncio.create_task(together.read("batch", lambda tx: tx))
    await asyncio.sleep(0.005)
    first.cancel()
    assert await second == 0
    assert await together.read("batch", lambda tx: tx) == 0


async def test_a_read_that_fails_fails_for_all_who_asked_and_for_nobody_else() -> None:
    """The next one is made anew."""
    together, store = made()
    store.error = StateUnusable("the disk is gone")
    asked = [asyncio.create_task(together.read(i, lambda tx: tx)) for i in range(3)]
    for one in asked:
        with pytest.raises(StateUnusable):
            await one
    store.error = None
    assert await together.read(1, lambda tx: tx) == 0
