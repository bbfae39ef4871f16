"""The quota table."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sluicegate.cli.quota import moment, show
from tests.cli.scripted import START, quota_row

NOW = START + 252.0


def drawn(width: int, *rows: object) -> list[str]:
    console = Console(file=io.StringIO(), width=width, record=True, no_color=True, highlight=False, markup=False)
    console.print(show(rows, now=NOW, width=width))  # type: ignore[arg-type]
    return console.export_text(styles=False).splitlines()


@pytest.mark.parametrize("width", [60, 120, 140, 200])
def test_every_number_is_shown_at_any_width(width: int) -> None:
    """A table where it fits, a block for each deployment where it does not."""
    text = "\n".join(drawn(width, quota_row(), quota_row(deployment="other", limit=None, headroom=None)))

    for said in ("gpt-4.1-batch", "other", "30,000", "configured", "330,000"):
        assert said in text
    assert ("18,300" in text) or ("18.3K" in text)
    assert "read 12 s ago" in text
    assert all(len(line.rstrip()) <= width for line in text.splitlines())


def test_the_table_has_a_column_for_everything() -> None:
    """One line a deployment."""
    header, row, _ = drawn(200, quota_row(paused=True))

    assert header.split("  ")[0] == "deployment"
    for name in ("limit", "known from", "reserved", "held", "foreign", "headroom", "waiting", "batches", "idle"):
        assert name in header
    assert "gpt-4.1-batch (paused)" in row
    assert "(in 48 s)" in row


def test_no_deployment_is_said() -> None:
    """An empty table would leave the person guessing."""
    assert "no deployment is known yet" in "\n".join(drawn(100))


def test_moments() -> None:
    """Unknown, over, or how far off."""
    assert moment(None, NOW) == "–"
    assert moment(NOW - 5, NOW) == "now"
    assert moment(NOW + 90, NOW).endswith("(in 1 min 30 s)")
