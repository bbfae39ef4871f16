"""The library: the same names, the same errors as the command line.

>>> import sluicegate
>>> result = sluicegate.run("requests.jsonl", output="results.jsonl", limit="30K")  # doctest: +SKIP
>>> result.completed, result.failed  # doctest: +SKIP
(1500, 0)
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from sluicegate.adapters.counters import default_counter
from sluicegate.adapters.workers import ThreadWorkers
from sluicegate.answers import Answers, is_ending, loop_in_thread
from sluicegate.checking import ask, dialect_of, quota_of, refuse_cost, report_of, rules_of
from sluicegate.core.limits import parse_tokens
from sluicegate.core.report import Event, Progress, QuotaRow, RunResult
from sluicegate.core.rows import RunRow, scope
from sluicegate.errors import UsageError
from sluicegate.ports import Backend, Tx, Workers
from sluicegate.service import overview, prepare, runs, watcher
from sluicegate.service.context import Context
from sluicegate.service.deployments import ensure_deployment
from sluicegate.service.intake import CopiedInput, InputSource, inspect, open_plain
from sluicegate.service.names import live_runs
from sluicegate.service.prune import prune as prune_runs
from sluicegate.service.retention import drop_old_litter
from sluicegate.settings import Settings
from sluicegate.wiring import context, rows

T = TypeVar("T")
Inputs = str | Path | Sequence[str | Path]


def run(
    inputs: Inputs, *, output: str | Path | None = None, errors: str | Path | None = None, **options: Any
) -> RunResult:
    """Answer every request of one or several JSONL files, never over the enqueued-token limit.

    Args:
        inputs: Paths of JSONL files (gzipped ones too); ``"-"`` is standard input.
        output, errors: Where results and errors go: files for one input, folders for several. Default: beside the
            input, ``NAME.results.jsonl`` and ``NAME.errors.jsonl``.
        options: ``skip_bad``, ``adopt``, ``new``, ``on_event``, ``on_progress``, and every setting by its name
            (``limit="30K"``, ``deployment=…``, ``base_url=…``; docs/settings.md).

    Returns:
        How it ended. ``exit_code`` 1 means that some requests ended in the error file.

    Raises:
        UsageError, InputRefused, Interrupted, ProviderRefused: see :mod:`sluicegate.errors`.
    """
    own = {key: options.pop(key) for key in RUN_OPTIONS & options.keys()}
    return _now(
        run_async(
            inputs, settings=settings_of(options), output=Path(output) if output else None,
            errors=Path(errors) if errors else None, **own,
        )
    )  # fmt: skip


RUN_OPTIONS = {"skip_bad", "adopt", "new", "on_event", "on_progress"}


def check(inputs: Inputs, *, ask_provider: bool = False, **options: Any) -> dict[str, Any]:
    """Check files before any submission; the object that ``sluicegate check --json`` prints (docs/check.md)."""
    return _now(check_async(inputs, settings=settings_of(options), ask_provider=ask_provider))


def quota(*, refresh: bool = True, **options: Any) -> list[QuotaRow]:
    """Enqueued tokens, now, per deployment: the number that the provider does not show."""
    return _now(quota_async(settings=settings_of(options), refresh=refresh))


def submit(requests: Iterable[dict[str, Any]], **options: Any) -> Iterator[dict[str, Any]]:
    """Answer requests from an iterable, and yield result lines in their order while later ones are still under way.

    The run is driven by a thread of its own. Whoever stops iterating stops it as Ctrl-C does: what is at the provider
    goes on there, and the same requests go on where they were.

    Args:
        requests: Objects of the Batch API's input format: ``custom_id``, ``method``, ``url``, ``body``. All are read
            before the first is sent.
        options: As for :func:`run`; ``on_event`` and ``on_progress`` are called in the run's thread.

    Yields:
        Result lines, and error lines where a request failed: each has ``custom_id``, ``response`` and ``error``.
    """
    start = _starter(options)
    _refuse_loop()
    with tempfile.TemporaryDirectory(prefix="sluicegate-") as name:
        folder = Path(name)
        with (folder / REQUESTS).open("w", encoding="utf-8") as out:
            out.writelines(map(_request_line, requests))
        if not (folder / REQUESTS).stat().st_size:
            return
        with loop_in_thread() as call:
            answers = call(_answers(folder, start))
            try:
                while lines := call(answers.more()):
                    yield from lines
            finally:
                if not is_ending():
                    call(answers.close())


async def submit_async(
    requests: Iterable[dict[str, Any]] | AsyncIterable[dict[str, Any]], **options: Any
) -> AsyncIterator[dict[str, Any]]:
    """:func:`submit` on the running event loop, from an iterable or an asynchronous one."""
    start = _starter(options)
    with tempfile.TemporaryDirectory(prefix="sluicegate-") as name:
        folder = Path(name)
        with (folder / REQUESTS).open("w", encoding="utf-8") as out:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    out.write(_request_line(request))
            else:
                out.writelines(map(_request_line, requests))
        if not (folder / REQUESTS).stat().st_size:
            return
        answers = await _answers(folder, start)
        try:
            while lines := await answers.more():
                for line in lines:
                    yield line
        finally:
            await answers.close()


REQUESTS: Final = "requests.jsonl"
"""What is handed in, as a file for as long as it takes."""


def _request_line(request: dict[str, Any]) -> str:
    return json.dumps(request, ensure_ascii=True) + "\n"


def _starter(options: dict[str, Any]) -> Callable[..., Coroutine[Any, Any, RunResult]]:
    own = {key: options.pop(key) for key in RUN_OPTIONS & options.keys()}
    return partial(run_async, settings=settings_of(options), handed_in=True, **own)


async def _answers(folder: Path, start: Callable[..., Coroutine[Any, Any, RunResult]]) -> Answers:
    output, errors = folder / "results.jsonl", folder / "errors.jsonl"
    return Answers(output, errors, partial(start, str(folder / REQUESTS), output=output, errors=errors))


def quota_pause(deployment: str, **options: Any) -> QuotaRow:
    """As ``sluicegate quota pause``; ``options`` are settings."""
    return _now(quota_pause_async(deployment, settings=settings_of(options)))


def quota_resume(deployment: str, **options: Any) -> QuotaRow:
    """As ``sluicegate quota resume``; ``options`` are settings."""
    return _now(quota_resume_async(deployment, settings=settings_of(options)))


def quota_set_limit(deployment: str, tokens: int | str | None, /, **options: Any) -> QuotaRow:
    """As ``sluicegate quota set-limit``; ``tokens`` as a number or as ``"30K"``, None takes the cap back.

    Raises:
        UsageError: it is no number of tokens.
    """
    try:
        cap = parse_tokens(tokens) if isinstance(tokens, str) else tokens
    except ValueError as error:
        raise UsageError(f"tokens: {error}") from None
    if cap is not None and cap < 1:
        raise UsageError("tokens must be at least 1; quota_pause admits nothing")
    return _now(quota_set_limit_async(deployment, cap, settings=settings_of(options)))


def batches_list(**options: Any) -> list[dict[str, Any]]:
    """As ``sluicegate batches list --json``; ``options`` are settings."""
    return _now(batches_list_async(settings=settings_of(options)))


def batches_show(id: str, **options: Any) -> dict[str, Any]:
    """As ``sluicegate batches show ID --json``; ``options`` are settings."""
    return _now(batches_show_async(id, settings=settings_of(options)))


def batches_cancel(id: str, **options: Any) -> dict[str, Any]:
    """As ``sluicegate batches cancel ID --json``; ``options`` are settings."""
    return _now(batches_cancel_async(id, settings=settings_of(options)))


def batches_salvage(id: str, **options: Any) -> dict[str, Any]:
    """As ``sluicegate batches salvage ID --json``; ``options`` are settings."""
    return _now(batches_salvage_async(id, settings=settings_of(options)))


def batches_forget(id: str, **options: Any) -> dict[str, Any]:
    """As ``sluicegate batches forget ID --json``; ``options`` are settings."""
    return _now(batches_forget_async(id, settings=settings_of(options)))


def cancel_run(inputs: Inputs, **options: Any) -> dict[str, Any]:
    """As ``sluicegate run INPUT… --cancel``; ``options`` are settings."""
    return _now(cancel_run_async(inputs, settings=settings_of(options)))


def prune(*, keep_days: float = 7.0, dry_run: bool = False, **options: Any) -> dict[str, Any]:
    """As ``sluicegate prune --json``; ``options`` are settings."""
    return _now(prune_async(settings=settings_of(options), keep_days=keep_days, dry_run=dry_run))


def settings_of(options: dict[str, Any]) -> Settings:
    """Settings from keyword arguments, the environment and sluicegate.toml."""
    given = options.pop("settings", None)
    if given is not None:
        if options:
            raise UsageError(f"give either settings= or single settings, not both ({', '.join(sorted(options))})")
        assert isinstance(given, Settings), "settings= takes a sluicegate.Settings"
        return given
    return Settings.load(options)


def _now(work: Coroutine[Any, Any, T]) -> T:
    try:
        _refuse_loop()
    except UsageError:
        work.close()
        raise
    return asyncio.run(work)


def _refuse_loop() -> None:
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise UsageError("this thread runs an event loop; use the _async function of the same name")


def _names(inputs: Inputs) -> tuple[str, ...]:
    several = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if not several:
        raise UsageError("no input was named; give at least one JSONL file, or - for standard input")
    names = tuple(str(name) for name in several)
    if len(set(names)) < len(names):
        raise UsageError("the same input is named twice; name each file once")
    return names


async def run_async(
    inputs: Inputs, *, settings: Settings, output: Path | None = None, errors: Path | None = None,
    skip_bad: bool = False, adopt: bool = False, new: bool = False, on_event: Callable[[Event], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None, on_check: Callable[[int, int], None] | None = None,
    on_report: Callable[[dict[str, Any]], None] | None = None, stop: asyncio.Event | None = None,
    on_written: Callable[[bytes], None] | None = None, handed_in: bool = False, backend: Backend | None = None,
    checkers: Workers | None = None,
) -> RunResult:  # fmt: skip
    """:func:`run` on the running event loop.

    Args:
        on_check: Called with (bytes checked, bytes in all). ``on_report``: called with the check's report before the
            first upload. ``stop``: when set, no new parts are cut and Interrupted is raised.
        on_written: Called with a byte for each further request whose line stands in a result file (0) or an error file
            (1), in input order. ``handed_in``: the input is a file that the person has not seen.
        backend: Another provider behind the same port, for tests.
        checkers: What counts in the check, closed when it is done; see :func:`check_async`.
    """
    request = prepare.Request(
        inputs=_names(inputs), output=output, errors=errors, redirect=settings.deployment, cap=settings.limit,
        skip_bad=skip_bad, new=new, handed_in=handed_in,
    )  # fmt: skip
    prepare.destinations(request)
    async with context(settings, listen=on_event, backend=backend) as ctx:
        started_at = ctx.clock.now()
        copied = await prepare.copy_inputs(ctx, request, on_check)
        try:
            digest = prepare.digest_of(copied)
            known = await prepare.known_run(ctx, request, digest)
            row = known or await _checked_in(ctx, request, copied, digest, settings, on_check, on_report, checkers)
            return await runs.perform(
                ctx, row, ways=runs.Ways(adopt=adopt, new=new), stop=stop or asyncio.Event(), show=on_progress,
                started_at=started_at, resumed=known is not None, written=on_written,
                take_up=partial(prepare.take_up, ctx, request, copied),
            )  # fmt: skip
        finally:
            prepare.drop_copies(copied)


async def _checked_in(
    ctx: Context, request: prepare.Request, copied: list[CopiedInput], digest: str, settings: Settings,
    on_check: Callable[[int, int], None] | None, on_report: Callable[[dict[str, Any]], None] | None,
    checkers: Workers | None,
) -> RunRow:  # fmt: skip
    """Check the inputs of new work and enter it into the rows."""
    try:
        rules = rules_of(settings, ctx.backend.dialect)
        inspection = await prepare.check(ctx, request, copied, rules, on_check, checkers)
    finally:
        if checkers is not None:
            await checkers.close()
    report = report_of(inspection, settings, ctx.backend.dialect)
    if on_report is not None:
        on_report(report)
    prepare.refuse_errors(inspection, request)
    refuse_cost(report, settings)
    return await prepare.enter(ctx, request, copied, inspection, digest)


async def check_async(
    inputs: Inputs, *, settings: Settings, ask_provider: bool = True,
    on_check: Callable[[int, int], None] | None = None, workers: Workers | None = None,
) -> dict[str, Any]:  # fmt: skip
    """:func:`check` on the running event loop; ``ask_provider`` needs credentials and only says so without them.

    Args:
        workers: What counts, closed at the end. Default: threads, since processes need a main module that can be
            imported again.
    """
    names = _names(inputs)
    workers = workers or ThreadWorkers(settings.workers or None)
    plain = [await asyncio.to_thread(open_plain, name) for name in names]
    dialect = dialect_of(settings)
    try:
        sources = [InputSource(name=name, path=one.path) for name, one in zip(names, plain, strict=True)]
        inspection = await inspect(
            sources, rules=rules_of(settings, dialect), workers=workers, counter=default_counter, on_progress=on_check
        )
    finally:
        await workers.close()
        for one in plain:
            one.close()
    report = report_of(inspection, settings, dialect)
    if ask_provider:
        report |= await ask(settings, inspection, report["by_model"], dialect)
    return report


async def quota_async(*, settings: Settings, refresh: bool = True) -> list[QuotaRow]:
    """:func:`quota` on the running event loop; ``refresh`` reads the provider's list first.

    Raises:
        BackendError: the list could not be read.
    """
    async with context(settings) as ctx:
        if refresh:
            await watcher.look(ctx, watcher.Sight(), at_least_s=0.0)
        live = live_runs(ctx)
        resource = ctx.backend.resource
        cap = settings.limit
        names = {row.deployment for row in await ctx.store.transact(lambda tx: tx.foreign(resource))} - {"*"}
        if settings.deployment is not None:
            names.add(settings.deployment)
        for name in sorted(names):
            await ensure_deployment(ctx, resource, name)

        def read(tx: Tx) -> list[QuotaRow]:
            now = ctx.clock.now()
            return [
                overview.quota(tx, row, ctx.policy, now, live, cap=cap) for row in tx.deployments(resource=resource)
            ]

        return await ctx.store.transact(read)


async def quota_pause_async(deployment: str, *, settings: Settings) -> QuotaRow:
    """Let nothing more go to a deployment, whoever runs work on this data folder, until it is resumed."""
    return await _override(settings, deployment, paused=True)


async def quota_resume_async(deployment: str, *, settings: Settings) -> QuotaRow:
    """Take a pause back."""
    return await _override(settings, deployment, paused=False)


async def quota_set_limit_async(deployment: str, limit: int | None, *, settings: Settings) -> QuotaRow:
    """Cap a deployment's enqueued tokens by hand for this data folder; None takes the cap back."""
    return await _override(settings, deployment, cap_override=limit)


