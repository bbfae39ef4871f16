"""The index of an input file: one small record per request, in columns, so that bodies never stay in memory.

Layout: ``SGIX1\\n``, the header's length (u32 little endian), the header (JSON: ``count`` and ``groups``), then each
column of :data:`COLUMNS` in order, ``count`` items, native little-endian.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import IntFlag
from typing import Final

import msgspec

MAGIC: Final = b"SGIX1\n"

COLUMNS: Final = (
    ("offset", "Q"),  # where the line starts in the input
    ("length", "I"),  # bytes of the line without its newline
    ("line", "I"),  # 1-based line number (blank lines are lines)
    ("tokens", "I"),  # our estimate of input tokens
    ("chars", "I"),  # characters of the body's JSON: Azure counts these ÷ 4 at create
    ("custom_id_hash", "Q"),  # xxh3_64 of the custom_id's UTF-8 bytes
    ("model_at", "I"),  # where the model's JSON string (with its quotes) starts within the line
    ("model_length", "H"),  # its bytes, quotes included
    ("group", "H"),  # which (url, model) of the header's groups
    ("flags", "H"),
)


class Flag(IntFlag):
    """What is special about a request."""

    BAD = 1  # has an error; never submitted
    ESTIMATED = 2  # the token count is not exact (image by URL, audio, unknown model …)
    DUPLICATE_ID = 4  # its custom_id is also used by an earlier input of the same run: sent under another


class Group(msgspec.Struct, frozen=True):
    """Requests that may share a provider batch: one url, one model."""

    url: str
    model: str


class _Header(msgspec.Struct):
    count: int
    groups: list[Group]


@dataclass(slots=True)
class Index:
    """The columns, each an ``array``, or a read-only view on the file's bytes; all have the same length."""

    groups: list[Group]
    offset: array[int] | memoryview[int]
    length: array[int] | memoryview[int]
    line: array[int] | memoryview[int]
    tokens: array[int] | memoryview[int]
    chars: array[int] | memoryview[int]
    custom_id_hash: array[int] | memoryview[int]
    model_at: array[int] | memoryview[int]
    model_length: array[int] | memoryview[int]
    group: array[int] | memoryview[int]
    flags: array[int] | memoryview[int]

    @classmethod
    def empty(cls) -> Index:
        """An index to append to."""
        return cls(groups=[], **{name: array(code) for name, code in COLUMNS})

    def __len__(self) -> int:
        return len(self.offset)

    def to_bytes(self) -> bytes:
        """The file's content."""
        header = msgspec.json.encode(_Header(count=len(self), groups=self.groups))
        columns = (bytes(getattr(self, name)) for name, _ in COLUMNS)
        return b"".join((MAGIC, len(header).to_bytes(4, "little"), header, *columns))

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Index:
        """Views on ``data``, which must stay alive. Raises ValueError if it is not an index or is cut short."""
        view = memoryview(data)
        if bytes(view[: len(MAGIC)]) != MAGIC:
            raise ValueError("not an index file")
        start = len(MAGIC) + 4
        header_length = int.from_bytes(view[len(MAGIC) : start], "little")
        header = msgspec.json.decode(view[start : start + header_length], type=_Header)
        position = start + header_length
        columns = {}
        for name, code in COLUMNS:
            # A copy aligns the column and lets the file's bytes go.
            column = array(code)
            size = header.count * column.itemsize
            if position + size > len(view):
                raise ValueError("the index file is cut short")
            column.frombytes(view[position : position + size])
            columns[name] = column
            position += size
        return cls(groups=header.groups, **columns)
