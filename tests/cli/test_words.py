"""Numbers, spans and times in words."""

from __future__ import annotations

import pytest

from sluicegate.cli.words import clock, money, safe, short, size, some, span


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0"), (999, "999"), (4_100, "4.1K"), (30_000, "30K"), (29_999, "29.9K"), (999_999, "999K"),
     (1_250_000, "1.25M"), (5_000_000_000, "5B"), (400_000, "400K")],
)  # fmt: skip
def test_short_counts_are_rounded_down(count: int, said: str) -> None:
    """At most five characters, never more than there is."""
    assert short(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-3, "0 s"), (0.4, "0 s"), (59.6, "1 min"), (190, "3 min 10 s"), (7_500, "2 h 5 min"), (97_200, "1 d 3 h")],
)
def test_spans_have_two_units(seconds: float, said: str) -> None:
    """Enough to plan with, no more."""
    assert span(seconds) == said


def test_sizes_and_nouns() -> None:
    """Decimal units, and a plural where one is due."""
    assert [size(n) for n in (0, 999, 1_500, 182_000_000, 1_500_000_000_000)] == [
        "0 B", "999 B", "1.5 kB", "182 MB", "1,500 GB",
    ]  # fmt: skip
    assert (some(1, "refusal"), some(2_000, "request")) == ("1 refusal", "2,000 requests")


def test_money_shows_small_sums() -> None:
    """Half a cent is not nothing."""
    assert [money(x) for x in (None, 0, 0.005, 1_234.5)] == ["–", "0.00 USD", "0.0050 USD", "1,234.50 USD"]


def test_a_moment_far_off_has_its_date() -> None:
    """23:10 of which day?"""
    assert len(clock(1_000_000.0, 1_000_100.0)) == len("12:34:56")
    assert len(clock(1_000_000.0, 1_200_000.0)) > len("12:34:56")


def test_safe_text_is_one_line() -> None:
    """No control characters of any block."""
    assert safe("a\r\nb\x9bc\x00\u2066d") == "a\ufffd b\ufffdc\ufffd\ufffdd"
