"""The Workers port: threads, a pool of processes that share one loaded vocabulary, or the caller's own thread.

Worker processes are forked from a server process that has imported :mod:`sluicegate.preload` and loaded the vocabulary,
so that its memory is shared. They ignore Ctrl-C (the parent decides) and die with the parent.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

from sluicegate.adapters import worker
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


class ThreadWorkers:
    """Threads of this process: what takes long here, counting tokens and waiting for files, releases the GIL.

    One vocabulary in memory and nothing to start, so this is what one person's commands use. A server, whose event loop
    has to answer others meanwhile, takes :class:`ProcessWorkers`.

    Args:
        width: Threads; None is one more than CPUs, at most 8, so that one parses while the others count.
    """

    def __init__(self, width: int | None = None) -> None:
        self._width = width or min(8, (os.cpu_count() or 1) + 1)
        self._pool = ThreadPoolExecutor(self._width, thread_name_prefix="worker")

    @property
    def width(self) -> int:
        return self._width

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *args, **kwargs))

    async def blocking(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(function, *args, **kwargs)

    async def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class ProcessWorkers:
    """A process pool, started when the first heavy call comes.

    Args:
        width: Processes; None is one per CPU, at most 8.
    """

    def __init__(self, width: int | None = None) -> None:
        self._width = width or min(8, os.cpu_count() or 1)
        self._pool: ProcessPoolExecutor | None = None
        self._server: Future[int] | None = None

    @property
    def width(self) -> int:
        return self._width

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run in a worker process.

        Raises:
            StateUnusable: a worker was killed from outside, most often for want of memory.
        """
        if self._pool is None:
            worker.start_server()
            context = get_context("forkserver")
            self._pool = ProcessPoolExecutor(
                self._width, mp_context=context, initializer=worker.begin, initargs=(os.getpid(),)
            )
            self._server = self._pool.submit(os.getppid)
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
        """End the workers, and the process that they were forked from, which holds the vocabulary."""
        if self._pool is not None and self._server is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            if not self._server.cancelled() and self._server.exception() is None:
                with suppress(ProcessLookupError):
                    os.kill(self._server.result(), signal.SIGTERM)
            self._pool = self._server = None
