"""The real clock and real randomness: the only place in the service's world where either is read."""

from __future__ import annotations

import asyncio
import secrets
import time


class SystemClock:
    """The Clock port over the operating system's wall clock."""

    def now(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SystemIds:
    """The Ids port over the operating system's randomness."""

    def new(self, prefix: str) -> str:
        return f"{prefix}_{secrets.token_hex(8)}"

    def random(self) -> float:
        return secrets.randbelow(1 << 53) / (1 << 53)
