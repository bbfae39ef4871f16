"""The fast counter against tiktoken, the reference."""

import random
import sys
import sysconfig
import unicodedata
from pathlib import Path

import pytest

from sluicegate.adapters.counters import PIECE, TiktokenCounter, ToktokCounter

ENCODINGS = ("o200k_base", "cl100k_base")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Two thousand real texts, and two thousand that no person wrote."""
    dice = random.Random(7)
    sources = [
        path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    ]
    found = []
    for _ in range(2_000):
        text = dice.choice(sources)
        start = dice.randrange(max(1, len(text) - 600))
        found.append(text[start : start + dice.randint(1, 600)])
    alphabet = "aZ9 \n\r\t\u00a0'\u2019’sſtreé漢字\u3000🧠👩‍👩‍👧Σς\u0301\u200dİıKå…<|endoftext|>"
    found += ["".join(dice.choices(alphabet, k=dice.randint(1, 60))) for _ in range(2_000)]
    return found


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_counts_are_those_of_tiktoken(texts: list[str], encoding: str) -> None:
    """Also where an apostrophe stands before U+017F, which the fast one leaves to the reference."""
    assert ToktokCounter().count(texts, encoding) == TiktokenCounter().count(texts, encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_code_point_that_this_unicode_knows_counts_the_same(encoding: str) -> None:
    """They differ in newer code points only, and what the server does with those is not known."""
    known = [chr(i) for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i)) not in ("Cn", "Cs", "Co")]
    wrapped = [f"a{character}b {character}" for character in known]
    fast, reference = ToktokCounter().count(wrapped, encoding), TiktokenCounter().count(wrapped, encoding)
    different = [hex(ord(c)) for c, a, b in zip(known, fast, reference, strict=True) if a != b]
    assert different == []


def test_special_tokens_are_ordinary_text() -> None:
    """A prompt may speak of them."""
    assert ToktokCounter().count(["<|endoftext|>"], "o200k_base") == [7]
    assert TiktokenCounter().count(["<|endoftext|>"], "o200k_base") == [7]


def test_white_space_without_end_is_counted() -> None:
    """tiktoken's pattern gives up at about a million; a text is never the end of a run."""
    text = " " * 1_200_000
    fast, reference = ToktokCounter().count([text], "o200k_base")[0], TiktokenCounter().count([text], "o200k_base")[0]
    assert fast <= reference <= fast + len(text) // PIECE


def test_an_unknown_encoding_is_named() -> None:
    """With those that are known."""
    with pytest.raises(KeyError, match="o200k_base"):
        ToktokCounter().count(["x"], "p50k")
