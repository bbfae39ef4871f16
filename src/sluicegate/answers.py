"""Answers as they come, to requests that are handed in without files of the person's own (``submit``)."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO, Final, Protocol, TypeVar

from sluicegate.core.report import RunResult
from sluicegate.service.output import partial

T = TypeVar("T")

AT_ONCE: Final = 500
"""Lines that are read, and handed from thread to thread, at once."""


class Start(Protocol):
    """Starts the run whose answers are wanted, as :func:`sluicegate.api.run_async` does."""

    def __call__(
        self, *, stop: asyncio.Event, on_written: Callable[[bytes], None]
    ) -> Coroutine[Any, Any, RunResult]: ...


class Answers:
    """The growing result files of one run, read in the order of its requests. Made on the loop that it is used on.

    Which file the next line is in is told by who wrote it: ids may be missing or occur twice.

    Args:
        output, errors: The run's files, by their last names.
        start: Starts the run.
    """

    def __init__(self, output: Path, errors: Path, start: Start) -> None:
        self._paths = (output, errors)
        self._open: dict[int, BinaryIO] = {}
        self._written = bytearray()
        self._read = 0
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._task = asyncio.ensure_future(start(stop=self._stop, on_written=self._hear))
        self._task.add_done_callback(lambda task: self._wake.set())

    def _hear(self, failed: bytes) -> None:
        self._written += failed
        self._wake.set()

    async def more(self) -> list[dict[str, Any]]:
        """The next lines, as soon as there are some; none at the end.

        Raises:
            SluicegateError: what ended the run before its end.
        """
        while self._read == len(self._written) and not self._task.done():
            self._wake.clear()
            await self._wake.wait()
        failed = self._written[self._read : self._read + AT_ONCE]
        if not failed:
            await self._task
        self._read += len(failed)
        return await asyncio.to_thread(lambda: [json.loads(self._file(one).readline()) for one in failed])

    def _file(self, failed: int) -> BinaryIO:
        if failed not in self._open:
            path = self._paths[failed]
            try:
                self._open[failed] = partial(str(path)).open("rb")
            except FileNotFoundError:  # the end has renamed it
                self._open[failed] = path.open("rb")
        return self._open[failed]

    async def close(self) -> None:
        """Stop the run, if it is under way, as Ctrl-C does: what is at the provider goes on there."""
        self._stop.set()
        try:
            await asyncio.wait({self._task})
        finally:
            self._task.cancel()
            for file in self._open.values():
                file.close()
        if not self._task.cancelled():
            self._task.exception()  # it was raised already, or nobody waits for it any more


@contextmanager
def loop_in_thread() -> Iterator[Callable[[Coroutine[Any, Any, T]], T]]:
    """A loop in a thread of its own; what is yielded runs a coroutine there and waits for its result."""
    runner = asyncio.Runner()
    loop = runner.get_loop()
    thread = Thread(target=loop.run_forever, name="sluicegate", daemon=True)  # keeps no program from its end
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result()
    finally:
        if not is_ending():
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            runner.close()  # cancels what is left


def is_ending() -> bool:
    """True if the program ends: then the loop's thread stands still, and waiting for it would be for ever.

    The run ends as by a kill, which loses nothing either.
    """
    return sys.is_finalizing()
