"""What stays in a data folder and at the provider, who writes there, and who may remove it."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from benchmarks import workload

from sluicegate import api
from sluicegate.core.report import Event, EventKind, Progress, RunResult
from sluicegate.errors import CostLimitExceeded, InputRefused, Interrupted, Unavailable, UsageError
from sluicegate.ports import Backend
from sluicegate.service.prune import GRACE_S, prune
from sluicegate.settings import Settings
from sluicegate.testing import RunningEmulator, local_emulator
from sluicegate.wiring import context

FAST: dict[str, Any] = {"rate": 40000, "validating": "0.1s", "start": "0.1s", "finalizing": "0.1s"}
KEPT = ("inputs", "indexes", "parts", "results")


@pytest.fixture
def provider() -> Iterator[RunningEmulator]:
    with local_emulator(limit="20K", **FAST) as running:
        yield running


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    workload.write(path, requests=20, tokens=2_000, largest=200)
    return path


def settings(provider: RunningEmulator, folder: Path, **more: Any) -> Settings:
    base = {"base_url": provider.openai_url, "api_key": "any", "state": str(folder / "state")}
    return Settings.load(base | {"poll": "0.1s", "limit": "20K"} | more)


async def run(source: Path, given: Settings, *, name: str = "out.jsonl", **more: Any) -> RunResult:
    return await api.run_async(str(source), settings=given, output=source.with_name(name), **more)


def kept(folder: Path) -> list[str]:
    return sorted(f"{name}/{one}" for name in KEPT for one in os.listdir(folder / "state" / name))


def files(provider: RunningEmulator) -> int:
    with openai.OpenAI(base_url=provider.openai_url, api_key="any") as client:
        return len(client.files.list().data)


class Meanwhile:
    """A backend that lets something else happen before each file that it deletes."""

    def __init__(self, backend: Backend, happens: Callable[[], Awaitable[object]]) -> None:
        self._backend, self._happens = backend, happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def delete_file(self, file_id: str) -> None:
        await self._happens()
        await self._backend.delete_file(file_id)


async def test_an_input_that_a_new_run_takes_while_the_old_one_is_pruned_stays(
    provider: RunningEmulator, source: Path, tmp_path: Path
) -> None:
    """Deleting at the provider takes minutes: what is wanted is decided with the rows of the moment of the removal."""
    given = settings(provider, tmp_path, keep_provider_files=True)
    await run(source, given)
    (copy,) = (one for one in kept(tmp_path) if one.startswith("inputs/"))
    new: list[str] = []

    async def once_more() -> None:
        if not new:
            new.append((await run(source, given, name="new.jsonl", new=True)).run)

    async with context(given) as plain, context(given, backend=Meanwhile(plain.backend, once_more)) as ctx:  # type: ignore[arg-type]
        await prune(ctx, keep_s=0.0, dry_run=False)

    assert [one["run"] for one in await api.batches_list_async(settings=given)] == new
    assert copy in kept(tmp_path)


async def test_a_run_that_is_pruned_is_nobody_elses_meanwhile(
    provider: RunningEmulator, source: Path, tmp_path: Path
) -> None:
    """The same command, while its finished run is being removed, waits and then says so: nothing is driven without rows."""
    given = settings(provider, tmp_path, keep_provider_files=True)
    await run(source, given)
    ends: list[asyncio.Task[RunResult]] = []

    async def again() -> None:
        follows = asyncio.Event()

        def hear(event: Event) -> None:
            if event.kind is EventKind.FOLLOWING:
                follows.set()

        if not ends:
            ends.append(asyncio.create_task(run(source, given, on_event=hear)))
            await follows.wait()

    async with context(given) as plain, context(given, backend=Meanwhile(plain.backend, again)) as ctx:  # type: ignore[arg-type]
        await prune(ctx, keep_s=0.0, dry_run=False)

    with pytest.raises(UsageError, match="prune"):
        await ends[0]


async def test_files_that_were_kept_are_removed_by_prune_whatever_the_setting_says_then(
    provider: RunningEmulator, source: Path, tmp_path: Path
) -> None:
    """`keep_provider_files` keeps them until then."""
    await run(source, settings(provider, tmp_path, keep_provider_files=True))
    assert files(provider) == 3

    given = settings(provider, tmp_path)
    done = await api.prune_async(settings=given, keep_days=0.0, dry_run=False)
    assert (len(done["runs"]), done["provider_files"], files(provider)) == (1, 3, 0)
    assert kept(tmp_path) == []


async def test_a_run_whose_files_the_provider_does_not_delete_now_is_kept_for_a_week(
    provider: RunningEmulator, source: Path, tmp_path: Path
) -> None:
    """Its rows are all that names them; what a person wants gone goes in the end."""
    given = settings(provider, tmp_path, keep_provider_files=True)
    ran = (await run(source, given)).run

    async def away() -> None:
        raise Unavailable("it does not answer")

    async with context(given) as plain, context(given, backend=Meanwhile(plain.backend, away)) as ctx:  # type: ignore[arg-type]
        early = await prune(ctx, keep_s=0.0, dry_run=False)
        late = await prune(ctx, keep_s=-GRACE_S - 1.0, dry_run=False)

    assert (early["runs"], early["failed"], early["provider_files"]) == ([], 1, 0)
    assert (late["runs"], late["failed"], late["provider_files"]) == ([ran], 0, 0)


async def test_another_address_neither_cancels_nor_prunes(
    provider: RunningEmulator, source: Path, tmp_path: Path
) -> None:
    """A 404 of a provider that never had the batch is no proof that it is gone."""
    given = settings(provider, tmp_path, keep_provider_files=True)
    with local_emulator() as other:
        elsewhere = settings(other, tmp_path)
        await run(source, given)
        done = await api.prune_async(settings=elsewhere, keep_days=0.0, dry_run=False)
        assert done["runs"] == [] and len(done["elsewhere"]) == 1
        assert files(provider) == 3

        provider.fault("batch", "stuck_in_progress")
        stop, accepted = asyncio.Event(), asyncio.Event()

        def hear(event: Event) -> None:
            if event.kind is EventKind.ACCEPTED:
                accepted.set()

        task = asyncio.create_task(run(source, given, new=True, stop=stop, on_event=hear))
        await accepted.wait()
        (unfinished,) = (
            one for one in await api.batches_list_async(settings=given) if one["finished_at"] is None
        )  # fmt: skip
        with pytest.raises(UsageError, match="so nothing was cancelled"):
            await api.batches_cancel_async(unfinished["run"], settings=elsewhere)
        stop.set()
        with pytest.raises(Interrupted):
            await task


@pytest.mark.parametrize("why", ["bad lines", "cost", "another folder's"])
async def test_work_that_is_refused_leaves_nothing_in_the_data_folder(
    provider: RunningEmulator, source: Path, tmp_path: Path, why: str
) -> None:
    """No copy, no index: nobody would ever delete them."""
    given = settings(provider, tmp_path)
    refusal: type[Exception] = UsageError
    if why == "bad lines":
        refusal = InputRefused
        source.write_text("{}\n")
    elif why == "cost":
        refusal = CostLimitExceeded
        given = settings(provider, tmp_path, max_cost="0.0000001")
    else:
        await run(source, settings(provider, tmp_path / "first"))

    with pytest.raises(refusal):
        await run(source, given)
    assert kept(tmp_path) == []


async def test_prune_removes_what_a_death_left_after_a_day(
    provider: RunningEmulator, source: Path, tmp_path: Path
) -> None:
    """A copy that no row names is litter, but not while somebody may be making it."""
    given = settings(provider, tmp_path)
    await run(source, given)
    before = kept(tmp_path)
    inputs = tmp_path / "state" / "inputs"
    for name, age in (("copying_old", 90_000), ("copying_new", 0)):
        (inputs / name).write_text("x")
        os.utime(inputs / name, (inputs.stat().st_mtime - age,) * 2)

    done = await api.prune_async(settings=given, keep_days=1.0, dry_run=False)
    assert done["bytes"] == 1
    assert kept(tmp_path) == sorted([*before, "inputs/copying_new"])


async def test_a_second_process_that_wants_the_results_elsewhere_gets_them_there(source: Path, tmp_path: Path) -> None:
    """It follows the first, and then writes them where it was told to."""
    with local_emulator(clock="hand", **FAST) as provider:
        given = settings(provider, tmp_path)
        follows, starts = asyncio.Event(), asyncio.Event()
        told = {EventKind.RUN_STARTED: starts, EventKind.FOLLOWING: follows}
        heard: list[EventKind] = []
        seen: list[Progress] = []

        def hear(event: Event) -> None:
            if event.kind in told:
                told[event.kind].set()

        def hear_all(event: Event) -> None:
            heard.append(event.kind)
            hear(event)

        first = asyncio.create_task(run(source, given, name="first.jsonl", on_event=hear))
        await starts.wait()
        second = asyncio.create_task(
            run(source, given, name="second.jsonl", on_event=hear_all, on_progress=seen.append)
        )
        await follows.wait()
        while not (first.done() and second.done()):
            await asyncio.to_thread(provider.advance, "1s")
        batches = provider.report()["batches"]

    assert (await first).run == (await second).run
    assert source.with_name("second.jsonl").read_bytes() == source.with_name("first.jsonl").read_bytes()
    assert batches == 1
    assert heard.count(EventKind.FOLLOWING) == 1
    assert EventKind.COLLECTED in heard and EventKind.RUN_FINISHED in heard
    assert seen


async def test_what_was_refused_last_is_known_to_whoever_follows(source: Path, tmp_path: Path) -> None:
    """And to the driver itself: `last_refusal` of the progress is the event's sentence."""
    with local_emulator(fail_fast=True, limit="900", headers=False, **FAST) as provider:
        told: list[Event] = []
        seen: list[Progress] = []
        given = settings(provider, tmp_path, limit=None)
        await run(source, given, on_event=told.append, on_progress=seen.append)

    (refused, *_) = (event.sentence for event in told if event.kind is EventKind.REFUSED)
    assert refused in {progress.last_refusal for progress in seen}


async def test_what_only_reads_the_data_folder_needs_no_credentials(
    provider: RunningEmulator, source: Path, tmp_path: Path
) -> None:
    """`batches list` and `batches show` work without a key and without a network."""
    given = settings(provider, tmp_path)
    done = await run(source, given)
    offline = Settings.load({"state": str(given.state)})

    assert [one["run"] for one in await api.batches_list_async(settings=offline)] == [done.run]
    assert (await api.batches_show_async(done.run, settings=offline))["run"]["run"] == done.run
