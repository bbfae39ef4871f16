"""What the check found, for a person: problems grouped by code, and what the work is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sluicegate.cli.words import clock, count, money, safe, size, some, span

SHOWN_PER_CODE: Final = 5


def has_errors(report: Mapping[str, Any]) -> bool:
    """True if something refuses the input. Of each code at least one problem is listed, so the list tells."""
    return any(problem["severity"] == "error" for problem in report["problems"])


def problem_lines(report: Mapping[str, Any], *, per_code: int = SHOWN_PER_CODE) -> list[tuple[str, str]]:
    """The problems as (text, style) lines: errors first, then by how many there are; the first ones of each code.

    Args:
        report: The check's report (docs/check.md).
        per_code: How many of each code are shown.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for problem in report["problems"]:
        groups.setdefault((problem["severity"], problem["code"]), []).append(problem)
    counts: Mapping[str, int] = report.get("problem_counts") or {}
    lines: list[tuple[str, str]] = []
    for (severity, code), found in sorted(groups.items(), key=lambda item: (item[0][0] != "error", -len(item[1]))):
        number = max(len(found), counts.get(code, 0))
        style = "bold red" if severity == "error" else "bold yellow"
        lines.append((f"{severity} {code}: {some(number, 'line') if number > 1 else '1 line'}", style))
        for problem in found[:per_code]:
            lines.append((f"  {_place(problem)}  {safe(str(problem['message']))}", ""))
        if number > per_code:
            lines.append((f"  … and {number - per_code:,} more", "dim"))
        # One code has one remedy as a rule; where they differ, each is said once.
        for remedy in dict.fromkeys(str(problem["remedy"]) for problem in found[:per_code] if problem.get("remedy")):
            lines.append((f"  → {safe(remedy)}", "cyan"))
        lines.append(("", ""))
    return lines


def _place(problem: Mapping[str, Any]) -> str:
    name = safe(str(problem["file"]))
    place = f"{name}:{problem['line']}" if problem.get("line") else name
    return f"{place} ({safe(str(problem['custom_id']))})" if problem.get("custom_id") else place


def verdict(report: Mapping[str, Any]) -> tuple[str, str]:
    """The last word as (text, style)."""
    number = int(report["problem_count"])
    if has_errors(report):
        return f"refused: {some(number, 'problem')}; nothing would be submitted", "bold red"
    if number:
        return f"ready, with {some(number, 'warning')}", "bold yellow"
    return "ready: no problems", "bold green"


def summary(report: Mapping[str, Any], *, now: float) -> list[tuple[str, str]]:
    """What the work is, as (name, value) rows.

    Args:
        now: Unix seconds.
    """
    rows = [
        ("files", count(report["files"])),
        ("requests", count(report["requests"])),
        ("bytes", size(report["bytes"])),
        ("tokens", _tokens(report)),
    ]
    by_model: Mapping[str, Mapping[str, int]] = report["by_model"]
    if len(by_model) > 1:
        rows += [
            (f"  {safe(name)}", f"{some(sums['requests'], 'request')}, {sums['tokens']:,} tokens, "
                                f"largest {sums['largest']:,}")
            for name, sums in by_model.items()
        ]  # fmt: skip
    elif by_model:
        rows.append(("model", safe(next(iter(by_model)))))
    cost = report.get("cost_usd")
    note = safe(str(report.get("cost_note") or ""))
    rows.append(("cost", f"{money(cost)} ({note})" if cost is not None and note else note or money(cost)))
    parts, holds = report.get("parts"), report.get("holds_s")
    if parts is not None:
        batches = some(int(parts), "provider batch", "provider batches")
        known = f"{batches} under the limit"
        rows.append(("parts", known if holds is not None else f"at least {batches}, by requests and bytes; the limit is "
                                                              "not known (give --limit)"))  # fmt: skip
    if holds is not None:
        rows.append(("holds", f"the deployment for about {span(holds)}"))
    if parts is None and holds is None:
        rows.append(("parts", "not known without a limit; give --limit"))
    rows += _provider(report.get("provider"), now)
    return rows


def _tokens(report: Mapping[str, Any]) -> str:
    said = count(report["tokens"])
    details = [
        f"{name} {report[key]:,}"
        for name, key in (("median", "median_tokens"), ("largest", "largest_tokens"))
        if report.get(key) is not None
    ]
    return f"{said} ({', '.join(details)})" if details else said


def _provider(answer: Mapping[str, Any] | None, now: float) -> list[tuple[str, str]]:
    if answer is None:
        return []
    rows = []
    if answer.get("fits_now") is not None:
        rows.append(("fits now", f"{answer['fits_now']:,} tokens"))
    if answer.get("first_part_at") is not None:
        wait = answer["first_part_at"] - now
        rows.append(("first part", "at once" if wait <= 1 else f"in about {span(wait)}"))
    if answer.get("done_at") is not None:
        rows.append(("done", f"in about {span(answer['done_at'] - now)}, at {clock(answer['done_at'], now)}"))
    if answer.get("note"):
        rows.append(("provider", safe(str(answer["note"]))))
    return rows
