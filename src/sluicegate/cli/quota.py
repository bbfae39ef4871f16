"""``sluicegate quota``: the enqueued tokens of every deployment, and overrides by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Group, Parameter

from sluicegate.cli import output
from sluicegate.cli.options import Paced, Where, flag, load
from sluicegate.cli.words import clock, count, safe, span
from sluicegate.core.report import QuotaRow
from sluicegate.errors import BackendError, UsageError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from sluicegate.cli.screen import Glyphs
    from sluicegate.settings import Settings

QUOTA = Group("Quota", sort_key=1)

app = App(
    name="quota",
    help_epilogue="""Examples:
  sluicegate quota
  sluicegate quota --watch --poll 30s
  sluicegate quota --json | jq '.[] | {deployment, headroom}'
  sluicegate quota pause gpt-4.1-batch

Exit codes:
  0  shown
  2  usage or settings
  4  the provider does not answer; try again
  5  the provider refuses (sign-in)""",
)


@app.default
def quota(
    *,
    watch: Annotated[bool, flag(QUOTA, "Show it again every --poll, until Ctrl-C.")] = False,
    common: Paced | None = None,
) -> int:
    """Show the enqueued tokens of every deployment: limit, reserved, held, foreign, headroom."""
    common = common or Paced()
    settings = load(common)
    if common.poll is not None and not watch:
        raise UsageError("--poll is for --watch; without it the provider's list is read once")
    if watch:
        try:
            asyncio.run(_watch(settings, as_json=common.json))
        except KeyboardInterrupt:
            return 0
    rows = [] if watch else asyncio.run(_rows(settings))
    if common.json:
        output.print_json([asdict(row) for row in rows])
    else:
        out = output.console()
        out.print(show(rows, now=time.time(), width=out.width, glyphs=glyphs_of(out)))
    return 0


async def _rows(settings: Settings) -> list[QuotaRow]:
    from sluicegate import api

    return await api.quota_async(settings=settings)


async def _watch(settings: Settings, *, as_json: bool) -> None:
    """Until cancelled. A list that cannot be read is said, and read again at the next turn."""
    from rich.console import Group as Lines
    from rich.live import Live
    from rich.text import Text

    rows: list[QuotaRow] = []
    out = output.console()
    live = Live(console=out, auto_refresh=False) if output.is_live(out) and not as_json else None
    if live is not None:
        live.start()
    trouble: str | None = None
    try:
        while True:
            try:
                rows, trouble = await _rows(settings), None
            except BackendError as error:
                trouble = (
                    f"the provider's list cannot be read: {safe(str(error))}; trying again in {span(settings.poll)}"
                )
            now = time.time()
            if as_json:
                if trouble is None:
                    output.print_json([asdict(row) for row in rows])
                else:
                    output.complain(trouble)
            else:
                note = f"{clock(now, now)}  " + (trouble or f"next look in {span(settings.poll)}; Ctrl-C ends")
                said = Text(note, style="yellow" if trouble else "dim")
                table = show(rows, now=now, width=out.width, glyphs=glyphs_of(out))
                shown = Lines(table, said) if rows or trouble is None else Lines(said)
                if live is not None:
                    live.update(shown, refresh=True)
                else:
                    out.print(shown)
            await asyncio.sleep(settings.poll)
    finally:
        if live is not None:
            live.stop()


def glyphs_of(out: Console) -> Glyphs:
    """What bars are drawn with there."""
    from sluicegate.cli.screen import glyphs_for

    return glyphs_for(out)


def show(rows: Sequence[QuotaRow], *, now: float, width: int, glyphs: Glyphs | None = None) -> RenderableType:
    """The quota as a table, or as one block per deployment where the table would not fit."""
    from rich.console import Console
    from rich.console import Group as Lines
    from rich.text import Text

    if not rows:
        return Text(
            "no deployment is known yet: none has batches on this resource, and no run has used one. "
            "Name one with --deployment"
        )
    table = _table(rows, now)
    fits = Console(width=output.WIDE).measure(table).maximum <= width
    body = table if fits else _blocks(rows, now, width, glyphs)
    seen = [row.observed_at for row in rows if row.observed_at is not None]
    footer = f"{safe(rows[0].resource)}; " + (
        f"the provider's list was read {span(now - max(seen))} ago" if seen else "the provider's list was not read yet"
    )
    return Lines(body, Text(footer, style="dim"))


def _table(rows: Sequence[QuotaRow], now: float) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("deployment", "model"):
        table.add_column(name, no_wrap=True)
    table.add_column("limit", justify="right", no_wrap=True)
    table.add_column("known from", no_wrap=True)
    for name in ("reserved", "held", "foreign", "headroom", "waiting", "batches"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("next release", "idle"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        label = Text(safe(row.deployment))
        if row.paused:
            label.append(" (paused)", style="yellow")
        numbers = (row.reserved, row.held, row.foreign, row.headroom, row.waiting, row.provider_batches)
        table.add_row(
            label, Text(safe(row.model or "–")), count(row.limit), row.limit_source or "–", *map(count, numbers),
            moment(row.next_release_at, now), moment(row.idle_at, now),
        )  # fmt: skip
    return table


def _blocks(rows: Sequence[QuotaRow], now: float, width: int, glyphs: Glyphs | None) -> RenderableType:
    from rich.console import Group as Lines
    from rich.text import Text

    from sluicegate.cli.screen import Glyphs, gate

    lines: list[Text] = []
    for row in rows:
        lines += gate(row, width, glyphs or Glyphs())
        lines.append(Text(f"waiting {row.waiting:,}   model {safe(row.model or '–')}"))
        lines.append(
            Text(f"next release {moment(row.next_release_at, now)}   idle {moment(row.idle_at, now)}", style="dim")
        )
        lines.append(Text())
    return Lines(*lines)


def moment(at: float | None, now: float) -> str:
    """A coming moment, and how far off it is."""
    if at is None:
        return "–"
    return "now" if at <= now + 1 else f"{clock(at, now)} (in {span(at - now)})"


DEPLOYMENT = Parameter(name="DEPLOYMENT", help="The deployment's name (on OpenAI: the model).")

OVERRIDE_EPILOGUE: Final = """
Every live run on this data folder obeys at its next turn.

