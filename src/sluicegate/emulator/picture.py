"""The report for people: as text, as a picture (use of the quota over time, a bar per batch), as a page. Pure."""

from __future__ import annotations

from html import escape
from typing import Any, Final

from sluicegate.core.limits import format_tokens

WIDTH, LEFT, RIGHT, CHART, ROW = 960, 150, 20, 180, 16
COLOURS: Final = {
    "validating": "#b8c4d6", "in_progress": "#3b7dd8", "finalizing": "#2aa198", "cancelling": "#d8a13b",
}  # fmt: skip
ENDS: Final = {"completed": "#2a9d4a", "failed": "#d83b3b", "expired": "#8a4fbf", "cancelled": "#777777"}
ROWS_MOST: Final = 500
"""Batches in the picture; the report as JSON has all."""


def report_svg(report: dict[str, Any]) -> str:
    """Both parts of a report (:meth:`sluicegate.emulator.model.Model.report`)."""
    seconds = max(float(report["seconds"]), 1.0)
    parts: list[str] = []
    top = 30
    for name, books in report["deployments"].items():
        parts += _quota(name, books, seconds, top)
        top += CHART + 50
    rows = report["timeline"][:ROWS_MOST]
    parts += _bars(rows, seconds, top)
    height = top + len(rows) * ROW + 50
    return _document(parts, height)


def batch_svg(row: dict[str, Any], seconds: float) -> str:
    """One batch's bar of a report's timeline."""
    return _document(_bars([row], max(seconds, 1.0), 30), 30 + ROW + 50)


def report_text(books: dict[str, Any]) -> str:
    """The books in a few lines."""
    refused = books["refusals"]
    lines = [
        f"batches           {books['batches']:,}",
        f"refused           {refused['at_create']:,} at create, {refused['late']:,} after validating",
        f"executed          {books['executed_total']:,} requests, {books['executed_again']:,} of them again",
        f"never fetched     {books['lines_never_fetched']:,} answers",
    ]
    for name, one in books["deployments"].items():
        used = "no limit" if one["utilisation"] is None else f"{one['utilisation']:.0%} of the limit used on average"
        lines.append(
            f"{name}: most held {format_tokens(one['held_max'])} ({one['held_max_ratio']:.0%} of the limit), most offered "
            f"{one['offered_max']:.0%}, {used}"
        )
    for name, other in books.get("resources", {}).items():
        lines += ["", f"resource {name}", report_text(other).rstrip()]
    return "\n".join(lines) + "\n"


def report_page(books: dict[str, Any]) -> str:
    """Text and picture as a page that reloads itself."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
        "<title>Sluicegate emulator</title><style>body{font:14px system-ui,sans-serif;margin:2em}</style>"
        f"<h1>Emulated Batch API</h1><pre>{escape(report_text(books))}</pre>{report_svg(books)}"
    )


def _document(parts: list[str], height: int) -> str:
    style = (
        "text{font:11px system-ui,sans-serif;fill:#333}.axis{stroke:#ccc}.limit{stroke:#d83b3b;stroke-dasharray:4 3}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _x(at: float, seconds: float) -> float:
    return round(LEFT + max(0.0, min(at / seconds, 1.0)) * (WIDTH - LEFT - RIGHT), 1)


def _quota(name: str, books: dict[str, Any], seconds: float, top: int) -> list[str]:
    """Tokens held as an area, the limit as a dashed line, both as steps."""
    samples = [(max(0.0, at), held, limit) for at, held, limit in books["samples"]]
    most: int = max([1, *(max(held, limit or 0) for _, held, limit in samples)])
    bottom = top + CHART

    def y(tokens: int) -> float:
        return round(float(bottom - tokens / most * (CHART - 20)), 1)

    area, line = [f"M{LEFT},{bottom}"], []
    for (at, held, limit), (until, _, _) in zip(samples, [*samples[1:], (seconds, 0, None)], strict=True):
        x, end = _x(at, seconds), _x(until, seconds)
        area.append(f"L{x},{y(held)}L{end},{y(held)}")
        if limit is not None:
            line.append(f"M{x},{y(limit)}L{end},{y(limit)}")
    area.append(f"L{_x(seconds, seconds)},{bottom}Z")
    used = "" if books["utilisation"] is None else f" · used {books['utilisation']:.0%}"
    title = f"{name}: enqueued tokens, most held {format_tokens(books['held_max'])}{used}"
    return [
        f'<text x="{LEFT}" y="{top}">{escape(title)}</text>',
        f'<path d="{"".join(area)}" fill="#3b7dd8" fill-opacity=".35"/>',
        f'<path class="limit" d="{"".join(line) or f"M{LEFT},{bottom}"}" fill="none"/>',
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>',
        f'<text x="{LEFT - 8}" y="{y(most) + 4}" text-anchor="end">{format_tokens(most)}</text>',
        *_seconds_axis(seconds, bottom),
    ]


def _seconds_axis(seconds: float, y: int) -> list[str]:
    return [
        f'<text x="{_x(seconds * i / 4, seconds)}" y="{y + 14}" text-anchor="middle">{seconds * i / 4:,.0f} s</text>'
        for i in range(5)
    ]


def _bars(rows: list[dict[str, Any]], seconds: float, top: int) -> list[str]:
    """A row per batch: its phases in colours, its end as a mark."""
    parts = []
    for i, row in enumerate(rows):
        y = top + i * ROW
        marks = [(float(row["created"]), "validating")]
        marks += [(float(row[name]), name) for name in COLOURS if name in row]
        end = next((float(row[name]) for name in ENDS if name in row), seconds)
        marks.sort(key=lambda mark: mark[0])
        label = f"{row['number']} · {row['status']} · {format_tokens(row['tokens'])}"
        parts.append(f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(label)}</text>')
        for (at, name), (until, _) in zip(marks, [*marks[1:], (end, "")], strict=True):
            x, width = _x(at, seconds), max(0.5, _x(until, seconds) - _x(at, seconds))
            title = f"<title>{escape(row['id'])} {name} {at:,.1f}–{until:,.1f} s</title>"
            parts.append(
                f'<rect x="{x}" y="{y + 2}" width="{width:.1f}" height="{ROW - 5}" fill="{COLOURS[name]}">{title}</rect>'
            )
        if row["status"] in ENDS:
            parts.append(f'<circle cx="{_x(end, seconds)}" cy="{y + 7}" r="4" fill="{ENDS[row["status"]]}"/>')
    return parts + _seconds_axis(seconds, top + len(rows) * ROW + 4)
