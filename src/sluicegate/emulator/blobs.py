"""Blob storage as a batch uses it: a local folder that stands for it, or any server over HTTP (Azure Blob, Azurite)."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

CHUNK: Final = 1 << 20
TIMEOUT_S: Final = 600.0


class BlobFailed(Exception):
    """A blob cannot be read or written; the message says why."""


class Blobs:
    """Reads and writes whole blobs by their URL; blocking.

    Args:
        folder: ``https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH`` is ``folder/ACCOUNT/CONTAINER/PATH``; None: over
            HTTP.
        sas: Query string for URLs that bring none.
    """

    def __init__(self, folder: str | None, sas: str | None) -> None:
        self._folder = Path(folder).resolve() if folder is not None else None
        self._sas = (sas or "").lstrip("?")

    def fetch(self, url: str, target: Path) -> None:
        """Copy a blob to a file.

        Raises:
            BlobFailed: it is not there, or may not be read.
        """
        if self._folder is not None:
            try:
                shutil.copyfile(self._place(url), target)
            except (OSError, ValueError) as error:
                raise BlobFailed(f"{url} cannot be read: {error}") from error
            return
        import httpx2

        try:
            with (
                httpx2.Client(timeout=TIMEOUT_S, follow_redirects=True) as client,
                client.stream("GET", self._signed(url)) as answer,
                target.open("wb") as out,
            ):
                if answer.status_code != 200:
                    raise BlobFailed(f"{url} cannot be read: status {answer.status_code}")
                for chunk in answer.iter_bytes(CHUNK):
                    out.write(chunk)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise BlobFailed(f"{url} cannot be read: {error}") from error

    def put(self, source: Path, url: str) -> None:
        """Copy a file to a blob, whole; who reads sees all of it or nothing.

        Raises:
            BlobFailed: it may not be written.
        """
        if self._folder is not None:
            try:
                place = self._place(url)
                place.parent.mkdir(parents=True, exist_ok=True)
                aside = place.with_name(place.name + ".tmp")
                shutil.copyfile(source, aside)
                aside.replace(place)
            except (OSError, ValueError) as error:
                raise BlobFailed(f"{url} cannot be written: {error}") from error
            return
        import httpx2

        headers = {"x-ms-blob-type": "BlockBlob", "content-length": str(source.stat().st_size)}
        try:
            with httpx2.Client(timeout=TIMEOUT_S) as client:
                answer = client.put(self._signed(url), content=_chunks(source), headers=headers)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise BlobFailed(f"{url} cannot be written: {error}") from error
        if answer.status_code != 201:
            raise BlobFailed(f"{url} cannot be written: status {answer.status_code}")

    def fingerprint(self, url: str) -> str | None:
        """What changes when the blob does; None if it cannot be seen."""
        if self._folder is not None:
            try:
                state = self._place(url).stat()
            except (OSError, ValueError, BlobFailed):
                return None
            return f"{state.st_size}:{state.st_mtime_ns}"
        import httpx2

        try:
            with httpx2.Client(timeout=TIMEOUT_S) as client:
                answer = client.head(self._signed(url))
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
            return None
        return answer.headers.get("etag") if answer.status_code == 200 else None

    def _signed(self, url: str) -> str:
        return url if not self._sas or urlsplit(url).query else f"{url}?{self._sas}"

    def _place(self, url: str) -> Path:
        assert self._folder is not None
        parts = urlsplit(url)
        account = (parts.hostname or "").partition(".")[0]
        place = (self._folder / account / unquote(parts.path).lstrip("/")).resolve()
        if not account or not place.is_relative_to(self._folder):
            raise BlobFailed(f"{url} is no blob's URL")
        return place


def _chunks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def md5_of(path: Path) -> str:
    """MD5 of a file in hex, as the Uploads API compares it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
