"""The Lock port over ``flock`` files: the operating system frees them when a process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

SUFFIX: Final = ".lock"
TRIES: Final = 25
TRY_AGAIN_S: Final = 0.001
"""Somebody who only asks whether a lock is free has it for a moment: such a moment is no owner."""


class FileLock:
    """Locks as files in ``folder``, on a local disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}"

    def acquire(self, name: str) -> bool:
        if name in self._held:
            return True
        path = self._path(name)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not _taken(handle):
                os.close(handle)
                return False
            if _is_at(handle, path):
                break
            os.close(handle)  # whoever had it deleted the file between our open and our lock
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        self._held[name] = handle
        return True

    def is_free(self, name: str) -> bool:
        if name in self._held:
            return False
        try:
            handle = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            os.close(handle)

    def taken(self) -> frozenset[str]:
        names = {path.name.removesuffix(SUFFIX) for path in self._folder.glob(f"*{SUFFIX}")}
        return frozenset(self._held) | {name for name in names if not self.is_free(name)}

    def owner(self, name: str) -> int | None:
        """The process id that took ``name`` last, for messages."""
        try:
            text = self._path(name).read_text()
        except OSError:
            return None
        return int(text) if text.isdigit() else None

    def release(self, name: str) -> None:
        handle = self._held.pop(name, None)
        if handle is not None:
            self._path(name).unlink(missing_ok=True)  # while it is ours: thousands of runs leave no files
            os.close(handle)


def _taken(handle: int) -> bool:
    for tried in range(TRIES):
        if tried:
            time.sleep(TRY_AGAIN_S)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
