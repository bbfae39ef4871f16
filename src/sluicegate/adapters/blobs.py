"""The Blobs port on a folder: a blob is written aside, fsynced and renamed, so it is whole or absent."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from sluicegate.errors import StateUnusable

FOLDERS: Final = ("inputs", "indexes", "parts", "results", "foreign", "files", "locks")


class FolderBlobs:
    """Blobs in the data folder ``root``; keys are ``folder/name`` with a folder of :data:`FOLDERS`.

    Args:
        inline: Wait for the disk in the caller's thread (simulations, where nothing else may be awaited meanwhile).

    Raises:
        StateUnusable: the folder cannot be made or written.
    """

    def __init__(self, root: Path, *, inline: bool = False) -> None:
        self._root = root
        self._inline = inline
        try:
            for folder in FOLDERS:
                (root / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateUnusable(
                f"the data folder {root} cannot be used: {error.strerror}; make it writable or name another "
                "with --state"
            ) from error

    def path(self, key: str) -> Path:
        folder, _, name = key.partition("/")
        assert folder in FOLDERS, f"{key!r} is in no known folder"
        assert name and "/" not in name, f"{key!r} is no blob key"
        return self._root / folder / name

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        path = self.path(key)
        aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            with aside.open("wb") as out:
                async for chunk in chunks:
                    out.write(chunk)
                out.flush()
                if self._inline:
                    os.fsync(out.fileno())
                else:
                    await asyncio.to_thread(os.fsync, out.fileno())
                size = out.tell()
            aside.replace(path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise StateUnusable(
                    f"{path} cannot be written: {error.strerror}; free disk space or mend the folder, then "
                    "start again: nothing is lost"
                ) from error
            raise
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        return size

    async def delete(self, *keys: str) -> None:
        for key in keys:
            self.path(key).unlink(missing_ok=True)

    def keys(self, folder: str) -> list[str]:
        return sorted(f"{folder}/{name}" for name in os.listdir(self.path(f"{folder}/x").parent))