async def _override(settings: Settings, deployment: str, **changes: Any) -> QuotaRow:
    async with context(settings) as ctx:
        await ensure_deployment(ctx, ctx.backend.resource, deployment)
        key = scope(ctx.backend.resource, deployment)
        await ctx.store.transact(lambda tx: tx.update_deployment(key, **changes))
        row, _ = await quota_of(ctx, deployment)
        return row


async def batches_list_async(*, settings: Settings) -> list[dict[str, Any]]:
    """Every run that the data folder knows, newest first."""
    async with rows(settings) as (store, _, _):
        return await store.transact(lambda tx: [runs.summary(tx, run) for run in tx.runs()])


async def batches_show_async(id: str, *, settings: Settings) -> dict[str, Any]:
    """A run, batch or part with the history of its decisions in words."""
    async with rows(settings) as (store, _, _):
        return await runs.describe(store, id)


async def batches_cancel_async(id: str, *, settings: Settings) -> dict[str, Any]:
    """Cancel what is at the provider for a run or part."""
    async with context(settings) as ctx:
        return await runs.cancel(ctx, id)


async def batches_salvage_async(id: str, *, settings: Settings) -> dict[str, Any]:
    """Let requests that failed for a passing reason wait again."""
    async with context(settings) as ctx:
        return await runs.salvage(ctx, id)


