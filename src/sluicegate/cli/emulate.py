"""``sluicegate emulate``: the provider's Batch API on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from sluicegate.core.limits import parse_tokens
from sluicegate.errors import UsageError

ACCOUNT = Group.create_ordered("The account")
SERVICE = Group.create_ordered("The service")
CLOCK = Group.create_ordered("Its clock, answers and books")
PLACE = Group.create_ordered("Where it listens")


def emulate(
    *,
    host: Annotated[str, Parameter(group=PLACE, help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(group=PLACE, help="Port to listen on; 0 takes a free one.")] = 8080,
    data: Annotated[
        Path | None, Parameter(group=PLACE, help="Folder for uploaded files and results. [default: a temporary one]")
    ] = None,
    preset: Annotated[
        tuple[str, ...],
        Parameter(group=ACCOUNT, negative="", help="Limits or times by name, as azure-30k (docs/emulate.md). May repeat."),
    ] = (),
    config: Annotated[
        Path | None, Parameter(group=ACCOUNT, help="TOML file with the account, a timetable and faults (docs/emulate.md).")
    ] = None,
    dialect: Annotated[Literal["azure", "openai"] | None, Parameter(group=ACCOUNT, help="Whose habits. [default: azure]")]
    = None,
    region: Annotated[
        str | None, Parameter(group=ACCOUNT, help="Azure region; some refuse at create already. [default: none]")
    ] = None,
    limit: Annotated[
        str | None, Parameter(group=ACCOUNT, help="Enqueued-token limit of each deployment, as 30K. [default: none]")
    ] = None,
    deployment: Annotated[
        tuple[str, ...], Parameter(group=ACCOUNT, negative="", help="Only these exist: NAME or NAME=LIMIT. May repeat.")
    ] = (),
    key: Annotated[
        tuple[str, ...], Parameter(group=ACCOUNT, negative="", help="Accept only these keys. May repeat. [default: any]")
    ] = (),
    entra_key: Annotated[
        str | None, Parameter(group=ACCOUNT, help="Accept only Bearer tokens signed (HS256) with this. [default: any]")
    ] = None,
    blobs: Annotated[
        Path | None, Parameter(group=ACCOUNT, help="Folder that stands for blob storage. [default: over HTTP]")
    ] = None,
    rate: Annotated[float | None, Parameter(group=SERVICE, help="Tokens per second; 0 for no bound. [default: 0]")] = None,
    discipline: Annotated[
        Literal["shared", "fifo", "slots"] | None,
        Parameter(group=SERVICE, help="How running batches share the rate. [default: shared]"),
    ] = None,
    slots: Annotated[int | None, Parameter(group=SERVICE, help="Batches served at once. [default: 4]")] = None,
    validating: Annotated[str | None, Parameter(group=SERVICE, help="Time in validating. [default: 1s]")] = None,
    start: Annotated[str | None, Parameter(group=SERVICE, help="Time in_progress before any work. [default: 1s]")] = None,
    finalizing: Annotated[str | None, Parameter(group=SERVICE, help="Time in finalizing. [default: 0.5s]")] = None,
    delays: Annotated[
        Literal["fixed", "lognormal", "pareto"] | None,
        Parameter(group=SERVICE, help="How these three times vary. [default: fixed]"),
    ] = None,
    spread: Annotated[
        float | None, Parameter(group=SERVICE, help="Sigma of lognormal, exponent of pareto. [default: 1]")
    ] = None,
    pending: Annotated[str | None, Parameter(group=SERVICE, help="Time a file is pending. [default: 0s]")] = None,
    expire: Annotated[
        str | None, Parameter(group=SERVICE, help="Batches expire after this. [default: 24h for openai, never for azure]")
    ] = None,
    fail_fast: Annotated[
        bool | None, Parameter(group=SERVICE, negative="", help="Refuse at create already, as some Azure regions do.")
    ] = None,
    refusal: Annotated[
        Literal["azure", "openai", "bare"] | None,
        Parameter(group=SERVICE, help="Whose refusal text; bare has no number. [default: the dialect's]"),
    ] = None,
    headers: Annotated[
        bool | None, Parameter(group=SERVICE, help="Azure's two token headers on create. [default: yes]")
    ] = None,
    count_factor: Annotated[
        float | None, Parameter(group=SERVICE, help="Count this much per real token. [default: 1]")
    ] = None,
    release_lag: Annotated[
        str | None, Parameter(group=SERVICE, help="Free tokens this long after a batch's end, or never. [default: 0s]")
    ] = None,
    speed: Annotated[float | None, Parameter(group=CLOCK, help="How fast the emulated clock runs. [default: 1]")] = None,
    clock: Annotated[
        Literal["real", "hand"] | None, Parameter(group=CLOCK, help="hand: it moves only by POST. [default: real]")
    ] = None,
    answers: Annotated[
        str | None,
        Parameter(group=CLOCK, help="Who answers: http://host/v1, module:function, file.py:function. [default: a text]"),
    ] = None,
    seed: Annotated[int | None, Parameter(group=CLOCK, help="Seed of everything that is random. [default: 0]")] = None,
    report: Annotated[
        bool, Parameter(group=CLOCK, negative="", help="Print the books when it stops; all of them: --report-to.")
    ] = False,
    report_to: Annotated[
        Path | None, Parameter(group=CLOCK, help="Write the books there when it stops: .json, or .svg for a picture.")
    ] = None,
) -> int:  # fmt: skip
    """Emulate the provider's Batch API: its limits, its refusals, its delays."""
    from sluicegate.emulator import config as settings
    from sluicegate.emulator.run import serve

    if report_to is not None and report_to.suffix not in (".json", ".svg"):
        raise UsageError(f"--report-to {report_to}: the name ends in .json or .svg")
    times = {
        "validating": validating, "start": start, "finalizing": finalizing, "pending": pending, "expire": expire,
        "release_lag": release_lag,
    }  # fmt: skip
    try:
        flags = {
            "dialect": dialect, "limit": parse_tokens(limit) if limit else None, "rate": rate, "slots": slots,
            "discipline": discipline, "fail_fast": fail_fast, "refusal": refusal, "headers": headers, "delays": delays,
            "count_factor": count_factor, "speed": speed, "seed": seed, "keys": key or None, "clock": clock,
            "spread": spread, "answers": answers, "region": region, "entra_key": entra_key,
            "blobs": str(blobs) if blobs is not None else None,
            "deployments": tuple(settings.Deployment(*_deployment(one)) for one in deployment) or None,
            **{f"{name}_s": settings.seconds_of(text) if text else None for name, text in times.items()},
        }  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from error
    given = {name: value for name, value in flags.items() if value is not None}
    account = settings.build(presets=preset, path=config, given=given)
    stopped = _reporter(report, report_to) if report or report_to is not None else None
    serve(account, host=host, port=port, data=data, ready=_say_ready, stopped=stopped)
    return 0


def _deployment(text: str) -> tuple[str, int | None]:
    name, _, limit = text.partition("=")
    return name, parse_tokens(limit) if limit else None


def _say_ready(url: str) -> None:
    print(f"sluicegate emulator ready at {url}", flush=True)  # noqa: T201  (the one line that programs wait for)


def _reporter(shown: bool, path: Path | None) -> Callable[[dict[str, Any]], None]:
    def stopped(books: dict[str, Any]) -> None:
        if path is not None:
            from sluicegate.emulator.picture import report_svg

            text = report_svg(books) if path.suffix == ".svg" else json.dumps(books, indent=1) + "\n"
            path.write_text(text, encoding="utf-8")
        if shown:
            from sluicegate.emulator.picture import report_text

            sys.stdout.write(report_text(books))

    return stopped
