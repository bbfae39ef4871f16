"""``sluicegate emulate``: the provider's Batch API on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from sluicegate.core.limits import parse_duration, parse_tokens
from sluicegate.errors import UsageError

ACCOUNT = Group.create_ordered("The account")
SERVICE = Group.create_ordered("The service")
PLACE = Group.create_ordered("Where it listens")


def emulate(
    *,
    host: Annotated[str, Parameter(group=PLACE, help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(group=PLACE, help="Port to listen on; 0 takes a free one.")] = 8080,
    data: Annotated[
        Path | None, Parameter(group=PLACE, help="Folder for uploaded files and results. [default: a temporary one]")
    ] = None,
    config: Annotated[
        Path | None, Parameter(group=ACCOUNT, help="TOML file with the account, a timetable and faults (docs/emulate.md).")
    ] = None,
    dialect: Annotated[Literal["azure", "openai"] | None, Parameter(group=ACCOUNT, help="Whose habits. [default: azure]")]
    = None,
    limit: Annotated[
        str | None, Parameter(group=ACCOUNT, help="Enqueued-token limit of each deployment, as 30K. [default: none]")
    ] = None,
    deployment: Annotated[
        tuple[str, ...], Parameter(group=ACCOUNT, negative="", help="Only these exist: NAME or NAME=LIMIT. May repeat.")
    ] = (),
    key: Annotated[
        tuple[str, ...], Parameter(group=ACCOUNT, negative="", help="Accept only these keys. May repeat. [default: any]")
    ] = (),
    rate: Annotated[float | None, Parameter(group=SERVICE, help="Tokens per second; 0 for no bound. [default: 0]")] = None,
    discipline: Annotated[
        Literal["shared", "fifo"] | None,
        Parameter(group=SERVICE, help="How running batches share the rate. [default: shared]"),
    ] = None,
    validating: Annotated[str | None, Parameter(group=SERVICE, help="Time in validating. [default: 1s]")] = None,
    start: Annotated[str | None, Parameter(group=SERVICE, help="Time in_progress before any work. [default: 1s]")] = None,
    finalizing: Annotated[str | None, Parameter(group=SERVICE, help="Time in finalizing. [default: 0.5s]")] = None,
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
        str | None, Parameter(group=SERVICE, help="Free tokens this long after a batch's end. [default: 0s]")
    ] = None,
    speed: Annotated[float | None, Parameter(group=SERVICE, help="How fast the emulated clock runs. [default: 1]")] = None,
    seed: Annotated[int | None, Parameter(group=SERVICE, help="Seed of everything that is random. [default: 0]")] = None,
) -> int:  # fmt: skip
    """Emulate the provider's Batch API: its limits, its refusals, its delays."""
    from sluicegate.emulator import config as settings
    from sluicegate.emulator.run import serve

    given: dict[str, Any] = settings.load(config) if config is not None else {}
    try:
        flags = {
            "dialect": dialect, "limit": parse_tokens(limit) if limit else None, "rate": rate,
            "discipline": discipline, "fail_fast": fail_fast, "refusal": refusal, "headers": headers,
            "count_factor": count_factor, "speed": speed, "seed": seed, "keys": key or None,
            "deployments": tuple(map(_deployment, deployment)) or None,
            **{
                f"{name}_s": parse_duration(text) if text else None
                for name, text in (
                    ("validating", validating), ("start", start), ("finalizing", finalizing), ("pending", pending),
                    ("expire", expire), ("release_lag", release_lag),
                )
            },
        }  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from error
    account = settings.Account(**(given | {name: value for name, value in flags.items() if value is not None}))
    serve(account, host=host, port=port, data=data, ready=_say_ready)
    return 0


def _deployment(text: str) -> tuple[str, int | None]:
    name, _, limit = text.partition("=")
    return name, parse_tokens(limit) if limit else None


def _say_ready(url: str) -> None:
    print(f"sluicegate emulator ready at {url}", flush=True)  # noqa: T201  (the one line that programs wait for)
