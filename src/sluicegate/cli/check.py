"""``sluicegate check``: every problem of the inputs in one pass, and what the work is."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Final

from cyclopts import Group, Parameter

from sluicegate.adapters.worker import start_server
from sluicegate.cli import findings, output
from sluicegate.cli.options import Target, flag, is_large, load, names_of
from sluicegate.errors import InputRefused

CHECK = Group("Check", sort_key=1)

PATIENCE_S: Final = 2.0
"""A check that takes no longer shows no progress bar."""


def check(
    inputs: Annotated[
        tuple[str, ...], Parameter(name="INPUT", help="JSONL files, gzipped ones too; - is standard input.")
    ],
    /,
    *,
    offline: Annotated[
        bool, flag(CHECK, "Do not ask the provider how much fits now and when all is done.")
    ] = False,
    show: Annotated[
        int, Parameter(group=CHECK, metavar="N", help="How many problems of each code are shown.")
    ] = findings.SHOWN_PER_CODE,
    common: Target | None = None,
) -> int:  # fmt: skip
    """Find every problem in the inputs, and say what the work is: requests, tokens, cost, time."""
    common = common or Target()
    names = names_of(inputs)
    large = is_large(names)
    if large:
        start_server()  # it loads the vocabulary while this process loads the rest
    settings = load(common)
    from sluicegate import api
    from sluicegate.adapters.workers import ProcessWorkers

    with _progress() as on_check:
        report = asyncio.run(
            api.check_async(
                names, settings=settings, ask_provider=not offline, on_check=on_check,
                workers=ProcessWorkers(settings.workers or None) if large else None,
            )
        )  # fmt: skip
    if common.json:
        output.print_json(report)
    else:
        from sluicegate.cli.screen import pairs

        out = output.console()
        for line, style in findings.problem_lines(report, per_code=max(0, show)):
            out.print(line, style=style)
        out.print(pairs(findings.summary(report, now=time.time())))
        text, style = findings.verdict(report)
        out.print(text, style=style)
    return InputRefused.exit_code if findings.has_errors(report) else 0


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on standard error, if a person looks at it and the check takes longer than two seconds."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("checking"), BarColumn(bar_width=None), DownloadColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True, expand=True,
    )  # fmt: skip
    task = bar.add_task("checking", total=None)
    started = time.monotonic()

    def on_check(done: int, total: int) -> None:
        if time.monotonic() - started >= PATIENCE_S:
            bar.start()  # a second start does nothing
        bar.update(task, completed=done, total=total or None)

    try:
        yield on_check
    finally:
        bar.stop()
