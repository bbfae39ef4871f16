"""The live screen of ``run``: pure functions from what happened to rich renderables, and the thing that keeps it drawn.

::

    sluicegate run  requests.jsonl                                 4 min 12 s
    gpt-4.1-batch  limit 30,000 (configured)               3 provider batches
    ████████████████████████████▓▓▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒▒░░░░░░░░░░░░░░░░░░░░  88 %
    held 18,300 · reserved 4,100 · foreign 4,000 · headroom 3,600

Each kind of tokens has its own glyph and its own colour, so that neither colour nor Unicode is needed to read it.
"""

from __future__ import annotations

import textwrap
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sluicegate.cli.words import clock, count, safe, short, size, some, span
from sluicegate.core.report import Event, EventKind, Progress, QuotaRow

EVENTS_SHOWN: Final = 6
DEPLOYMENTS_SHOWN: Final = 4
REDRAW_S: Final = 0.1

LOUD: Final = {
    EventKind.REFUSED: "yellow",
    EventKind.STUCK: "yellow",
    EventKind.TROUBLE: "red",
    EventKind.TWIN: "yellow",
    EventKind.LIMIT_CHANGED: "cyan",
    EventKind.CALIBRATED: "cyan",
    EventKind.RUN_FINISHED: "green",
}
"""Events that are worth a colour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyphs:
    """What bars are drawn with: held, reserved, foreign, headroom, and what joins and cuts texts."""

    held: str = "█"
    reserved: str = "▓"
    foreign: str = "▒"
    headroom: str = "░"
    dot: str = " · "
    cut: str = "…"


ASCII: Final = Glyphs(held="#", reserved="+", foreign="%", headroom=".", dot="  ", cut="...")


def glyphs_for(console: Console) -> Glyphs:
    """Block characters where the terminal can show them."""
    return Glyphs() if console.encoding.startswith("utf") and not console.legacy_windows else ASCII


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that the screen shows.

    Attributes:
        checked: (bytes checked, bytes in all) while the inputs are being read, else None.
        stopping: What is said once the person has asked to stop.
    """

    inputs: tuple[str, ...]
    checked: tuple[int, int] | None = None
    progress: Progress | None = None
    events: tuple[Event, ...] = field(default_factory=tuple)
    stopping: str | None = None


def render(view: View, *, width: int, height: int = 40, glyphs: Glyphs | None = None) -> RenderableType:
    """The screen for a terminal of ``width`` × ``height``; every line fits the width."""
    glyphs = glyphs or Glyphs()
    lines: list[Text] = [_header(view, width, glyphs)]
    if view.progress is None:
        if view.checked is not None:
            lines += [Text(), _checking(view.checked, width, glyphs)]
    else:
        lines += _gates(view.progress, width, glyphs)
        lines.append(Text())
        lines += _work(view.progress, width, glyphs)
    if view.stopping is not None:
        lines += [Text(), Text(view.stopping, style="bold yellow")]
    room = max(0, min(EVENTS_SHOWN, height - len(lines) - 3))
    if view.events and room:
        lines.append(Text())
        now = view.progress.at if view.progress is not None else view.events[-1].at
        lines += [_event(event, now) for event in view.events[-room:]]
    return Group(*(_fit(line, width, glyphs) for line in lines))


def _fit(text: Text, width: int, glyphs: Glyphs) -> Text:
    if text.cell_len > width:
        text.truncate(max(1, width - len(glyphs.cut)))
        text.append(glyphs.cut)
    text.no_wrap = True
    return text


def _spread(left: Text, right: Text, width: int) -> Text:
    """``left`` at the left edge and ``right`` at the right one; ``right`` is left out if there is no room."""
    gap = width - left.cell_len - right.cell_len
    return Text.assemble(left, " " * gap, right) if gap >= 2 else left


def _header(view: View, width: int, glyphs: Glyphs) -> Text:
    names = [safe(name) for name in view.inputs]
    said = names[0] if len(names) == 1 else f"{names[0]} and {some(len(names) - 1, 'other file', 'other files')}"
    right = Text(style="dim")
    if view.progress is not None:
        right = Text(span(view.progress.at - view.progress.started_at), style="dim")
    room = width - len("sluicegate run  ") - right.cell_len - 2
    if len(said) > room > 8:
        said = glyphs.cut + said[len(said) - room + len(glyphs.cut) :]  # the end of a path says more than its beginning
    return _spread(Text.assemble(("sluicegate run", "bold"), "  ", said), right, width)


