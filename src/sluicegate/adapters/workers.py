"""The Workers port: a pool of processes that share one loaded vocabulary, or the caller's own thread.

Workers are forked from a server process that has imported this module's preload and loaded the vocabulary, so that its
memory is shared. They ignore Ctrl-C (the parent decides) and die with the parent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

from sluicegate.errors import StateUnusable

P = ParamSpec("P")
T = TypeVar("T")


class InlineWorkers:
    """Everything in the caller's thread: for simulations and small inputs."""

    width = 1

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    async def blocking(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    async def close(self) -> None:
        return None


class ProcessWorkers:
    """A process pool, started when the first heavy call comes.

    Args:
        width: Processes; None is one per CPU, at most 8.
    """

    def __init__(self, width: int | None = None) -> None:
        self._width = width or min(8, os.cpu_count() or 1)
        self._pool: ProcessPoolExecutor | None = None

    @property
    def width(self) -> int:
        return self._width

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run in a worker process.

        Raises:
            StateUnusable: a worker was killed from outside, most often for want of memory.
        """
        if self._pool is None:
            context = get_context("forkserver")
            context.set_forkserver_preload(["sluicegate.preload"])
            self._pool = ProcessPoolExecutor(
                self._width, mp_context=context, initializer=_quiet, initargs=(os.getpid(),)
            )
        call = self._pool.submit(function, *args, **kwargs)
        try:
            return await asyncio.wrap_future(call)
        except BrokenProcessPool as error:
            raise StateUnusable(
                "a worker process was killed from outside, most often for want of memory; start again, with fewer "
                "--set workers=N if memory is short: nothing is lost"
            ) from error

    async def blocking(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(function, *args, **kwargs)

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _quiet(main: int) -> None:
    """In a worker: leave Ctrl-C to the main process, and when that is gone end the fork server and this worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = os.getppid()

    def watch() -> None:
        while os.getppid() == server and not _gone(main):
            time.sleep(0.5)
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _gone(pid: int) -> bool:
    """True if a process has ended, also if nobody has asked for its exit code yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    return False
