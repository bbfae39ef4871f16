"""From paths to a run in the rows: copy the inputs in, check them, find out whether this work is known already."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from sluicegate.core import belief, join
from sluicegate.core.check import Problem
from sluicegate.core.index import Flag, Group
from sluicegate.core.join import Settled
from sluicegate.core.lifecycle import RunState
from sluicegate.core.rows import BatchRow, DemandRow, RunRow, scope
from sluicegate.core.rules import CheckRules
from sluicegate.core.waiting import Spans
from sluicegate.errors import InputChanged, InputRefused, UsageError
from sluicegate.ports import Tx, Workers
from sluicegate.service.context import Context
from sluicegate.service.giving_up import in_one
from sluicegate.service.intake import CopiedInput, InputSource, Inspection, copy_in_sync, inspect
from sluicegate.service.names import result_key, set_aside, sidecar_key
from sluicegate.service.work import Work, load

SAID: Final = 3
"""Problems that a refusal tells in its sentence; it carries all that are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the person asked for.

    Attributes:
        inputs: Paths as given; ``-`` is standard input.
        output, errors: A file for one input, a folder for several; None: beside each input.
        redirect: ``--deployment``; ``cap``: ``--limit``; ``names``: name in the inputs → deployment.
        tenant, due_at: Of a batch at the gateway.
        handed_in: The input is a file that the person has not seen (``submit``).
    """

    inputs: tuple[str, ...]
    output: Path | None = None
    errors: Path | None = None
    redirect: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    cap: int | None = None
    tenant: str | None = None
    due_at: float | None = None
    skip_bad: bool = False
    new: bool = False
    handed_in: bool = False


def destinations(request: Request) -> list[tuple[str, str]]:
    """The output and the error file of each input, absolute.

    Raises:
        UsageError: two inputs would write the same file, a file would overwrite an input, or cannot be written at all.
    """
    several = len(request.inputs) > 1
    found = []
    for name in request.inputs:
        base = Path("stdin" if name == "-" else name).name
        for suffix in (".gz", ".jsonl", ".json"):
            base = base.removesuffix(suffix)
        folder = Path.cwd() if name == "-" else Path(name).absolute().parent
        pair: list[str] = []
        for given, kind in ((request.output, "results"), (request.errors, "errors")):
            if given is None and kind == "errors" and request.output is not None:
                # Beside the results, and named after them.
                out = Path(pair[0])
                stem = out.name.removesuffix(".jsonl").removesuffix(".results")
                pair.append(str(out.with_name(f"{stem}.errors.jsonl")))
            elif given is None:
                pair.append(str(folder / f"{base}.{kind}.jsonl"))
            elif several or given.is_dir():
                pair.append(str(given.absolute() / f"{base}.{kind}.jsonl"))
            else:
                pair.append(str(given.absolute()))
        found.append((pair[0], pair[1]))
    every = [path for pair in found for path in pair]
    sources = [str(Path(name).absolute()) for name in request.inputs if name != "-"]
    if len(set(every)) < len(every):
        raise UsageError("two inputs would write the same result file; name different folders with -o and --errors")
    for path in set(every) & set(sources):
        raise UsageError(f"{path} is an input and would be overwritten by results; name another file with -o")
    for path in every:
        folder = next(parent for parent in Path(path).parents if parent.exists())
        if not os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
            raise UsageError(f"{path} cannot be written: {folder} is not a folder to write in; name another with -o")
    return found


async def copy_inputs(ctx: Context, request: Request, on_bytes: Callable[[int, int], None] | None) -> list[CopiedInput]:
    """Copy each input into the data folder, aside: :func:`enter` and :func:`resume` give the copies their names.

    Until then no row names them, so whoever prunes cannot tell that they are wanted: they are nobody else's.
    """
    copied: list[CopiedInput] = []
    try:
        for name in request.inputs:
            aside = ctx.blobs.path(f"inputs/{ctx.ids.new('copying')}")
            one = await ctx.workers.blocking(copy_in_sync, name, aside, on_bytes)
            copied.append(replace(one, aside=aside))
    except BaseException:
        drop_copies(copied)
        raise
    return copied


def drop_copies(copied: Iterable[CopiedInput]) -> None:
    """Delete the copies that have no name yet."""
    for one in copied:
        if one.aside is not None:
            one.aside.unlink(missing_ok=True)


def _name_copies(ctx: Context, copied: Iterable[CopiedInput]) -> None:
    """Within the transaction whose rows name them: no prune comes between."""
    for one in copied:
        if one.aside is not None and one.aside.exists():  # a transaction may be tried again
            one.aside.replace(ctx.blobs.path(input_key(one.sha256)))


def input_key(sha256: str) -> str:
    """The blob key of an input's copy."""
    return f"inputs/{sha256}.jsonl"


