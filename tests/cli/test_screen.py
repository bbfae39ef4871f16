"""The live screen: every line fits, every number is there, without colour and without Unicode too."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from sluicegate.cli.screen import ASCII, Screen, View, finish, gate, glyphs_for, render
from sluicegate.core.report import EventKind
from tests.cli.scripted import EVENTS, START, event, progress, quota_row

INPUTS = ("data/requests.jsonl",)


def drawn(what: RenderableType, width: int, *, encoding: str = "utf-8") -> list[str]:
    """The lines as a terminal of ``width`` without colours shows them."""
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=out, width=width, record=True, no_color=True, highlight=False)
    console.print(what)
    out.flush()
    return console.export_text(styles=False).splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_every_line_fits_the_terminal(width: int) -> None:
    """Nothing wraps, at any width: a wrapped line would break the redraw."""
    view = View(inputs=INPUTS, progress=progress(), events=EVENTS[-6:], stopping="stopping: no new parts")
    text = drawn(render(view, width=width), width)

    assert max(map(len, text)) <= width
    assert any("gpt-4.1-batch" in line for line in text)
    assert any("stopping" in line for line in text)


def test_a_wide_screen_has_every_number_of_the_gate_and_of_the_work() -> None:
    """Limit, held, reserved, foreign, headroom; waiting, enqueued, done, failed; pace and end."""
    text = "\n".join(drawn(render(View(inputs=INPUTS, progress=progress()), width=120), 120))

    for said in (
        "limit 30,000 (configured)", "3 provider batches", "held 18,300", "reserved 4,100", "foreign 4,000",
        "headroom 3,600", "412 of 1,500", "waiting 1,010", "enqueued 78", "done 410", "failed 2", "18,300 a minute",
        "in about 9 min: between", "batch_7f3", "limit 30K", "4 min 12 s",
    ):  # fmt: skip
        assert said in text


def test_a_narrow_screen_shortens_the_numbers() -> None:
    """30,000 becomes 30K where there is no room."""
    text = drawn(render(View(inputs=INPUTS, progress=progress()), width=60), 60)

    legend = next(line for line in text if "reserved" in line)
    assert "held 18.3K" in legend
    assert "headroom 3.6K" in legend


def test_the_bar_shows_each_kind_in_proportion() -> None:
    """held : reserved : foreign : headroom as in the numbers, with one glyph each."""
    bar = gate(quota_row(), 104, ASCII)[1].plain

    assert len(bar) <= 104
    cells = [bar.count(glyph) for glyph in "#+%."]
    assert sum(cells) == 104 - len("  88%") + 1
    for have, tokens in zip(cells, (18_300, 4_100, 4_000, 3_600), strict=True):
        assert abs(have - tokens / 30_000 * sum(cells)) <= 1.5


def test_a_little_is_still_seen() -> None:
    """One token of a million has a cell: a gate that is not quite empty does not look empty."""
    bar = gate(quota_row(limit=1_000_000, held=1, reserved=0, foreign=0, headroom=999_999), 60, ASCII)[1].plain

    assert bar.startswith("#.")


def test_a_gate_above_its_limit_is_full() -> None:
    """After the provider lowered the limit, more is held than fits: no headroom cell, and the share says so."""
    bar = gate(quota_row(limit=20_000, headroom=0), 60, ASCII)[1].plain

    assert "." not in bar
    assert "132%" in bar


def test_an_unknown_limit_is_said() -> None:
    """No bar is drawn of what is not known."""
    lines = [line.plain for line in gate(quota_row(limit=None, headroom=None), 80, ASCII)]

    assert len(lines) == 2
    assert "limit not known yet" in lines[0]
    assert "headroom" not in lines[1]


def test_a_paused_deployment_says_so() -> None:
    """Whoever wonders why nothing moves sees it."""
    assert "paused by hand" in gate(quota_row(paused=True), 100, ASCII)[0].plain


def test_a_terminal_without_unicode_gets_ascii_bars() -> None:
    """Latin-1 cannot show blocks."""
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="latin-1"), width=60)

    assert glyphs_for(console) is ASCII
    text = "\n".join(drawn(render(View(inputs=INPUTS, progress=progress()), width=60, glyphs=ASCII), 60))
    assert text.isascii()


def test_many_deployments_are_summed_up() -> None:
    """Four gates, those with most waiting first, and how many more there are."""
    rows = tuple(quota_row(deployment=f"d{i}", waiting=i) for i in range(7))
    text = "\n".join(drawn(render(View(inputs=INPUTS, progress=progress(quotas=rows)), width=100), 100))

    assert [name for name in ("d6", "d5", "d4", "d3", "d2") if name in text] == ["d6", "d5", "d4", "d3"]
    assert "and 3 other deployments" in text


def test_a_low_terminal_gives_up_events_first() -> None:
    """The gate stays in sight on 16 lines."""
    view = View(inputs=INPUTS, progress=progress(), events=EVENTS[-6:])
    text = drawn(render(view, width=100, height=16), 100)

    assert len(text) <= 16
    assert "headroom" in "\n".join(text)


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    """A provider's message with escape codes, newlines or bidi marks stays one harmless line."""
    bad = event(EventKind.TROUBLE, "evil \x1b[2J\x1b]0;x\x07 line\nnext \u202e[bold]x[/bold]", 1)
    text = "\n".join(drawn(render(View(inputs=("a\x1b[31m.jsonl",), events=(bad,)), width=100), 100))

    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "[bold]x[/bold]" in text


def test_the_end_is_said_with_how_sure_it_is() -> None:
    """A span where the two bounds differ, one moment where they agree, and words where nothing is known."""
    assert "between" in finish(progress())
    assert "between" not in finish(progress(finish_at=START + 900, finish_at_late=START + 901))
    assert finish(progress(finish_at=None)) == "not known until the first provider batch has ended"
    assert finish(progress(done=1_498, failed=2)).startswith("all requests")


def test_the_check_has_a_bar() -> None:
    """Before the first event, how far the check is."""
    text = "\n".join(drawn(render(View(inputs=INPUTS, checked=(5_000_000, 20_000_000)), width=60), 60))

    assert "5.0 MB of 20.0 MB" in text


def test_drawing_is_bounded_however_many_events_come() -> None:
    """A thousand events within a second draw at most eleven times, and the last progress is drawn."""
    seconds = [0.0]
    out = io.StringIO()
    console = Console(file=out, width=80, height=30, force_terminal=True, force_interactive=True, no_color=True)
    screen = Screen(console, INPUTS, now=lambda: seconds[0])
    screen.start()
    before = out.tell()
    for i in range(1_000):
        seconds[0] = i / 1_000
        screen.event(EVENTS[i % len(EVENTS)])
    redraws = out.getvalue()[before:].count("sluicegate run")
    screen.progress(progress(done=777))
    screen.close()
    screen.close()

    assert 5 <= redraws <= 11
    assert "done 777" in out.getvalue()
