"""``sluicegate run``: the command, and how Ctrl-C is taken."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Group, Parameter

from sluicegate.cli import output
from sluicegate.cli.options import STDIN_WORD, Paced, flag, is_large, load, names_of
from sluicegate.cli.reporters import Reporter, reporter_of
from sluicegate.core.report import Event, EventKind, RunResult
from sluicegate.errors import Interrupted, SluicegateError, UsageError

if TYPE_CHECKING:
    from sluicegate.settings import Settings

RUN = Group("Run", sort_key=1)

EXIT_BROKEN_PIPE: Final = 141
LEAVE_WITHIN_S: Final = 1.0
"""After the second Ctrl-C connections get this long to close."""


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
    reporter = reporter_of(names, as_json=common.json)
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
