"""Who is told of a run: a live screen on a terminal, plain lines in a pipe, JSON for a program."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from sluicegate.cli import findings, output
from sluicegate.cli.words import clock, money, safe, size, some, span
from sluicegate.core.report import Event, Progress, RunResult
from sluicegate.errors import SluicegateError

if TYPE_CHECKING:
    from rich.console import Console

PACE: Final = ((300.0, 10.0), (float("inf"), 30.0))
"""Progress lines of a pipe: until this many seconds, one every so many seconds."""

FILES_SHOWN: Final = 5


class Reporter(Protocol):
    """What a run tells. ``check`` may be called from another thread."""

    def start(self) -> None: ...
    def check(self, done: int, total: int) -> None: ...
    def report(self, report: dict[str, Any]) -> None: ...
    def event(self, event: Event) -> None: ...
    def progress(self, progress: Progress) -> None: ...
    def stopping(self, said: str) -> None: ...
    def close(self) -> None: ...
    def result(self, result: RunResult) -> None: ...
    def failure(self, error: SluicegateError) -> None: ...


def reporter_of(inputs: Sequence[str], *, as_json: bool) -> Reporter:
    """The one that fits where the output goes."""
    if as_json:
        return JsonReporter(now=time.monotonic)
    out = output.console()
    return ScreenReporter(out, inputs) if output.is_live(out) else LineReporter(now=time.time)


class ScreenReporter:
    """A person at a terminal."""

    def __init__(self, console: Console, inputs: Sequence[str]) -> None:
        from sluicegate.cli.screen import Screen

        self._console = console
        self._screen = Screen(console, inputs, now=time.monotonic)
        self.start = self._screen.start
        self.check = self._screen.check
        self.event = self._screen.event
        self.progress = self._screen.progress
        self.stopping = self._screen.stopping
        self.close = self._screen.close

    def report(self, report: dict[str, Any]) -> None:
        """The problems, above the screen, where they stay."""
        for line, style in findings.problem_lines(report):
            self._console.print(line, style=style)

    def result(self, result: RunResult) -> None:
        """The table at the end."""
        from sluicegate.cli.screen import pairs

        self._console.print(pairs(result_rows(result)))

    def failure(self, error: SluicegateError) -> None:
        """Said on standard error by ``main``."""


class LineReporter:
    """A pipe or a log: plain lines, each with its time.

    Args:
        now: Unix seconds.
    """

    def __init__(self, *, now: Callable[[], float]) -> None:
        self._now = now
        self._started = now()
        self._said_at = float("-inf")

    def start(self) -> None:
        """Nothing to prepare."""

    def close(self) -> None:
        """Nothing to give back."""

    def check(self, done: int, total: int) -> None:
        """Now and then, how far the check is."""
        now = self._now()
        if self._said_at == float("-inf"):
            self._said_at = now  # the first look counts from here: a short check says nothing
        elif self._due(now):
            self._line(now, f"checking: {size(done)} of {size(total)}" if total else f"checking: {size(done)}")

    def report(self, report: dict[str, Any]) -> None:
        """The problems, and what the work is in one line."""
        lines = [line for line, _ in findings.problem_lines(report)]
        said = f"checked: {some(report['requests'], 'request')}, {report['tokens']:,} tokens, {size(report['bytes'])}"
        output.print_lines([*lines, f"{self._time(self._now())} {said}"])

    def event(self, event: Event) -> None:
        """One line."""
        output.print_lines([f"{self._time(event.at)} {safe(event.sentence)}"])

    def progress(self, progress: Progress) -> None:
        """A line every 10 s, after five minutes every 30 s."""
        now = self._now()
        if self._due(now):
            self._line(now, progress_line(progress))

    def stopping(self, said: str) -> None:
        """One line."""
        output.complain(said)

    def result(self, result: RunResult) -> None:
        """The table at the end, as plain lines."""
        output.print_lines([f"{name + ':':<11} {value}" for name, value in result_rows(result)])

    def failure(self, error: SluicegateError) -> None:
        """Said on standard error by ``main``."""

    def _due(self, now: float) -> bool:
        every = next(pause for until, pause in PACE if now - self._started < until)
        return now - self._said_at >= every

    def _line(self, now: float, text: str) -> None:
        self._said_at = now
        output.print_lines([f"{self._time(now)} {text}"])

    def _time(self, at: float) -> str:
        return clock(at, self._now())


class JsonReporter:
    """A machine: one object a line, told apart by ``event`` (docs/run.md).

    Args:
        now: Seconds of a steady clock.
    """

    def __init__(self, *, now: Callable[[], float]) -> None:
        self._now = now
        self._counts: tuple[int, ...] = ()
        self._said_at = float("-inf")

    def start(self) -> None:
        """Nothing to prepare."""

    def close(self) -> None:
        """Nothing to give back."""

    def check(self, done: int, total: int) -> None:
        """How far the check is, once a second."""
        now = self._now()
        if now - self._said_at >= 1.0:
            self._said_at = now
            output.print_json({"event": "checking", "bytes": done, "bytes_total": total})

    def report(self, report: dict[str, Any]) -> None:
        """The whole report of the check."""
        output.print_json({"event": "check"} | report)

    def event(self, event: Event) -> None:
        """Kind, time, sentence and fields."""
        output.print_json(event_json(event))

    def progress(self, progress: Progress) -> None:
        """When a count has changed, and every 10 s."""
        now = self._now()
        counts = (progress.waiting, progress.enqueued, progress.done, progress.failed)
        if counts != self._counts or now - self._said_at >= 10.0:
            self._counts, self._said_at = counts, now
            output.print_json({"event": "progress"} | asdict(progress))

    def stopping(self, said: str) -> None:
        """For the person at the keyboard."""
        output.complain(said)

    def result(self, result: RunResult) -> None:
        """How it ended."""
        output.print_json({"event": "result"} | asdict(result))

    def failure(self, error: SluicegateError) -> None:
        """Why it ended."""
        output.print_json({"event": "error", "code": error.code, "message": str(error), "exit_code": error.exit_code})


def event_json(event: Event) -> dict[str, Any]:
    """An event as one flat object; its own fields never hide its kind, time or sentence."""
    head = {"event": event.kind.value, "at": event.at, "sentence": event.sentence}
    names = {name: value for name in ("run", "part", "deployment") if (value := getattr(event, name)) is not None}
    return head | event.fields | names | head


def progress_line(progress: Progress) -> str:
    """Where a run stands, on one line."""
    from sluicegate.cli.screen import finish

    said = (
        f"{progress.done + progress.failed:,} of {some(progress.total, 'request')} done, {progress.failed:,} failed, "
        f"{progress.enqueued:,} enqueued, {progress.waiting:,} waiting"
    )
    for row in progress.quotas:
        if row.limit is not None:
            used = row.reserved + row.held + row.foreign
            said += f"; {safe(row.deployment)} {used:,} of {row.limit:,} tokens"
    return f"{said}; done: {finish(progress)}" + (
        f"; waits for {safe(progress.waits_for)}" if progress.waits_for else ""
    )


def result_rows(result: RunResult) -> list[tuple[str, str]]:
    """The table at the end, as (name, value) rows."""
    usage = result.usage
    batches = some(result.parts, "provider batch", "provider batches") + f", {some(result.refusals, 'refusal')}"
    if result.salvaged:
        batches += f", {some(result.salvaged, 'request')} sent again"
    tokens = f"{usage.input_tokens:,} in"
    if usage.cached_tokens:
        tokens += f" ({usage.cached_tokens:,} cached)"
    rows = [
        ("requests", f"{result.completed:,} answered, {result.failed:,} failed of {result.total:,}"),
        ("batches", batches),
        ("tokens", f"{tokens}, {usage.output_tokens:,} out"),
        ("cost", money(result.cost) if result.cost is not None else "not known: a model has no price in the table"),
        ("time", span(result.seconds)),
    ]
    rows += _files("results", list(result.outputs))
    rows += _files("errors", [path for path in result.errors if path is not None])
    return rows


def _files(name: str, paths: list[str]) -> list[tuple[str, str]]:
    rows = [(name if i == 0 else "", safe(_relative(path))) for i, path in enumerate(paths[:FILES_SHOWN])]
    if len(paths) > FILES_SHOWN:
        rows.append(("", f"and {len(paths) - FILES_SHOWN:,} more in {safe(_relative(str(Path(paths[-1]).parent)))}"))
    return rows


def _relative(path: str) -> str:
    """The path as the person would type it here, if it is below the current folder."""
    with suppress(ValueError, OSError):
        return str(Path(path).relative_to(Path.cwd()))
    return path
