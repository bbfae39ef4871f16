"""Bytes → lines. A line ends at ``\\n`` and nowhere else (``splitlines`` also cuts at ``\\r`` and U+2028)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

BOM: Final = b"\xef\xbb\xbf"
WINDOW: Final = 1 << 20


def lines_in(file: BinaryIO, start: int, stop: int, *, longest: int) -> Iterator[tuple[int, bytes | None, int]]:
    """The lines that begin in ``[start, stop)``: (offset, line without its ``\\n``, its bytes).

    A line longer than ``longest`` comes as None, so that memory stays bounded whatever the input is.

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
        line, size = _line(file, longest)
        if not size:
            return
        if line is None:
            yield position, None, size
        else:
            text = line[:-1] if line.endswith(b"\n") else line
            yield position, text.removesuffix(b"\r"), len(text)
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
