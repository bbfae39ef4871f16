"""A Backend that leaves a provider alone which does not answer, however many batches wait for it.

Each batch has its own patience with the provider; sixty of them together would still call it all the time. So after a few
failures in a row, of whatever calls, nobody calls for a while, then one call tries, and the pauses grow until one succeeds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from sluicegate.core.types import Accepted, BatchPage, Dialect, ProviderBatch, RemoteFile
from sluicegate.errors import OutcomeUnknown, Throttled, Unavailable
from sluicegate.ports import Backend

T = TypeVar("T")
FAILURES: Final = 6
"""In a row, until the circuit opens."""

PAUSE_S, PAUSE_MOST_S = 1.0, 60.0


class Circuit:
    """A Backend in front of another one.

    A call that is not made raises Throttled, which says that nothing happened and when to come back.
    """

    def __init__(self, inner: Backend, now: Callable[[], float]) -> None:
        self._inner, self._now = inner, now
        self._failures = 0
        self._pause_s = PAUSE_S
        self._open_until = 0.0

    @property
    def resource(self) -> str:
        """The provider's resource."""
        return self._inner.resource

    @property
    def dialect(self) -> Dialect:
        """Whose rules hold."""
        return self._inner.dialect

    @property
    def clock_ahead_s(self) -> float | None:
        """Of the inner one, where it knows."""
        return getattr(self._inner, "clock_ahead_s", None)

    def _enter(self) -> None:
        if self._failures < FAILURES:
            return
        now = self._now()
        if now < self._open_until:
            raise Throttled(
                "the provider has not answered lately and is left alone for a while", retry_after_s=self._open_until - now,
                status=None,
            )  # fmt: skip
        # This call tries; the others wait for what becomes of it.
        self._open_until = now + self._pause_s

    def _failed(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES:
            self._open_until = self._now() + self._pause_s
            self._pause_s = min(PAUSE_MOST_S, 2 * self._pause_s)

    def _answered(self) -> None:
        self._failures, self._pause_s, self._open_until = 0, PAUSE_S, 0.0

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        self._enter()
        try:
            result = await call()
        except (Unavailable, OutcomeUnknown):
            self._failed()
            raise
        except Exception:
            self._answered()  # it said no, but it spoke
            raise
        self._answered()
        return result

    async def upload(self, source: Path, *, filename: str, expires_after_s: int | None = None) -> RemoteFile:
        """As the port says."""
        return await self._call(lambda: self._inner.upload(source, filename=filename, expires_after_s=expires_after_s))

    async def find_files(self, filenames: frozenset[str]) -> tuple[RemoteFile, ...]:
        """As the port says."""
        return await self._call(lambda: self._inner.find_files(filenames))

    async def file(self, file_id: str) -> RemoteFile:
        """As the port says."""
        return await self._call(lambda: self._inner.file(file_id))

    async def delete_file(self, file_id: str) -> None:
        """As the port says."""
        await self._call(lambda: self._inner.delete_file(file_id))

    async def create(self, *, input_file_id: str, endpoint: str, metadata: dict[str, str]) -> Accepted:
        """As the port says."""
        return await self._call(
            lambda: self._inner.create(input_file_id=input_file_id, endpoint=endpoint, metadata=metadata)
        )

    async def list_batches(self, *, after: str | None = None, limit: int = 100) -> BatchPage:
        """As the port says."""
        return await self._call(lambda: self._inner.list_batches(after=after, limit=limit))

    async def batch(self, batch_id: str) -> ProviderBatch:
        """As the port says."""
        return await self._call(lambda: self._inner.batch(batch_id))

    async def cancel(self, batch_id: str) -> ProviderBatch:
        """As the port says."""
        return await self._call(lambda: self._inner.cancel(batch_id))

    async def download(self, file_id: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """As the port says."""
        self._enter()
        try:
            async for chunk in self._inner.download(file_id, offset=offset):
                self._answered()
                yield chunk
        except (Unavailable, OutcomeUnknown):
            self._failed()
            raise

    async def deployment_limit(self, deployment: str) -> int | None:
        """As the port says; it is another service, so it tells nothing of this one."""
        return await self._inner.deployment_limit(deployment)

    async def close(self) -> None:
        """Close connections."""
        await self._inner.close()
