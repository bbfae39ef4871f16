"""``sluicegate run``: the live screen, plain lines or JSON, and how Ctrl-C is taken."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

from cyclopts import Group, Parameter

from sluicegate.cli import findings, output
from sluicegate.cli.options import STDIN_WORD, Paced, flag, is_large, load, names_of
from sluicegate.cli.words import clock, money, safe, size, some, span
from sluicegate.core.report import Event, EventKind, Progress, RunResult
from sluicegate.errors import Interrupted, SluicegateError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from sluicegate.settings import Settings

RUN = Group("Run", sort_key=1)

EXIT_BROKEN_PIPE: Final = 141
LEAVE_WITHIN_S: Final = 1.0
"""After the second Ctrl-C connections get this long to close."""

PACE: Final = ((300.0, 10.0), (float("inf"), 30.0))
"""Progress lines of a pipe: until this many seconds, one every so many seconds."""

FILES_SHOWN: Final = 5


def run(
    inputs: Annotated[
        tuple[str, ...], Parameter(name="INPUT", help="JSONL files, gzipped ones too; - is standard input.")
    ],
    /,
    *,
    out: Annotated[
        Path | None,
        Parameter(
            name=("--output", "-o"), group=RUN, metavar="PATH",
            help="Result file, or a folder for several inputs. [default: INPUT.results.jsonl beside each input]",
        ),
    ] = None,
    errors: Annotated[
        Path | None,
        Parameter(
            group=RUN, metavar="PATH",
            help="Error file, or a folder; exists only if a request failed. [default: beside the results]",
        ),
    ] = None,
    skip_bad: Annotated[bool, flag(RUN, "Run the good lines; the bad ones go to the error file.")] = False,
    adopt: Annotated[
        bool, flag(RUN, "Collect provider batches of the same inputs that another data folder submitted.")
    ] = False,
    new: Annotated[bool, flag(RUN, "Run as new work, and pay for it, even if it is known already.")] = False,
    cancel: Annotated[
        bool, flag(RUN, "Run nothing: cancel what the run of these inputs has at the provider.")
    ] = False,
    attempts: Annotated[
        str | None,
        Parameter(
            group=RUN, metavar="N", help="How often a request is sent at most, if it fails for a passing reason. "
            "[default: 3]",
        ),
    ] = None,
    max_cost: Annotated[
        str | None,
        Parameter(
            group=RUN, metavar="USD",
            help="Refuse work that is estimated to cost more, and stop before it does. [default: no bound]",
        ),
    ] = None,
    common: Paced | None = None,
) -> int:  # fmt: skip
    """Answer every request of the inputs, never over the enqueued-token limit.

    Everything is checked before the first upload. Then the deployment is kept as full as its limit allows until every
    request has its answer, in input order, in one file. The same command again goes on where it was.
    """
    common = common or Paced()
    names = names_of(inputs)
    if STDIN_WORD in (str(out), str(errors)):
        raise UsageError("results cannot go to standard output, where the progress is shown; name a file")
    settings = load(common, attempts=attempts, max_cost=max_cost)
    if cancel:
        if adopt or new or skip_bad or out is not None or errors is not None:
            raise UsageError("--cancel only cancels; leave out --output, --errors, --skip-bad, --adopt and --new")
        return _cancel(names, settings, as_json=common.json)
    ways = {"output": out, "errors": errors, "skip_bad": skip_bad, "adopt": adopt, "new": new}
    reporter = _reporter(names, as_json=common.json)
    return drive(reporter, lambda hooks: _start(names, settings, ways, hooks))


def _start(
    inputs: Sequence[str], settings: Settings, ways: Mapping[str, Any], hooks: Mapping[str, Any]
) -> Coroutine[Any, Any, RunResult]:
    from sluicegate import api
    from sluicegate.adapters.workers import ProcessWorkers

    checkers = ProcessWorkers(settings.workers or None) if is_large(inputs) else None
    return api.run_async(list(inputs), settings=settings, checkers=checkers, **ways, **hooks)


def _cancel(inputs: Sequence[str], settings: Settings, *, as_json: bool) -> int:
    from sluicegate import api
    from sluicegate.cli.batches import say_cancelled

    return say_cancelled(asyncio.run(api.cancel_run_async(list(inputs), settings=settings)), as_json=as_json)


# -- who is told -------------------------------------------------------------------------------------------------------


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


def _reporter(inputs: Sequence[str], *, as_json: bool) -> Reporter:
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


# -- driving it, and stopping it ---------------------------------------------------------------------------------------


class Brake:
    """Takes Ctrl-C (SIGINT) and SIGTERM: the first stops new parts, the second leaves.

    Args:
        task: The run.
        stop: What the run looks at.
        reporter: Who is told.
    """

    def __init__(self, task: asyncio.Task[RunResult], stop: asyncio.Event, reporter: Reporter) -> None:
        self._task = task
        self._stop = stop
        self._reporter = reporter
        self._loop = asyncio.get_running_loop()
        self.run: str | None = None
        self.pulled = 0
        self.broken_pipe = False

    def pull(self) -> None:
        """A signal came."""
        self.pulled += 1
        if self.pulled == 1 and self.run is not None:
            self._stop.set()
            self._reporter.stopping("stopping: no new parts; press Ctrl-C again to leave at once")
            return
        # Nothing is submitted yet, or the person does not want to wait: both may simply end. What was committed before
        # stands in the rows, as after a kill.
        self._task.cancel()
        self._loop.call_later(LEAVE_WITHIN_S, self._leave)

    def hear(self, event: Event) -> None:
        """Notice that the run has begun."""
        if event.kind in (EventKind.RUN_STARTED, EventKind.FOLLOWING):
            self.run = event.run or event.fields.get("run")

    def pipe_broke(self) -> None:
        """Nobody reads any more: stop as after Ctrl-C, and say nothing."""
        if not self.broken_pipe:
            self.broken_pipe = True
            if self.run is None:
                self._task.cancel()
            else:
                self._stop.set()

    def _leave(self) -> None:
        self._reporter.close()
        output.complain(self.farewell("left at once"))
        os._exit(Interrupted.exit_code)

    def farewell(self, said: str) -> str:
        """``said``, and how to go on and how to cancel."""
        if self.run is None:
            return f"{said}; nothing was submitted by this start"
        return f"{said}\n{how_to_go_on(sys.argv[1:])}\n{how_to_cancel(sys.argv[1:], self.run)}"


def how_to_go_on(argv: Sequence[str]) -> str:
    """The command that goes on where this one was. ``--new`` would start anew, so it is left out."""
    return "  to go on:   " + shlex.join(["sluicegate", *(word for word in argv if word != "--new")])


WHERE: Final = ("--base-url", "--azure-endpoint", "--api-version", "--state", "--config", "--set")
"""Options that say which data folder and which provider: what is cancelled is found with them only."""


def how_to_cancel(argv: Sequence[str], run: str) -> str:
    """The command that cancels what ``run`` has at the provider, with those options of ``argv`` that it needs."""
    chosen: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, _ = word.partition("=")
        if name in WHERE:
            chosen += [word] if equals else [word, next(words, "")]
    return "  to cancel:  " + shlex.join(["sluicegate", "batches", "cancel", run, *chosen])


def drive(reporter: Reporter, start: Callable[[Mapping[str, Any]], Coroutine[Any, Any, RunResult]]) -> int:
    """Run ``start(hooks)`` and tell ``reporter``; returns the exit code.

    Args:
        start: Gives the run when it is handed ``on_event``, ``on_progress``, ``on_check``, ``on_report`` and ``stop``.

    Raises:
        SluicegateError: what ended the run; the reporter has been told and the terminal is given back.
    """
    reporter.start()
    try:
        result = asyncio.run(_drive(reporter, start))
    except SluicegateError as error:
        reporter.close()
        reporter.failure(error)
        raise
    finally:
        reporter.close()
    if result is None:
        return EXIT_BROKEN_PIPE
    reporter.result(result)
    return result.exit_code


async def _drive(
    reporter: Reporter, start: Callable[[Mapping[str, Any]], Coroutine[Any, Any, RunResult]]
) -> RunResult | None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    brake: Brake

    def told(tell: Callable[..., None]) -> Callable[..., None]:
        def safely(*values: Any) -> None:
            try:
                tell(*values)
            except BrokenPipeError:
                output.silence()
                loop.call_soon_threadsafe(brake.pipe_broke)

        return safely

    def on_event(event: Event) -> None:
        brake.hear(event)
        told(reporter.event)(event)

    hooks = {
        "on_event": on_event,
        "on_progress": told(reporter.progress),
        "on_check": told(reporter.check),
        "on_report": told(reporter.report),
        "stop": stop,
    }
    task = loop.create_task(start(hooks))
    brake = Brake(task, stop, reporter)
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: Ctrl-C ends the process, which loses nothing either
            loop.add_signal_handler(number, brake.pull)
    try:
        return await task
    except asyncio.CancelledError:
        if brake.broken_pipe:
            return None
        raise Interrupted(brake.farewell("stopped at once" if brake.pulled > 1 else "stopped")) from None
    except Interrupted as error:
        if brake.broken_pipe:
            return None
        raise Interrupted(brake.farewell(str(error))) from error
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
