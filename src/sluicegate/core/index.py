"""The index of an input file: one small record per request, in columns, so that bodies never stay in memory.

Layout: ``SGIX1\\n``, the header's length (u32 little endian), the header (JSON: ``count`` and ``groups``), then each
column of :data:`COLUMNS` in order, ``count`` items, native little-endian.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import BinaryIO, Final

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


BUCKET: Final = 250_000
"""Hashes that are looked at together when repeated ones are sought."""


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
    """The columns; all have the same length."""

    groups: list[Group]
    offset: array[int]
    length: array[int]
    line: array[int]
    tokens: array[int]
    chars: array[int]
    custom_id_hash: array[int]
    model_at: array[int]
    model_length: array[int]
    group: array[int]
    flags: array[int]

    @classmethod
    def empty(cls) -> Index:
        """An index to append to."""
        return cls(groups=[], **{name: array(code) for name, code in COLUMNS})

    def __len__(self) -> int:
        return len(self.offset)

    def appender(self) -> Callable[[int, int, int, int, int, int, int, int, int, int], None]:
        """A function that adds a request: one value for each of :data:`COLUMNS`, in that order."""
        o, n, ln, t, c, h, ma, ml, g, f = (getattr(self, name).append for name, _ in COLUMNS)

        def append(
            offset: int, length: int, line: int, tokens: int, chars: int, custom_id_hash: int, model_at: int,
            model_length: int, group: int, flags: int,
        ) -> None:  # fmt: skip
            o(offset), n(length), ln(line), t(tokens), c(chars)
            h(custom_id_hash), ma(model_at), ml(model_length), g(group), f(flags)

        return append

    def extend(self, part: Index, *, lines_before: int) -> None:
        """Append a byte range's requests, whose line numbers count from its start; its groups are renumbered."""
        numbers = []
        for group in part.groups:
            if group not in self.groups:
                self.groups.append(group)
            numbers.append(self.groups.index(group))
        for name in ("offset", "length", "tokens", "chars", "custom_id_hash", "model_at", "model_length", "flags"):
            getattr(self, name).extend(getattr(part, name))
        self.line.extend(array("I", [line + lines_before for line in part.line]))
        # A request that could not be read is in no group; its number is 0 and means nothing.
        self.group.extend(array("H", [numbers[group] for group in part.group] if numbers else part.group))

    def chunks(self) -> Iterator[bytes]:
        """The file's content, a column at a time."""
        header = msgspec.json.encode(_Header(count=len(self), groups=self.groups))
        yield b"".join((MAGIC, len(header).to_bytes(4, "little"), header))
        for name, _ in COLUMNS:
            yield getattr(self, name).tobytes()

    @classmethod
    def read(cls, file: BinaryIO) -> Index:
        """Read an index. Raises ValueError if it is not one, or is cut short."""
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError("not an index file")
        header = msgspec.json.decode(file.read(int.from_bytes(file.read(4), "little")), type=_Header)
        columns = {name: array(code) for name, code in COLUMNS}
        try:
            for column in columns.values():
                column.fromfile(file, header.count)
        except EOFError:
            raise ValueError("the index file is cut short") from None
        return cls(groups=header.groups, **columns)


def repeated_hashes(columns: Sequence[array[int]]) -> set[int]:
    """Hashes that occur more than once in all columns together, in memory that does not grow with them; 0 is none."""
    buckets = 1 << (sum(map(len, columns)) // BUCKET).bit_length()
    repeated: set[int] = set()
    for bucket in range(buckets):
        seen: set[int] = set()
        for column in columns:
            chosen = column if buckets == 1 else [value for value in column if value % buckets == bucket]
            before = len(seen)
            seen.update(chosen)
            if len(seen) < before + len(chosen):
                break
        else:
            continue
        counts = Counter(value for column in columns for value in column if value % buckets == bucket)
        repeated.update(value for value, count in counts.items() if count > 1 and value)
    return repeated
