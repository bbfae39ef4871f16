"""What goes on beside the turns of a run: a task for each part that is submitted, collected or cleaned up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any


class Tasks:
    """Tasks by their names, one for each; whatever ends sets ``wake``, and the first error is kept for whoever turns."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.error: BaseException | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Begin, unless a task of that name is under way."""
        if name in self._tasks:
            work.close()
            return
        # The task is the work itself, not a wrapper around it: one that is cancelled before its first step ends properly too.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[name] = task
        task.add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self.error = self.error or error
        del self._tasks[name]
        self.wake.set()

    def fail(self, error: BaseException) -> None:
        """Let whoever turns raise ``error``."""
        self.error = error
        self.wake.set()

    def __contains__(self, name: str) -> bool:
        return name in self._tasks

    def count(self, kind: str) -> int:
        """How many whose names begin so are under way."""
        return sum(name.startswith(kind) for name in self._tasks)

    async def wait(self, *kinds: str, timeout_s: float) -> None:
        """Until those whose names begin with any of ``kinds`` have ended, or so long at most."""
        under_way = [task for name, task in self._tasks.items() if name.startswith(kinds)]
        if under_way:
            await asyncio.wait(under_way, timeout=timeout_s)

    async def end(self) -> None:
        """Cancel all, and wait until they have ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
