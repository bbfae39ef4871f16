"""Write a part's file: byte ranges of the inputs, with another ``model`` or ``custom_id`` spliced in where needed.

Runs in a worker or thread: paths and arrays in, a file out; memory is bounded by the window and the longest line.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sluicegate.core.index import Flag

WINDOW: Final = 4 << 20
_PROBE: Final = b'"\\u0001"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Lines of one input, in order: offset, length, the model's place, flags, and the ordinal of each."""

    path: str
    offset: Sequence[int]
    length: Sequence[int]
    model_at: Sequence[int]
    model_length: Sequence[int]
    flags: Sequence[int]
    ordinal: Sequence[int]


class _Id(msgspec.Struct):
    custom_id: msgspec.Raw


def wire_id(ordinal: int) -> str:
    """The custom_id under which a request goes out whose own is taken by another input of the same run."""
    return f"sluicegate-request-{ordinal}"


def assemble(destination: str, inputs: Sequence[Lines], model: str | None) -> int:
    """Write the lines to ``destination`` (aside, fsynced, renamed) and return the bytes.

    Args:
        model: Put in place of each line's model, or None to leave it.
    """
    target = Path(destination)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_suffix(".tmp")
    spliced = msgspec.json.encode(model) if model is not None else None
    try:
        with aside.open("wb", buffering=1 << 20) as out:
            for lines in inputs:
                with open(lines.path, "rb", buffering=0) as source:
                    _copy(source.fileno(), lines, spliced, out.write)
            out.flush()
            os.fsync(out.fileno())
            size = out.tell()
        aside.replace(target)
    except BaseException:  # a full disk is not helped by half a file
        aside.unlink(missing_ok=True)
        raise
    return size


def _copy(source: int, lines: Lines, model: bytes | None, write: Callable[[bytes | memoryview], object]) -> None:
    window, start = b"", 0
    for i, (offset, length) in enumerate(zip(lines.offset, lines.length, strict=True)):
        if not (start <= offset and offset + length <= start + len(window)):
            window, start = os.pread(source, max(WINDOW, length), offset), offset
        line: bytes | memoryview = memoryview(window)[offset - start : offset - start + length]
        if len(line) != length:
            raise OSError(f"{lines.path} is shorter than it was when it was checked; restore it from the original")
        if model is not None or lines.flags[i] & Flag.DUPLICATE_ID:
            line = _splice(bytes(line), lines, i, model)
        write(line)
        write(b"\n")


def _splice(line: bytes, lines: Lines, i: int, model: bytes | None) -> bytes:
    changes: list[tuple[int, int, bytes]] = []
    if model is not None:
        changes.append((lines.model_at[i], lines.model_length[i], model))
    if lines.flags[i] & Flag.DUPLICATE_ID:
        at, size = id_span(line)
        changes.append((at, size, msgspec.json.encode(wire_id(lines.ordinal[i]))))
    for at, size, text in sorted(changes, reverse=True):
        line = line[:at] + text + line[at + size :]
    return line


def id_span(line: bytes) -> tuple[int, int]:
    """Where the top-level custom_id's JSON string is within a line: (start, bytes), quotes included."""
    # Equal text may occur elsewhere in the line: the right place is the one where a change changes the custom_id.
    text = bytes(msgspec.json.decode(line, type=_Id).custom_id)
    position = line.find(text)
    while position >= 0:
        probe = line[:position] + _PROBE + line[position + len(text) :]
        with contextlib.suppress(msgspec.DecodeError):  # the text stood inside another token
            if bytes(msgspec.json.decode(probe, type=_Id).custom_id) == _PROBE:
                return position, len(text)
        position = line.find(text, position + 1)
    raise ValueError("the line has no custom_id")
