"""How often something may be done: so many times in the last so many seconds. Pure."""

from __future__ import annotations

from collections import deque


class Window:
    """A sliding window.

    Args:
        most: How often at most, None for any number. ``seconds``: in how long.
    """

    def __init__(self, most: int | None, seconds: float) -> None:
        self.most, self._seconds = most, seconds
        self._done: deque[float] = deque()

    def wait_s(self, now: float) -> float | None:
        """Seconds until there is room for one more, or None if there is now."""
        while self._done and self._done[0] <= now - self._seconds:
            self._done.popleft()
        if self.most is None or len(self._done) < self.most:
            return None
        return self._done[0] + self._seconds - now

    def add(self, now: float) -> None:
        """One more was done."""
        if self.most is not None:
            self._done.append(now)

    @property
    def left(self) -> int | None:
        """How often more, as of the last question."""
        return None if self.most is None else max(0, self.most - len(self._done))

    def reset_s(self, now: float) -> float:
        """Seconds until the oldest leaves the window; 0 if it is empty."""
        return max(0.0, self._done[0] + self._seconds - now) if self._done else 0.0