Exit codes:
  0  done
  2  usage or settings
  4  the provider does not answer; try again
  5  the provider refuses (sign-in)"""


@app.command(help_epilogue="Examples:\n  sluicegate quota pause gpt-4.1-batch\n" + OVERRIDE_EPILOGUE)
def pause(deployment: Annotated[str, DEPLOYMENT], /, *, common: Where | None = None) -> int:
    """Admit nothing more to a deployment until it is resumed; what is at the provider goes on."""
    return _override(deployment, "pause", None, common or Where())


@app.command(help_epilogue="Examples:\n  sluicegate quota resume gpt-4.1-batch\n" + OVERRIDE_EPILOGUE)
def resume(deployment: Annotated[str, DEPLOYMENT], /, *, common: Where | None = None) -> int:
    """Admit to a paused deployment again."""
    return _override(deployment, "resume", None, common or Where())


@app.command(
    name="set-limit",
    help_epilogue="Examples:\n  sluicegate quota set-limit gpt-4.1-batch 2M\n"
    "  sluicegate quota set-limit gpt-4.1-batch none\n" + OVERRIDE_EPILOGUE,
)
def set_limit(
    deployment: Annotated[str, DEPLOYMENT],
    limit: Annotated[str, Parameter(name="LIMIT", help="Tokens, as 30K or 1.5M; none takes the override back.")],
    /,
    *,
    common: Where | None = None,
) -> int:
    """Cap a deployment's enqueued tokens by hand, for this data folder, until it is taken back."""
    from sluicegate.core.limits import parse_tokens

    tokens: int | None = None
    if limit.lower() != "none":
        try:
            tokens = parse_tokens(limit)
        except ValueError as error:
            raise UsageError(f"LIMIT: {error}") from None
        if tokens < 1:
            raise UsageError("LIMIT must be at least 1; `sluicegate quota pause` admits nothing")
    return _override(deployment, "set-limit", tokens, common or Where())


def _override(
    deployment: str, action: Literal["pause", "resume", "set-limit"], limit: int | None, common: Where
) -> int:
    settings = load(common)
    from sluicegate import api

    if action == "set-limit":
        row = asyncio.run(api.quota_set_limit_async(deployment, limit, settings=settings))
    else:
        act = api.quota_pause_async if action == "pause" else api.quota_resume_async
        row = asyncio.run(act(deployment, settings=settings))
    if common.json:
        output.print_json(asdict(row))
    else:
        out = output.console()
        out.print(show([row], now=time.time(), width=out.width, glyphs=glyphs_of(out)))
    return 0
