"""``sluicegate batches``: what is under way, what happened, and what can be done about it by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import App, Parameter

from sluicegate.cli import output
from sluicegate.cli.options import Where, load
from sluicegate.cli.words import clock, date, safe, some


def _epilogue(*examples: str) -> str:
    lines = "".join(f"  sluicegate batches {example}\n" for example in examples)
    codes = ("0  done", "2  usage or settings", "4  the provider does not answer; try again",
             "5  the provider refuses (sign-in)")  # fmt: skip
    return f"Examples:\n{lines}\nExit codes:\n" + "\n".join(f"  {code}" for code in codes)


app = App(name="batches", help_epilogue=_epilogue("list", "show run_4k2m0q7xw9ab"))

ID = Parameter(name="ID", help="Id of a run, batch, part or provider batch.")


@app.command(name="list", help_epilogue=_epilogue("list", "list --json"))
def list_(*, common: Where | None = None) -> int:
    """List every run that the data folder knows, newest first."""
    common = common or Where()
    settings = load(common)
    from sluicegate import api

    runs = asyncio.run(api.batches_list_async(settings=settings))
    if common.json:
        output.print_json(runs)
        return 0
    if not runs:
        output.print_lines(["no runs yet"])
        return 0
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "state"):
        table.add_column(name, no_wrap=True)
    table.add_column("inputs", overflow="fold")
    for name in ("requests", "waiting", "enqueued", "answered", "failed", "parts"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("started", no_wrap=True)
    for run in runs:
        table.add_row(
            run["run"], run["state"], Text(_inputs(run)),
            *(f"{run[name]:,}" for name in ("requests", "waiting", "enqueued", "answered", "failed", "parts")),
            date(run["created_at"]),
        )  # fmt: skip
    output.console().print(table)
    return 0


def _inputs(run: Mapping[str, Any]) -> str:
    names = [safe(str(name)) for name in run["inputs"]]
    return names[0] if len(names) == 1 else f"{names[0]} and {some(len(names) - 1, 'other')}" if names else "–"


@app.command(help_epilogue=_epilogue("show run_4k2m0q7xw9ab", "show batch_abc123 --json"))
def show(id_: Annotated[str, ID], /, *, common: Where | None = None) -> int:
    """Show a run with its batches and parts, and the history of decisions in words."""
    common = common or Where()
    settings = load(common)
    from sluicegate import api

    found = asyncio.run(api.batches_show_async(id_, settings=settings))
    if common.json:
        output.print_json(found)
    else:
        out = output.console()
        for line, style in story(found, now=time.time()):
            out.print(line, style=style)
    return 0


def story(found: Mapping[str, Any], *, now: float) -> list[tuple[str, str]]:
    """A run as (text, style) lines.

    Args:
        found: What :func:`sluicegate.api.batches_show_async` returns.
        now: Unix seconds.
    """
    run = found["run"]
    lines = [
        (f"{run['run']}  {run['state']}", "bold"),
        (f"  {run['requests']:,} requests: {run['waiting']:,} waiting, {run['enqueued']:,} enqueued, "
         f"{run['answered']:,} answered, {run['failed']:,} failed", ""),
    ]  # fmt: skip
    for batch in found["batches"]:
        files = f"{safe(str(batch['input']))} → {safe(str(batch['output']))}"
        counts = f"{batch['written']:,} of {batch['requests']:,} written, {batch['failed']:,} failed"
        lines.append((f"  {files}: {counts}", ""))
    for part in found["parts"]:
        lines.append(("", ""))
        lines.append((f"{part['id']}  {part['provider_batch'] or 'not at the provider'}  {part['stage']}", "bold"))
        lines.append((f"  {part['requests']:,} requests, {part['tokens']:,} tokens on {safe(part['deployment'])}; "
                      f"{part['means']}", ""))  # fmt: skip
        if part.get("reason"):
            lines.append((f"  why this size: {safe(str(part['reason']))}", ""))
        if part.get("error"):
            lines.append((f"  error: {safe(str(part['error']))}", "red"))
        lines += [(f"  {clock(one['at'], now)}  {safe(str(one['sentence']))}", "dim") for one in part["history"]]
    return lines


@app.command(help_epilogue=_epilogue("cancel run_4k2m0q7xw9ab"))
def cancel(id_: Annotated[str, ID], /, *, common: Where | None = None) -> int:
    """Cancel what is at the provider; results that exist are collected by the next start of the run."""
    common = common or Where()
    settings = load(common)
    from sluicegate import api

    return say_cancelled(asyncio.run(api.batches_cancel_async(id_, settings=settings)), as_json=common.json)


def say_cancelled(done: Mapping[str, Any], *, as_json: bool) -> int:
    """Tell what a cancel did; the exit code."""
    if as_json:
        output.print_json(done)
        return 0
    cancelled, ended = done.get("cancelled", []), done.get("ended_already", [])
    if not cancelled and not ended:
        output.print_lines([f"{done['id']} has nothing at the provider, so nothing was cancelled"])
        return 0
    lines = [f"asked the provider to cancel {safe(str(name))}" for name in cancelled]
    lines += [f"{safe(str(name))} had ended already" for name in ended]
    output.print_lines([*lines, "answers that exist are collected by the next start of the run"])
    return 0


@app.command(help_epilogue=_epilogue("salvage run_4k2m0q7xw9ab"))
def salvage(id_: Annotated[str, ID], /, *, common: Where | None = None) -> int:
    """Let requests that failed for a passing reason wait again, whatever the attempts so far."""
    common = common or Where()
    settings = load(common)
    from sluicegate import api

    done = asyncio.run(api.batches_salvage_async(id_, settings=settings))
    if common.json:
        output.print_json(done)
    else:
        again = int(done.get("waiting_again", 0))
        said = f"{some(again, 'request')} of {done['id']} wait again; run the same command to send them"
        output.print_lines([said if again else f"{done['id']} has no request that failed for a passing reason"])
    return 0


@app.command(help_epilogue=_epilogue("forget batch_abc123"))
def forget(id_: Annotated[str, ID], /, *, common: Where | None = None) -> int:
    """Give up provider batches that are gone (another account, a new emulator); their requests wait again."""
    common = common or Where()
    settings = load(common)
    from sluicegate import api

    done = asyncio.run(api.batches_forget_async(id_, settings=settings))
    if common.json:
        output.print_json(done)
    else:
        output.print_lines(
            [f"gave up {safe(str(name))}; its requests wait again" for name in done.get("forgotten", [])]
        )
    return 0
