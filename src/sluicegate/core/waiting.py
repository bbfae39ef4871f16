"""Which requests wait: sets of ordinals, kept as spans, so that a million requests cost a few bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spans:
    """A set of whole numbers ≥ 0 as sorted, disjoint, non-adjacent half-open spans ``(start, stop)``."""

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Spans:
        """The set of ``numbers``, which may come in any order and repeat."""
        return cls.from_spans((n, n + 1) for n in numbers)

    @classmethod
    def from_spans(cls, spans: Iterable[tuple[int, int]]) -> Spans:
        """The union of half-open spans in any order; empty ones are dropped."""
        merged: list[tuple[int, int]] = []
        for start, stop in sorted(spans):
            if start >= stop:
                continue
            if merged and start <= merged[-1][1]:
                if stop > merged[-1][1]:
                    merged[-1] = (merged[-1][0], stop)
            else:
                merged.append((start, stop))
        return cls(tuple(merged))

    @classmethod
    def parse(cls, text: str) -> Spans:
        """The set written by :meth:`__str__`: ``"0-99 105"`` (both ends included)."""
        pieces = []
        for piece in text.split():
            first, _, last = piece.partition("-")
            pieces.append((int(first), int(last or first) + 1))
        return cls.from_spans(pieces)

    def __str__(self) -> str:
        return " ".join(str(a) if b - a == 1 else f"{a}-{b - 1}" for a, b in self.spans)

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.spans)

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __iter__(self) -> Iterator[int]:
        for start, stop in self.spans:
            yield from range(start, stop)

    def __or__(self, other: Spans) -> Spans:
        return Spans.from_spans(self.spans + other.spans)

    def __sub__(self, other: Spans) -> Spans:
        kept: list[tuple[int, int]] = []
        holes = iter(other.spans)
        hole = next(holes, None)
        for start, stop in self.spans:
            position = start
            while hole is not None and hole[1] <= position:
                hole = next(holes, None)
            while hole is not None and hole[0] < stop:
                if hole[0] > position:
                    kept.append((position, hole[0]))
                position = max(position, hole[1])
                if hole[1] >= stop:
                    break
                hole = next(holes, None)
            if position < stop:
                kept.append((position, stop))
        return Spans(tuple(kept))

    def __and__(self, other: Spans) -> Spans:
        return self - (self - other)
