"""The emulated clock: real, faster, or by hand. The only place of the emulator that knows the time of day."""

from __future__ import annotations

import time

from sluicegate.errors import UsageError


class EmulatedClock:
    """Unix seconds of the emulated account; everything in it follows: fields, expiries, timetables, delays.

    Args:
        speed: Emulated seconds per real one. ``by_hand``: it stands still until :meth:`advance` moves it.
    """

    def __init__(self, *, speed: float = 1.0, by_hand: bool = False) -> None:
        self._speed = speed
        self._by_hand = by_hand
        self._at = float(int(time.time())) if by_hand else time.time()
        self._since = time.monotonic()

    @property
    def by_hand(self) -> bool:
        """Whether it only moves when it is told."""
        return self._by_hand

    @property
    def speed(self) -> float:
        """Emulated seconds per real one; 0 if the clock is moved by hand."""
        return 0.0 if self._by_hand else self._speed

    def now(self) -> float:
        """Unix seconds."""
        return self._at + (time.monotonic() - self._since) * self.speed

    def advance(self, seconds: float) -> None:
        """Let so much time pass at once.

        Raises:
            UsageError: the clock would go backwards.
        """
        if seconds < 0:
            raise UsageError("the clock does not go backwards")
        self._settle()
        self._at += seconds

    def run(self, *, speed: float | None = None, by_hand: bool | None = None) -> None:
        """Change how the clock goes, from now on.

        Raises:
            UsageError: a speed that is not above 0.
        """
        if speed is not None and not speed > 0:
            raise UsageError("the clock's speed is above 0")
        self._settle()
        self._speed = speed if speed is not None else self._speed
        self._by_hand = by_hand if by_hand is not None else (False if speed is not None else self._by_hand)

    def _settle(self) -> None:
        self._at, self._since = self.now(), time.monotonic()
