"""Bytes → lines. A line ends at ``\\n`` and nowhere else (``splitlines`` also cuts at ``\\r`` and U+2028)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

BOM: Final = b"\xef\xbb\xbf"
WINDOW: Final = 1 << 18


def blocks_in(file: BinaryIO, start: int, stop: int, *, longest: int) -> Iterator[tuple[int, bytes | int]]:
    """The lines that begin in ``[start, stop)``, about a megabyte of whole lines at a time, each with its offset.

    A line longer than ``longest`` comes alone and as its number of bytes, so that memory stays bounded whatever the
    input is.

    Args:
        file: Opened in binary mode. ``start`` need not be a line's beginning: what belongs to the line before is passed
            over, so ranges that touch cover each line once.
    """
    position = start
    file.seek(max(0, start - 1))
    if start > 0 and file.read(1) != b"\n":
        _, skipped = _line(file, 0)
        position += skipped
    while position < stop:
        block = file.read(min(WINDOW, stop - position))
        if not block:
            return
        whole = block.rfind(b"\n") + 1
        if whole:
            yield position, block[:whole]
            position += whole
        file.seek(position)
        if not whole:
            line, size = _line(file, longest)
            yield position, size if line is None else line
            position += size


def _line(file: BinaryIO, longest: int) -> tuple[bytes | None, int]:
    """(the line with its end, its bytes); None in its place if it is longer than ``longest``."""
    line = file.readline(longest + 2)
    size = len(line)
    if line.endswith(b"\n") or size < longest + 2:
        return line, size
    while True:
        more = file.readline(WINDOW)
        size += len(more)
        if not more or more.endswith(b"\n"):
            return None, size
