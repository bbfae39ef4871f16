"""`run` as a person, a pipe and a machine see it, with a scripted run behind it."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from sluicegate.cli import run as cli
from sluicegate.cli.reporters import JsonReporter, LineReporter, event_json, result_rows
from sluicegate.cli.run import drive, how_to_cancel, how_to_go_on
from sluicegate.core.report import RunResult
from sluicegate.errors import InputRefused, Interrupted
from tests.cli.scripted import EVENTS, RUN, progress, report, result

Hooks = Mapping[str, Any]


async def scripted(hooks: Hooks, *, outcome: RunResult | Exception) -> RunResult:
    """A run that tells everything once."""
    hooks["on_check"](500, 1_000)
    hooks["on_report"](report())
    for one in EVENTS:
        hooks["on_event"](one)
    hooks["on_progress"](progress())
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def test_json_is_one_object_a_line_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    """Machines read standard output alone: check, events, progress and the result."""
    code = drive(JsonReporter(now=lambda: 0.0), lambda hooks: scripted(hooks, outcome=result()))
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]

    assert code == 1
    assert said.err == ""
    assert [line["event"] for line in lines] == [
        "checking", "check", *(one.kind.value for one in EVENTS), "progress", "result",
    ]  # fmt: skip
    assert lines[-1]["outputs"] == ["/data/requests.results.jsonl"]
    assert lines[-2]["quotas"][0]["headroom"] == 3_600


def test_json_says_why_a_run_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """An error is an object too, and is raised for the exit code."""
    with pytest.raises(InputRefused):
        drive(JsonReporter(now=lambda: 0.0), lambda hooks: scripted(hooks, outcome=InputRefused("10 errors")))
    last = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert last == {"event": "error", "code": "input_refused", "message": "10 errors", "exit_code": 3}


def test_an_events_fields_never_hide_what_it_is() -> None:
    """``event``, ``at`` and ``sentence`` are the event's own."""
    flat = event_json(replace(EVENTS[1], sentence="cut", fields={"event": "x", "sentence": "y", "part": "part_1"}))

    assert (flat["event"], flat["sentence"], flat["part"], flat["run"]) == ("cut", "cut", "part_1", RUN)


def test_a_pipe_gets_one_line_an_event_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Problems first, then the events in order, then the table."""
    code = drive(LineReporter(now=lambda: EVENTS[0].at), lambda hooks: scripted(hooks, outcome=result()))
    out = capsys.readouterr().out

    assert code == 1
    positions = [out.index(one.sentence) for one in EVENTS]
    assert positions == sorted(positions)
    assert out.index("error invalid_json_line: 10 lines") < positions[0]
    assert "requests:   1,498 answered, 2 failed of 1,500" in out
    assert "\x1b" not in out


def test_a_pipe_gets_progress_every_ten_seconds_and_later_every_thirty(capsys: pytest.CaptureFixture[str]) -> None:
    """A log of a day is read by people."""
    seconds = [0.0]
    reporter = LineReporter(now=lambda: seconds[0])
    for i in range(600):
        seconds[0] = float(i)
        reporter.progress(progress())
    lines = capsys.readouterr().out.splitlines()

    assert len(lines) == 30 + 10
    assert "412 of 1,500 requests done, 2 failed, 78 enqueued, 1,010 waiting" in lines[0]
    assert "gpt-4.1-batch 26,400 of 30,000 tokens" in lines[0]


def test_json_progress_comes_when_a_count_changes(capsys: pytest.CaptureFixture[str]) -> None:
    """And every ten seconds, to show that it lives."""
    seconds = [0.0]
    reporter = JsonReporter(now=lambda: seconds[0])
    for i in range(30):
        seconds[0] = float(i)
        reporter.progress(progress(done=410 if i < 15 else 411))

    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_table_at_the_end_names_what_matters() -> None:
    """Answers, batches, refusals, tokens, cost, time, files."""
    rows = dict(result_rows(result()))

    assert rows["batches"] == "17 provider batches, 1 refusal, 3 requests sent again"
    assert rows["tokens"] == "450,000 in (12,000 cached), 98,000 out"
    assert (rows["cost"], rows["time"]) == ("1.23 USD", "13 min 12 s")
    assert rows["errors"] == "/data/requests.errors.jsonl"


def test_thirty_files_are_not_thirty_lines() -> None:
    """The first five and where the rest is; no error file, no line."""
    rows = result_rows(result(outputs=tuple(f"/data/{i}.results.jsonl" for i in range(30)), errors=(None,) * 30))

    assert ("", "and 25 more in /data") in rows
    assert "errors" not in dict(rows)


def test_going_on_never_starts_anew() -> None:
    """--new would pay again; odd names are quoted."""
    assert how_to_go_on(["run", "a b.jsonl", "--new", "-o", "x"]) == "  to go on:   sluicegate run 'a b.jsonl' -o x"


def test_the_command_that_cancels_looks_where_the_run_looked() -> None:
    """Another data folder does not know the run, and another address not its batches."""
    words = "run a.jsonl --state '/my data' -o x --base-url=http://h/v1 --limit 1K --set k=v"

    assert how_to_cancel(shlex.split(words), RUN) == (
        f"  to cancel:  sluicegate batches cancel {RUN} --state '/my data' --base-url=http://h/v1 --set k=v"
    )


async def until_stopped(hooks: Hooks, began: asyncio.Event) -> RunResult:
    """A run that has begun and waits for its stop."""
    hooks["on_event"](EVENTS[0])
    began.set()
    await hooks["stop"].wait()
    raise Interrupted("stopped; 3 provider batches go on at the provider")


async def pulled(start: Callable[[Hooks], Any], when: asyncio.Event) -> str:
    """What the person reads after one Ctrl-C at ``when``."""
    made: list[cli.Brake] = []
    original = cli.Brake

    class Watched(original):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    cli.Brake = Watched  # type: ignore[misc]
    try:
        task = asyncio.ensure_future(cli._drive(LineReporter(now=lambda: 0.0), start))
        await when.wait()
        made[0].pull()
        with pytest.raises(Interrupted) as caught:
            await task
    finally:
        cli.Brake = original  # type: ignore[misc]
    return str(caught.value)


async def test_ctrl_c_stops_says_how_to_go_on_and_how_to_cancel(capsys: pytest.CaptureFixture[str]) -> None:
    """The first one asks the run to stop and waits for it."""
    began = asyncio.Event()
    said = await pulled(lambda hooks: until_stopped(hooks, began), began)

    assert said.startswith("stopped; 3 provider batches go on at the provider")
    assert "to go on:   sluicegate" in said
    assert f"to cancel:  sluicegate batches cancel {RUN}" in said
    assert "no new parts; press Ctrl-C again" in capsys.readouterr().err


async def test_ctrl_c_before_the_run_has_begun_simply_ends_it() -> None:
    """During the check there is nothing to wait for."""
    began = asyncio.Event()

    async def checking(hooks: Hooks) -> RunResult:
        began.set()
        await asyncio.sleep(3_600)
        raise AssertionError("it was cancelled")

    said = await pulled(checking, began)

    assert said == "stopped; nothing was submitted by this start"
