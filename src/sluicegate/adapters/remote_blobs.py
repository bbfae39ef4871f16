"""The RemoteBlobs port over HTTP: Azure Blob Storage, or whatever speaks its PUT and GET.

A host is resolved once, its addresses are looked at, and the connection goes to one of those very addresses: what a name
leads to a moment later (DNS rebinding) does not matter. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx2

from sluicegate.core.blob_urls import Prefix, check_url, reachable
from sluicegate.errors import BlobRefused, BlobUnavailable

CHUNK: Final = 1 << 20
CONNECT_S, READ_S = 15.0, 60.0
WHOLE_S: Final = 900.0
"""For one blob, whole, whichever way it goes: half a gigabyte at 600 KB/s. Storage that drips is storage that hangs."""

REFUSED: Final = {401: "it may not be used", 403: "it may not be used", 404: "it does not exist"}


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class HttpBlobs:
    """Blobs under some prefixes.

    Args:
        prefixes: Where they may be.
        sas: Query string with which they may be read and written; a shared access signature. It is in no message.
        private: Whether hosts may have addresses that are not public, as in one's own network.
        resolver: Gives a host's addresses.
        whole_s: Most seconds that one blob may take.
    """

    def __init__(
        self, prefixes: tuple[Prefix, ...], *, sas: str = "", private: bool = False,
        resolver: Callable[[str, int], Awaitable[list[str]]] = resolve, whole_s: float = WHOLE_S,
    ) -> None:  # fmt: skip
        self._prefixes, self._sas, self._private, self._resolver = prefixes, sas.lstrip("?"), private, resolver
        self._whole_s = whole_s

    def check(self, url: str) -> None:
        """Raise ValueError for a URL that is not to be used."""
        check_url(url, self._prefixes)

    async def fetch(self, url: str, target: Path, *, bytes_max: int, signature: str = "") -> int:
        """Copy a blob to a file, fsynced; returns its bytes.

        Args:
            signature: The query with which it may be read, instead of the operator's.

        Raises:
            BlobRefused: it is not there, may not be read, or is too large. BlobUnavailable: no answer; later perhaps.
        """
        try:
            async with asyncio.timeout(self._whole_s), self._call("GET", url, signature=signature) as answer:
                self._judge(url, answer, 200)
                size = 0
                with target.open("wb") as out:
                    async for chunk in answer.aiter_bytes(CHUNK):
                        size += len(chunk)
                        if size > bytes_max:
                            raise BlobRefused(f"{url} cannot be read: it has more than {bytes_max:,} bytes")
                        await asyncio.to_thread(out.write, chunk)
                    out.flush()
                    await asyncio.to_thread(os.fsync, out.fileno())
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            raise BlobUnavailable(f"{url} cannot be read now: {type(error).__name__}") from error
        return size

    async def put(self, source: Path, url: str) -> None:
        """Copy a file to a blob, whole: who reads sees all of it or nothing.

        Raises:
            BlobRefused: it may not be written. BlobUnavailable: no answer; later perhaps.
        """
        headers = {"x-ms-blob-type": "BlockBlob", "content-length": str(source.stat().st_size)}
        try:
            async with (
                asyncio.timeout(self._whole_s),
                self._call("PUT", url, content=_chunks(source), headers=headers) as answer,
            ):
                self._judge(url, answer, 201)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            raise BlobUnavailable(f"{url} cannot be written now: {type(error).__name__}") from error

    @asynccontextmanager
    async def _call(
        self, method: str, url: str, *, content: AsyncIterator[bytes] | None = None, headers: dict[str, str] | None = None,
        signature: str = "",
    ) -> AsyncIterator[httpx2.Response]:  # fmt: skip
        try:
            self.check(url)
        except ValueError as error:
            raise BlobRefused(f"{url} cannot be used: {error}") from error
        asked = httpx2.URL(url)
        port = asked.port or (443 if asked.scheme == "https" else 80)
        try:
            addresses = await asyncio.wait_for(self._resolver(asked.host, port), CONNECT_S)
        except (OSError, TimeoutError) as error:
            raise BlobUnavailable(f"the address of {asked.host} cannot be found now") from error
        # All of them, so that one good address does not cover for a bad one.
        if not addresses or not (self._private or all(map(reachable, addresses))):
            raise BlobRefused(f"{url} cannot be used: its host is not on the public internet")
        there = asked.copy_with(host=addresses[0], query=(signature or self._sas).encode() or None)
        host = asked.netloc.decode()
        async with (
            httpx2.AsyncClient(
                timeout=httpx2.Timeout(READ_S, connect=CONNECT_S), follow_redirects=False, trust_env=False
            ) as client,
            client.stream(
                method, there, content=content, headers={"host": host, "accept-encoding": "identity"} | (headers or {}),
                extensions={"sni_hostname": asked.host},
            ) as answer,
        ):  # fmt: skip
            yield answer

    def _judge(self, url: str, answer: httpx2.Response, wanted: int) -> None:
        status = answer.status_code
        if status == wanted:
            return
        if status in REFUSED or 300 <= status < 400 or status == 400:
            why = REFUSED.get(status) or ("redirects are not followed" if status < 400 else "the request is refused")
            raise BlobRefused(f"{url} cannot be used: {why} (status {status})")
        raise BlobUnavailable(f"{url} cannot be used now (status {status})")


async def _chunks(source: Path) -> AsyncIterator[bytes]:
    with source.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