def digest_of(copied: Sequence[CopiedInput]) -> str:
    """What a run is: the SHA-256 of its inputs' SHA-256 values, in order."""
    return hashlib.sha256("\n".join(one.sha256 for one in copied).encode()).hexdigest()


async def known_run(ctx: Context, request: Request, digest: str) -> RunRow | None:
    """The run of the same inputs on the same resource, if there is one.

    Raises:
        InputChanged: a path that an earlier run read has other content now.
    """
    if request.new:
        return None

    def read(tx: Tx) -> tuple[list[RunRow], list[tuple[BatchRow, RunRow | None]]]:
        return tx.runs(digest=digest), [(batch, tx.run(batch.run)) for batch in tx.batches()]

    runs, batches = await ctx.store.transact(read)
    mine = [run for run in runs if run.resource == ctx.backend.resource]
    if mine:
        return mine[0]
    paths = {str(Path(name).absolute()) for name in request.inputs if name != "-"}
    for batch, run in batches:
        if (
            batch.name in paths
            and run is not None
            and run.digest != digest
            and len(request.inputs) == _count(batches, run.id)
        ):
            state = "unfinished" if not run.state.final else "finished"
            raise InputChanged(
                f"{batch.name} has other content than when the {state} run {run.id} read it; nothing was submitted. "
                "Use --new to run it as new work, or restore the file to go on with the old run"
            )
    return None


def _count(batches: list[tuple[BatchRow, RunRow | None]], run: str) -> int:
    return sum(1 for batch, _ in batches if batch.run == run)


async def check(
    ctx: Context, request: Request, copied: Sequence[CopiedInput], rules: CheckRules,
    on_bytes: Callable[[int, int], None] | None, workers: Workers | None = None,
) -> Inspection:  # fmt: skip
    """Check copied inputs, in ``workers`` or the context's. Raises nothing: the inspection has the problems."""
    sources = [
        InputSource(name=name, path=one.aside or ctx.blobs.path(input_key(one.sha256)))
        for name, one in zip(request.inputs, copied, strict=True)
    ]
    return await inspect(
        sources, rules=rules, workers=workers or ctx.workers, counter=ctx.counter, on_progress=on_bytes
    )


def refuse_errors(inspection: Inspection, request: Request) -> None:
    """Raise InputRefused if the check found errors that are not to be skipped."""
    count = inspection.problems.errors
    if count and not (request.skip_bad and any(_good(index.flags) for index in inspection.indexes)):
        problems = [problem for problem in inspection.problems.listed if problem.severity == "error"]
        where = "the requests" if request.handed_in else ", ".join(request.inputs)
        said = "; ".join(map(_in_short, problems[:SAID]))
        # What was read from a pipe or handed in cannot be read again.
        again = "" if request.handed_in or "-" in request.inputs else "`sluicegate check` lists them; "
        raise InputRefused(
            f"the check found {count:,} {'error' if count == 1 else 'errors'} in {where}; nothing was submitted "
            f"({said}{'; …' if count > SAID else ''}). {again}"
            "--skip-bad runs the good lines and puts the bad ones in the error file",
            problems=tuple(map(asdict, problems)),
        )


def _in_short(problem: Problem) -> str:
    """A problem without its remedy; what is wrong with a file as a whole has no line."""
    return (f"line {problem.line:,}: " if problem.line else "") + problem.message.rstrip(".")


def _good(flags: Sequence[int]) -> bool:
    return any(not flag & Flag.BAD for flag in flags)


async def enter(
    ctx: Context, request: Request, copied: Sequence[CopiedInput], inspection: Inspection, digest: str,
    also: Callable[[Tx, RunRow], None] | None = None,
) -> RunRow:  # fmt: skip
    """Write a new run into the rows, indexes first, then one transaction; or give the run that came before it.

    Args:
        also: What else that transaction writes of the run, new or not.
    """
    now = ctx.clock.now()
    run_id = ctx.ids.new("run")
    groups: list[Group] = []
    batches: list[BatchRow] = []
    first = 0
    for i, (one, index, (output, errors)) in enumerate(
        zip(copied, inspection.indexes, destinations(request), strict=True)
    ):
        groups += [group for group in index.groups if group not in groups]
        key = f"indexes/{run_id}-{i}"
        await ctx.blobs.write(key, _each(index.chunks()))
        name = request.inputs[i]
        batches.append(
            BatchRow(
                id=ctx.ids.new("batch"), run=run_id, ordinal=i, digest=one.sha256, input=input_key(one.sha256),
                index=key, bytes=one.bytes, first=first, requests=len(index), output=output, errors=errors,
                name=name if name == "-" else str(Path(name).absolute()),
            )
        )  # fmt: skip
        first += len(index)
    run = RunRow(
        id=run_id, digest=digest, state=RunState.ACTIVE, resource=ctx.backend.resource, dialect=ctx.backend.dialect,
        groups=msgspec.json.encode([(g.url, g.model) for g in groups]).decode(), redirect=request.redirect,
        cap=request.cap, requests=first, tokens=await ctx.workers.blocking(lambda: inspection.tokens), serial=0,
        created_at=now, tenant=request.tenant, due_at=request.due_at, names=names_text(request.names),
    )  # fmt: skip
    work = await ctx.workers.blocking(load, run, batches, ctx.blobs)
    await _set_bad_aside(ctx, run, work.order, inspection, batches)
    good = await ctx.workers.blocking(work.good)
    own = [batch.index for batch in batches]
    own += [sidecar_key(set_aside(run_id)), result_key(set_aside(run_id), join.OWN)]

    def write(tx: Tx) -> RunRow:
        # Another process may have entered the same inputs since known_run: two runs would pay for them twice.
        for other in [] if request.new else tx.runs(digest=digest):
            if other.resource == run.resource:
                for key in own:
                    ctx.blobs.path(key).unlink(missing_ok=True)
                if also is not None:
                    also(tx, other)
                return other
        _name_copies(ctx, copied)
        tx.insert(run, *batches)
        for group, spans in enumerate(good):
            tx.set_waiting(run.id, group, 0, spans)
        if run.tenant is not None:  # it may wait a while until it is driven, and quota rows count what waits
            _demand(tx, ctx, work, good, now)
        if also is not None:
            also(tx, run)
        return run

    return await ctx.store.transact(write)


