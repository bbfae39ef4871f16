"""Creates that were refused and will be repeated: an SDK's next attempt is then no repeat of anything that exists."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

KEPT_S: Final = 120.0
"""SDKs come back after at most a minute."""

KEPT_MOST: Final = 10_000


class Refusals:
    """Attempts that were refused before they had a batch, by what was asked for; bounded, and forgotten after a while."""

    def __init__(self) -> None:
        self._at: OrderedDict[tuple[str, int], list[float]] = OrderedDict()

    def put(self, fingerprint: str, attempt: int, now: float) -> None:
        """Remember that this attempt was refused."""
        times = self._at.setdefault((fingerprint, attempt), [])
        times[:] = [*(at for at in times if at > now - KEPT_S), now][-KEPT_MOST:]
        self._at.move_to_end((fingerprint, attempt))
        while len(self._at) > KEPT_MOST:
            self._at.popitem(last=False)

    def take(self, fingerprint: str, attempt: int, now: float) -> bool:
        """True if this attempt of one create was refused; the refusal is used up."""
        times = [at for at in self._at.pop((fingerprint, attempt), []) if at > now - KEPT_S]
        if len(times) > 1:
            self._at[fingerprint, attempt] = times[1:]
        return bool(times)
