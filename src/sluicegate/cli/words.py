"""Numbers, spans and times as a person reads them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final


def short(count: float) -> str:
    """A count in at most five characters: ``950``, ``30K``, ``1.25M``, ``5B``; rounded down, so it never boasts."""
    for letter, size in (("B", 1_000_000_000), ("M", 1_000_000), ("K", 1_000)):
        if count >= size:
            whole = count / size
            digits = 0 if whole >= 100 else 1 if whole >= 10 else 2
            # The small addition keeps 4.1 from becoming 4.09 for want of binary digits.
            text = f"{int(whole * 10**digits + 1e-6) / 10**digits:.{digits}f}"
            return (text.rstrip("0").rstrip(".") if digits else text) + letter
    return f"{int(count)}"


def count(value: int | None) -> str:
    """A whole number with separators; a dash for what is not known."""
    return "–" if value is None else f"{value:,}"


def some(number: int, noun: str, plural: str | None = None) -> str:
    """``1 request``, ``2,000 requests``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size(byte_count: int) -> str:
    """Bytes in decimal units: ``512 B``, ``1.5 MB``."""
    value = float(byte_count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1_000 or unit == "GB":
            return f"{value:,.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1_000
    raise AssertionError("GB is the last unit")


def span(seconds: float) -> str:
    """A span in its two largest units: ``8 s``, ``3 min 10 s``, ``2 h 5 min``, ``1 d 3 h``."""
    whole = max(0, round(seconds))
    for (big, big_name), (small, small_name) in (
        ((86_400, "d"), (3_600, "h")),
        ((3_600, "h"), (60, "min")),
        ((60, "min"), (1, "s")),
    ):
        if whole >= big:
            rest = whole % big // small
            return f"{whole // big} {big_name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def clock(at: float, now: float) -> str:
    """A moment in local time: the time alone if it is within half a day of ``now``, else with its date."""
    moment = datetime.fromtimestamp(at, tz=UTC).astimezone()
    return moment.strftime("%H:%M:%S" if abs(at - now) < 43_200 else "%a %d %b %H:%M")


def date(at: float) -> str:
    """A moment in local time with its date."""
    return datetime.fromtimestamp(at, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def money(dollars: float | None) -> str:
    """US dollars, with more digits where there are few."""
    if dollars is None:
        return "–"
    return f"{dollars:,.2f} USD" if dollars >= 1 or dollars == 0 else f"{dollars:,.4f} USD"


_HARMFUL: Final = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "�")


def safe(text: str) -> str:
    """Text from outside on one line of a terminal: no control characters, nothing that turns the reading direction."""
    return text.replace("\n", " ").replace("\t", " ").translate(_HARMFUL)