def _checking(checked: tuple[int, int], width: int, glyphs: Glyphs) -> Text:
    done, total = checked
    share = done / total if total else 0.0
    said = f" {size(done)} of {size(total)}" if total else f" {size(done)}"
    cells = max(8, width - len("checking ") - len(said) - 1)
    bar = _bar(((share, glyphs.held, "green"), (1 - share, glyphs.headroom, "dim")), cells)
    return Text.assemble("checking ", bar, said)


def _bar(shares: Sequence[tuple[float, str, str]], cells: int) -> Text:
    """A bar of ``cells`` for shares that add up to at most 1. What is not nothing gets at least one cell."""
    widths = [max(1, int(share * cells)) if share > 0 else 0 for share, _, _ in shares]
    while sum(widths) > cells:
        widths[widths.index(max(widths))] -= 1
    # Cells that rounding left over go to the last kind, which is what is free.
    if shares and sum(widths) < cells:
        last = max((i for i, w in enumerate(widths) if w), default=len(widths) - 1)
        widths[last] += cells - sum(widths)
    bar = Text()
    for cell_count, (_, glyph, style) in zip(widths, shares, strict=True):
        bar.append(glyph * cell_count, style=style)
    return bar


def _gates(progress: Progress, width: int, glyphs: Glyphs) -> list[Text]:
    # The fullest of what waits first: it is the one that the person waits for.
    rows = sorted(progress.quotas, key=lambda row: (-row.waiting, row.deployment))
    lines: list[Text] = []
    for row in rows[:DEPLOYMENTS_SHOWN]:
        lines += [Text(), *gate(row, width, glyphs)]
    if len(rows) > DEPLOYMENTS_SHOWN:
        rest = len(rows) - DEPLOYMENTS_SHOWN
        lines.append(Text(f"and {some(rest, 'other deployment')}: sluicegate quota shows all", style="dim"))
    return lines


def gate(row: QuotaRow, width: int, glyphs: Glyphs) -> list[Text]:
    """How full one deployment's limit is: a title, a bar and the numbers."""
    title = Text.assemble((safe(row.deployment), "bold"), "  ")
    if row.limit is None:
        title.append("limit not known yet", style="dim")
    else:
        title.append(f"limit {row.limit:,} ({row.limit_source})")
    if row.paused:
        title.append("  paused by hand", style="bold yellow")
    lines = [_spread(title, Text(some(row.provider_batches, "provider batch", "provider batches"), style="dim"), width)]
    used = row.reserved + row.held + row.foreign
    kinds: tuple[tuple[int, str, str, str], ...] = (
        (row.held, "held", glyphs.held, "green"),
        (row.reserved, "reserved", glyphs.reserved, "cyan"),
        (row.foreign, "foreign", glyphs.foreign, "magenta"),
    )
    if row.limit is not None:
        whole = max(row.limit, used, 1)
        tail = f" {used / max(row.limit, 1):4.0%}"
        parts = [(amount / whole, glyph, style) for amount, _, glyph, style in kinds]
        parts.append(((whole - used) / whole, glyphs.headroom, "dim"))
        lines.append(Text.assemble(_bar(parts, max(10, width - len(tail))), (tail, "bold")))
    if row.headroom is not None:
        kinds = (*kinds, (row.headroom, "headroom", glyphs.headroom, "dim"))
    return [*lines, _legend(kinds, width, glyphs)]


def _legend(kinds: Sequence[tuple[int, str, str, str]], width: int, glyphs: Glyphs) -> Text:
    """The numbers with the glyphs that stand for them, in the longest form that fits."""
    legend = Text()
    for number, joint in ((count, glyphs.dot), (short, "  "), (short, " ")):
        legend = Text(joint).join(
            Text.assemble((f"{glyph} ", style), f"{name} {number(amount)}") for amount, name, glyph, style in kinds
        )
        if legend.cell_len <= width:
            break
    return legend


def _work(progress: Progress, width: int, glyphs: Glyphs) -> list[Text]:
    lines = [*_requests(progress, width, glyphs), _tokens(progress, glyphs), _when(progress)]
    waits = progress.waits_for
    for label, said, style in (
        ("waits for", waits, ""),
        ("refused", progress.last_refusal, "yellow"),
        ("learned", progress.learned, "cyan"),
    ):
        if said:
            lines += _labelled(label, safe(said), style, width)
    return lines


