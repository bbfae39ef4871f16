"""The Counter port: toktok by default, tiktoken as the reference and where toktok has no wheel.

Both count text as ordinary text: ``<|endoftext|>`` in a prompt is seven tokens and never raises. Where the two are known
to differ (U+017F after an apostrophe under o200k_base), the text goes to tiktoken. A run of about a million white space
characters makes tiktoken's regular expression give up (``PanicException``, a BaseException): such texts are cut.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from sluicegate import vocabulary

PIECE: Final = 100_000
"""Characters per piece of a text that cannot be counted whole: each border may cost a token too many, never one less."""

LONG_S: Final = "'\u017f"
"""A contraction for tiktoken, whose pattern ignores case as Unicode does; not for toktok."""


class TiktokenCounter:
    """tiktoken, with its vocabulary from inside a package."""

    def encodings(self) -> tuple[str, ...]:
        return vocabulary.ENCODINGS

    def count(self, texts: list[str], encoding: str) -> list[int]:
        coder = vocabulary.encoding(encoding)
        return [len(coder.encode_ordinary(t)) if len(t) <= PIECE else _count_long(t, encoding) for t in texts]


def _count_long(text: str, encoding: str) -> int:
    coder = vocabulary.encoding(encoding)
    pieces = (text[i : i + PIECE] for i in range(0, len(text), PIECE))
    return sum(len(coder.encode_ordinary(piece)) for piece in pieces)


class ToktokCounter:
    """toktok-rs: the same counts several times faster; it releases the GIL."""

    def __init__(self) -> None:
        import toktok

        self._count = toktok.batch_count
        self._reference = TiktokenCounter()

    def encodings(self) -> tuple[str, ...]:
        return vocabulary.ENCODINGS

    def count(self, texts: list[str], encoding: str) -> list[int]:
        if encoding not in vocabulary.ENCODINGS:
            raise KeyError(f"unknown encoding {encoding!r}; known are {', '.join(vocabulary.ENCODINGS)}")
        counts: list[int] = self._count(texts, encoding, threads=1)
        for i, text in enumerate(texts):
            if not text.isascii() and LONG_S in text:
                counts[i] = self._reference.count([text], encoding)[0]
        return counts


@cache
def default_counter() -> ToktokCounter | TiktokenCounter:
    """toktok where there is a wheel of it, else tiktoken."""
    try:
        return ToktokCounter()
    except ImportError:
        return TiktokenCounter()
