"""Reads of the store that many ask for at the same time are done together, and none sees less than a read of its own would.

Who asks while a read is under way is served by the next one, which begins after it asked; who asks for the same thing as
another gets the same answer. So five hundred clients that poll cost the database a few reads, however often they ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any, Final

from sluicegate.ports import Store, Tx

BETWEEN_S: Final = 0.005
"""Between the starts of two reads at least: under load each answers more clients; who asks seldom never waits."""

ROUND: Final = 64
"""Different things that are read in one transaction at most: others wait for it."""


class Together:
    """Reads of ``store``, joined."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next: dict[Hashable, tuple[Callable[[Tx], Any], asyncio.Future[Any]]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._again_at = 0.0

    async def read(self, key: Hashable, function: Callable[[Tx], Any]) -> Any:
        """What ``function`` reads; equal keys mean equal functions, and what it returns must not be changed."""
        if key not in self._next:
            self._next[key] = function, asyncio.get_running_loop().create_future()
        future = self._next[key][1]
        if self._reader is None:
            self._reader = asyncio.get_running_loop().create_task(self._read())
        return await asyncio.shield(future)  # one client that goes away takes nobody else's answer with it

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._next:
                if (early := self._again_at - loop.time()) > 0:
                    await asyncio.sleep(early)
                self._again_at = loop.time() + BETWEEN_S
                asked = {key: self._next.pop(key) for key in list(self._next)[:ROUND]}

                def answers(tx: Tx, asked: dict[Hashable, Any] = asked) -> dict[Hashable, Any]:
                    return {key: function(tx) for key, (function, _) in asked.items()}

                try:
                    found = await self._store.read(answers)
                except BaseException as error:  # each of those who asked raises it
                    for _, future in asked.values():
                        if isinstance(error, Exception):
                            future.set_exception(error)
                            future.exception()  # nobody may be left who asks
                        else:
                            future.cancel()
                    if not isinstance(error, Exception):
                        raise
                    continue
                for key, (_, future) in asked.items():
                    future.set_result(found[key])
        finally:
            self._reader = None