async def batches_forget_async(id: str, *, settings: Settings) -> dict[str, Any]:
    """Give up provider batches that are gone."""
    async with context(settings) as ctx:
        return await runs.forget(ctx, id)


async def cancel_run_async(inputs: Inputs, *, settings: Settings) -> dict[str, Any]:
    """Cancel what is at the provider for the run of these inputs.

    Raises:
        UsageError: no run of these inputs is known.
    """
    request = prepare.Request(inputs=_names(inputs))
    async with context(settings) as ctx:
        copied = await prepare.copy_inputs(ctx, request, None)
        prepare.drop_copies(copied)
        known = await prepare.known_run(ctx, request, prepare.digest_of(copied))
        if known is None:
            raise UsageError(f"no run of {', '.join(request.inputs)} is known, so there is nothing to cancel")
        return await runs.cancel(ctx, known.id)


async def prune_async(*, settings: Settings, keep_days: float, dry_run: bool) -> dict[str, Any]:
    """Remove what runs that finished more than ``keep_days`` ago keep in the data folder and at the provider."""
    async with context(settings) as ctx:
        done = await prune_runs(ctx, keep_s=keep_days * 86_400, dry_run=dry_run)
        done["bytes"] += await drop_old_litter(ctx, dry_run=dry_run)
        return done