def _labelled(label: str, said: str, style: str, width: int) -> list[Text]:
    """A sentence on at most two lines beside its label."""
    first, *rest = textwrap.wrap(said, max(20, width - 10)) or [""]
    lines = [Text.assemble((f"{label:<10}", "dim"), (first, style))]
    if rest:
        lines.append(Text.assemble(" " * 10, (" ".join(rest), style)))
    return lines


def _requests(progress: Progress, width: int, glyphs: Glyphs) -> list[Text]:
    total = max(progress.total, 1)
    finished = progress.done + progress.failed
    tail = f" {finished:,} of {progress.total:,}"
    bar = _bar(
        (
            (progress.done / total, glyphs.held, "green"),
            (progress.failed / total, glyphs.foreign, "red"),
            (progress.enqueued / total, glyphs.reserved, "cyan"),
            (max(0.0, 1 - (finished + progress.enqueued) / total), glyphs.headroom, "dim"),
        ),
        max(8, width - 10 - len(tail)),
    )
    d = glyphs.dot
    counts = Text(f"{'':<10}waiting {progress.waiting:,}{d}enqueued {progress.enqueued:,}{d}done {progress.done:,}{d}")
    counts.append(f"failed {progress.failed:,}", style="red" if progress.failed else "")
    return [Text.assemble(("requests  ", "dim"), bar, (tail, "bold")), counts]


def _tokens(progress: Progress, glyphs: Glyphs) -> Text:
    said = f"{progress.tokens_done:,} of {progress.tokens_total:,}"
    if progress.tokens_per_minute is not None:
        said += f"{glyphs.dot}{progress.tokens_per_minute:,.0f} a minute"
    return Text.assemble(("tokens    ", "dim"), said)


def _when(progress: Progress) -> Text:
    return Text.assemble(("done      ", "dim"), finish(progress))


def finish(progress: Progress) -> str:
    """When all will be done, and how sure that is, in words."""
    soon, late, now = progress.finish_at, progress.finish_at_late, progress.at
    if progress.done + progress.failed >= progress.total > 0:
        return "all requests; the last results are being written"
    if soon is None:
        return "not known until the first provider batch has ended"
    if late is not None and late - soon > max(30.0, 0.1 * (soon - now)):
        return f"in about {span(soon - now)}: between {clock(soon, now)} and {clock(late, now)}"
    return f"in about {span(soon - now)}: {clock(soon, now)}"


def _event(event: Event, now: float) -> Text:
    return Text.assemble((f"{clock(event.at, now)}  ", "dim"), (safe(event.sentence), LOUD.get(event.kind, "")))


def pairs(rows: Sequence[tuple[str, str]], *, title: str | None = None) -> RenderableType:
    """A short table of names and values."""
    table = Table(box=None, show_header=False, pad_edge=False, title=title, title_justify="left")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


class Screen:
    """Keeps the screen drawn. Its methods may be called from any thread; drawing is bounded in time.

    Args:
        console: The terminal.
        inputs: The names of the inputs as given.
        now: Seconds of a steady clock, to bound how often it draws.
    """

    def __init__(self, console: Console, inputs: Sequence[str], *, now: Callable[[], float]) -> None:
        self._console = console
        self._now = now
        self._glyphs = glyphs_for(console)
        self._view = View(inputs=tuple(inputs))
        self._events: deque[Event] = deque(maxlen=EVENTS_SHOWN)
        self._drawn_at = float("-inf")
        self._guard = threading.Lock()
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)

    def start(self) -> None:
        """Take the terminal."""
        self._live.start()

    def close(self) -> None:
        """Give the terminal back, clean. May be called twice."""
        self._live.stop()

    def check(self, done: int, total: int) -> None:
        """Bytes checked so far."""
        self._change(force=False, checked=(done, total))

    def event(self, event: Event) -> None:
        """Something happened."""
        with self._guard:
            self._events.append(event)
            shown = tuple(self._events)
        self._change(force=False, events=shown)

    def progress(self, progress: Progress) -> None:
        """Where it stands."""
        self._change(force=True, progress=progress)

    def stopping(self, said: str) -> None:
        """The person asked to stop."""
        self._change(force=True, stopping=said)

    def _change(self, *, force: bool, **changes: object) -> None:
        with self._guard:
            self._view = replace(self._view, **changes)  # type: ignore[arg-type]
            now = self._now()
            if not force and now - self._drawn_at < REDRAW_S:
                return
            self._drawn_at = now
            view = self._view
        width, height = self._console.size
        self._live.update(render(view, width=width, height=height, glyphs=self._glyphs), refresh=True)