def _demand(tx: Tx, ctx: Context, work: Work, waits: Sequence[Spans], now: float) -> None:
    """Write what a new run could submit, by deployment, as its driver will once it turns."""
    tokens: dict[str, int] = {}
    for group, spans in enumerate(waits):
        name = scope(work.run.resource, work.deployment_of(group))
        row = tx.deployment(name)
        known = belief.load(row.belief) if row is not None else belief.Belief()
        if spans:
            tokens[name] = tokens.get(name, 0) + known.charge(*work.sums(spans), ctx.policy.margin)
    for name, sum_ in tokens.items():
        tx.put_demand(DemandRow(run=work.run.id, deployment=name, tokens=sum_, cap=work.run.cap, at=now))


def names_text(names: Mapping[str, str]) -> str | None:
    """Names of deployments as a run's row keeps them."""
    return msgspec.json.encode(dict(names)).decode() if names else None


async def _set_bad_aside(
    ctx: Context, run: RunRow, order: Sequence[int] | None, inspection: Inspection, batches: list[BatchRow]
) -> None:
    """Error lines of ours, and their sidecar, for requests that ``--skip-bad`` keeps out."""
    if not inspection.bad:
        return
    positions = {ordinal: p for p, ordinal in enumerate(order)} if order is not None else None
    settled, lines, offset = Settled(), [], 0
    for bad in inspection.bad:
        ordinal = batches[bad.source].first + bad.ordinal
        line = join.error_line(bad.custom_id, bad.code, bad.message)
        settled.add(positions[ordinal] if positions else ordinal, join.OWN, True, offset, len(line))
        lines.append(line)
        offset += len(line) + 1
    name = set_aside(run.id)
    await ctx.blobs.write(result_key(name, join.OWN), in_one(b"\n".join(lines) + b"\n"))
    await ctx.blobs.write(sidecar_key(name), in_one(settled.to_bytes()))


async def resume(ctx: Context, request: Request, run: RunRow, copied: Sequence[CopiedInput] = ()) -> RunRow:
    """Take a known run up again: its files may go elsewhere now, and its limit and deployment may have changed.

    Args:
        copied: Fresh copies of its inputs, put in the place of those that it has.
    """
    targets = destinations(request)

    def write(tx: Tx) -> RunRow:
        for batch, (output, errors) in zip(tx.batches(run.id), targets, strict=True):
            if (batch.output, batch.errors) != (output, errors) or run.state.final:
                tx.update_batch(
                    batch.id, output=output, errors=errors, written=0, out_bytes=0, err_bytes=0, out_lines=0,
                    err_lines=0,
                )  # fmt: skip
        changes: dict[str, Any] = {"cap": request.cap, "redirect": request.redirect}
        if run.state is not RunState.ACTIVE:  # finished, or cancelled by hand: the same command goes on
            changes |= {"state": RunState.ACTIVE}
        tx.update_run(run.id, **changes)
        _name_copies(ctx, copied)
        return replace(run, **changes)

    return await ctx.store.transact(write)


async def take_up(
    ctx: Context, request: Request, copied: Sequence[CopiedInput], run: RunRow, finished: bool
) -> RunRow | None:
    """:func:`resume`, unless another process has just finished the run with its results where this request wants them."""
    batches = await ctx.store.transact(lambda tx: tx.batches(run.id))
    if finished and [(batch.output, batch.errors) for batch in batches] == destinations(request):
        return None
    return await resume(ctx, request, run, copied)


async def _each(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
