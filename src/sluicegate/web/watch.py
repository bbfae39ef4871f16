"""Looks after what nobody else would notice: loops that hang, a key that no longer opens, a clock that is wrong.

What it finds is in ``/readyz`` and, once, in the log, whether or not anybody asks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from sluicegate.errors import AuthenticationFailed, SluicegateError
from sluicegate.service.context import Context
from sluicegate.service.desk import Desk

LOG = logging.getLogger("sluicegate.gateway")

LOOK_S: Final = 5.0
IDLE_S: Final = 30.0
"""A desk that has not turned for so long hangs or is dead."""

ASK_S, ASK_AGAIN_S = 300.0, 15.0
"""How often the provider is asked for its list, and how often while it refuses the credentials."""

BUSY_S: Final = 2.0
"""A database that cannot be written for so long is busy."""

WROTE_S: Final = 1.0
"""How long it is believed that it can be written: who asks for readiness needs no key."""

APART_S: Final = 60.0
"""Clocks may differ by so much: answers take a while, and their dates are whole seconds."""

SET_S, SET_SHOWN_S = 5.0, 60.0
"""A clock that moves by so much against the steady one was set, which is shown for a minute."""


def _steady() -> float:
    """Seconds that nobody sets, those of a suspended machine included where the system counts them."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(boottime) if boottime is not None else time.monotonic()


class Watch:
    """One gateway's watchman.

    Args:
        wall, steady: Seconds of the clock that people set, and of one that nobody does.
    """

    def __init__(
        self, ctx: Context, desk: Desk, *, wall: Callable[[], float] = time.time, steady: Callable[[], float] = _steady
    ) -> None:
        self._ctx, self._desk, self._wall, self._steady = ctx, desk, wall, steady
        self._apart = wall() - steady()
        self._set: tuple[float, float] | None = None
        self._said: set[str] = set()
        self._asking: asyncio.Task[None] | None = None
        self._ask_at = 0.0
        self._writing: asyncio.Task[str | None] | None = None
        self._wrote_at = float("-inf")
        self.refused = False

    async def run(self) -> None:
        """Look every few seconds until cancelled."""
        try:
            while True:
                try:
                    self.look()
                except Exception:
                    LOG.exception("the watch failed")
                await asyncio.sleep(LOOK_S)
        finally:
            for task in (self._asking, self._writing):
                if task is not None:
                    task.cancel()

    def look(self) -> None:
        """Log what has begun to be wrong; ask the provider if it is time to."""
        self._tell()
        now = time.monotonic()
        if now >= self._ask_at and self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask())

    def _tell(self) -> None:
        self._desk.stalled()  # logs what it finds
        wrong = {"desk": f"has not turned for {IDLE_S:g} s"} if self._desk.idle_s > IDLE_S else {}
        clock = self.clock()
        if clock is not None:
            wrong["clock"] = clock
        for what in wrong.keys() - self._said:
            LOG.error("the gateway's %s: %s", what, wrong[what])
        self._said = set(wrong)

    async def _ask(self) -> None:
        """One cheap call: are we let in? Batches that are under way say the same, but there may be none."""
        try:
            await self._ctx.backend.list_batches(limit=1)
        except AuthenticationFailed as error:
            if not self.refused:
                LOG.error("the provider refuses the gateway's credentials: %s", error)
            self.refused = True
        except SluicegateError:
            pass  # the provider's trouble, which is no trouble with the credentials
        else:
            self.refused = False
        finally:
            self._ask_at = time.monotonic() + (ASK_AGAIN_S if self.refused else ASK_S)
            self._asking = None
        self._tell()

    def clock(self) -> str | None:
        """What is wrong with the clock, in words: due times are kept by it, and sign-ins are checked by it."""
        now, apart = self._steady(), self._wall() - self._steady()
        if abs(apart - self._apart) > SET_S:
            self._set = now, apart - self._apart
        self._apart = apart
        ahead = getattr(self._ctx.backend, "clock_ahead_s", None)
        if ahead is not None and abs(ahead) > APART_S:
            return f"it is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} the provider's"
        if self._set is not None and now < self._set[0] + SET_SHOWN_S:
            return f"it was set by {self._set[1]:+,.0f} s while the gateway ran"
        return None

    async def database(self) -> str | None:
        """What is wrong with the database, in words; after two seconds at most, and with one write for all who ask."""
        if time.monotonic() < self._wrote_at + WROTE_S:
            return None
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())
        done, _ = await asyncio.wait({self._writing}, timeout=BUSY_S)
        return done.pop().result() if done else "busy: another process has been writing to it for a while"

    async def _write(self) -> str | None:
        try:
            await self._ctx.store.transact(lambda tx: tx.deployments())
        except SluicegateError as error:
            return type(error).__name__
        else:
            self._wrote_at = time.monotonic()
            return None
        finally:
            self._writing = None
