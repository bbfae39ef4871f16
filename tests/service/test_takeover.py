"""Starts, stops, kills and refusals in an order that has gone wrong once: nothing is run twice, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sluicegate.core.lifecycle import RunState, Stage
from sluicegate.core.types import Accepted, BatchPage, BatchStatus, ProviderBatch, RemoteFile
from sluicegate.errors import (
    AuthenticationFailed,
    Conflict,
    Interrupted,
    NotFound,
    OutcomeUnknown,
    ProviderRefused,
    Throttled,
    TokenLimitExceeded,
    Unavailable,
)
from sluicegate.service import foreign, prepare, runs, watcher
from tests.service.processes import (
    ACCOUNT,
    REQUESTS,
    Machine,
    Plain,
    kill,
    parts,
    play,
    stages,
    the_run,
    until,
)
from tests.simulation.world import VirtualClock

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

DELETED_AT_ONCE = 10
"""Deletes of one file in two minutes, at most: about one a minute and a first one."""


class Mute(Plain):
    """Commits every create at once and never answers it: the process is killed before."""

    async def create(self, **given: Any) -> Accepted:
        await super().create(**given)
        await asyncio.sleep(1e9)
        raise AssertionError("killed long before")


def test_a_follower_that_is_stopped_touches_nothing(tmp_path: Path) -> None:
    """It has no lock: the run's creates, files and reservations are the driver's."""

    class Slow(Plain):
        async def create(self, **given: Any) -> Accepted:
            answer = await super().create(**given)
            await asyncio.sleep(25.0)
            return answer

    async def story() -> None:
        here = Machine(tmp_path / "a")
        here.world.list_lag_s = 20.0
        driver, follower = here.process("driver", Slow(here.world)), here.process("follower")
        driving = asyncio.ensure_future(here.run(driver))
        await asyncio.sleep(12.0)
        stop = asyncio.Event()
        following = asyncio.ensure_future(here.run(follower, stop=stop, show=True))
        await asyncio.sleep(3.0)
        before = await stages(driver)
        stop.set()

        with pytest.raises(Interrupted, match="goes on"):
            await following
        assert await stages(driver) == before and before[Stage.SUBMITTING]
        assert (await driving).completed == REQUESTS and here.world.model.executed_again == 0

    play(story())


@pytest.mark.parametrize("trouble", ["401", "403 on delete", "409 on delete"])
def test_a_lost_create_stays_unsettled_until_the_list_can_be_read(tmp_path: Path, trouble: str) -> None:
    """A start with an expired token, or that may not delete, gives nothing up; the next one settles it."""

    class Refusing(Plain):
        looks = 0

        async def list_batches(self, **given: Any) -> BatchPage:
            self.looks += 1
            if trouble == "401":
                await asyncio.sleep(0.2 if self.looks == 1 else 0.05)
                raise AuthenticationFailed("HTTP 401: the token has expired")
            return await super().list_batches(**given)

        async def delete_file(self, file_id: str) -> None:
            if trouble == "403 on delete":
                raise AuthenticationFailed("HTTP 403")
            if trouble == "409 on delete":
                raise Conflict("the file is used by a batch", status=409)
            await super().delete_file(file_id)

    async def story() -> None:
        here = Machine(tmp_path / "a")
        here.world.list_lag_s = 0.0 if trouble == "401" else 30.0
        first = asyncio.ensure_future(here.run(here.process("first", Mute(here.world))))
        await asyncio.sleep(3.0)
        await kill(first)
        here.locks.clear()

        second = here.process("second", Refusing(here.world))
        trying = asyncio.ensure_future(here.run(second))
        await asyncio.sleep(5.0)
        unsettled = await parts(second, Stage.SUBMITTING)
        assert unsettled and not await parts(second, Stage.VOID)
        await kill(trying)
        here.locks.clear()
        await asyncio.sleep(here.world.list_lag_s)

        third = await here.run(here.process("third"))
        assert third.completed == REQUESTS and here.world.model.executed_again == 0

    play(story())


def test_a_create_that_meets_a_conflict_is_looked_for_and_not_given_up(tmp_path: Path) -> None:
    """409 ends no run: something is under way with it, and the list tells what became of it."""

    class Busy(Plain):
        times = 0

        async def create(self, **given: Any) -> Accepted:
            answer = await super().create(**given)
            Busy.times += 1
            if Busy.times == 1:
                raise Conflict("another create is under way", status=409)
            return answer

    async def story() -> None:
        here = Machine(tmp_path / "a")
        result = await here.run(here.process("one", Busy(here.world)))

        assert result.completed == REQUESTS and here.world.model.executed_again == 0

    play(story())


def test_a_batch_that_was_made_though_the_answer_was_a_refusal_is_cancelled(tmp_path: Path) -> None:
    """Something on the way sent a create twice, and the second was refused: the first must not run beside its requests."""

    class Doubled(Plain):
        creates = 0

        async def create(self, **given: Any) -> Accepted:
            self.creates += 1
            refused = self.creates == 2
            answer = await super().create(**given)
            if refused:
                raise TokenLimitExceeded("the second of the two was refused", limit=None)
            return answer

    async def story() -> None:
        here = Machine(tmp_path / "a", replace(ACCOUNT, validating_s=40.0))
        result = await here.run(here.process("one", Doubled(here.world)))

        statuses = [batch.status for batch in here.world.model.batches.values()]
        assert statuses.count("cancelled") == 1
        assert result.completed == REQUESTS and here.world.model.executed_again == 0

    play(story())


def test_an_adoption_that_is_broken_off_is_done_by_the_next_start(tmp_path: Path) -> None:
    """All of the first folder's batches, or none: half of them would be paid for again."""

    class Dies(Plain):
        reads = 0

        async def download(self, file_id: str, *, offset: int = 0) -> AsyncIterator[bytes]:
            self.reads += 1
            if self.reads == 3:
                await asyncio.sleep(1e9)
            async for chunk in super().download(file_id, offset=offset):
                yield chunk

    async def story() -> None:
        here = Machine(tmp_path / "a", replace(ACCOUNT, rate=400))
        lost = asyncio.ensure_future(here.run(here.process("lost", state="first")))
        await asyncio.sleep(60.0)
        await kill(lost)
        here.locks.clear()
        adopting = asyncio.ensure_future(
            here.run(here.process("dies", Dies(here.world), state="second"), ways=runs.Ways(adopt=True))
        )
        await asyncio.sleep(5.0)
        await kill(adopting)
        here.locks.clear()

        result = await here.run(here.process("again", state="second"), ways=runs.Ways(adopt=True))
        assert result.completed == REQUESTS and here.world.model.executed_again == 0

    play(story())


def test_results_that_are_not_there_yet_are_waited_for(tmp_path: Path) -> None:
    """A 404 right after the batch's end is no proof that answered requests have no answer."""

    class Late(Plain):
        since: dict[str, float]

        async def download(self, file_id: str, *, offset: int = 0) -> AsyncIterator[bytes]:
            now = VirtualClock().now()
            if file_id.startswith("out:") and now < self.since.setdefault(file_id, now) + 90.0:
                raise NotFound(f"No such File object: {file_id}", status=404)
            async for chunk in super().download(file_id, offset=offset):
                yield chunk

    async def story() -> None:
        here = Machine(tmp_path / "a")
        backend = Late(here.world)
        backend.since = {}
        result = await here.run(here.process("one", backend))

        assert result.completed == REQUESTS and here.world.model.executed_again == 0

    play(story())


def test_a_run_that_was_cancelled_by_hand_goes_on_with_the_same_command(tmp_path: Path) -> None:
    """What came home is kept, nothing stays reserved, and the rest is answered."""

    async def story() -> None:
        here = Machine(tmp_path / "a")
        driver = here.process("driver")
        driving = asyncio.ensure_future(here.run(driver))
        await asyncio.sleep(14.0)
        run = await the_run(driver)
        told = await runs.cancel(here.process("other"), run.id)
        assert told["cancelled"]
        with pytest.raises(Interrupted, match="cancelled by hand"):
            await driving
        assert not await parts(driver, Stage.RESERVED)

        result = await here.run(here.process("again"))
        assert result.completed == REQUESTS and here.world.model.executed_again == 0
        assert (await the_run(driver)).state is RunState.FINISHED

    play(story())


def test_a_lost_create_is_found_though_our_clock_is_hours_ahead(tmp_path: Path) -> None:
    """The newest entries of the list are compared whatever time they say."""

    class Ahead(VirtualClock):
        def now(self) -> float:
            return super().now() + 2 * 3_600.0

    class Loses(Plain):
        creates = 0

        async def create(self, **given: Any) -> Accepted:
            answer = await super().create(**given)
            self.creates += 1
            if self.creates == 3:
                raise OutcomeUnknown("no answer")
            return answer

    async def story() -> None:
        here = Machine(tmp_path / "a", replace(ACCOUNT, rate=60_000, validating_s=0.3, start_s=0.1, finalizing_s=0.1))
        result = await here.run(here.process("one", Loses(here.world), clock=Ahead()))

        assert result.completed == REQUESTS and here.world.model.executed_again == 0

    play(story())


def test_batches_known_under_another_project_are_no_strangers(tmp_path: Path) -> None:
    """The same account under two names: what this folder submitted itself is not adopted, and nothing breaks."""

    class Project(Plain):
        resource = "simulated#project"

    async def story() -> None:
        here = Machine(tmp_path / "a")
        await here.run(here.process("one"))
        result = await here.run(here.process("two", Project(here.world)), ways=runs.Ways(adopt=True))

        assert result.completed == REQUESTS

    play(story())


@pytest.mark.parametrize("error", [Unavailable("500"), AuthenticationFailed("403"), ProviderRefused("405")])
def test_files_that_cannot_be_deleted_are_left_for_later(tmp_path: Path, error: Exception) -> None:
    """No run ends for want of tidiness, and nobody is asked again and again."""

    class Keeps(Plain):
        deletes = 0

        async def delete_file(self, file_id: str) -> None:
            self.deletes += 1
            raise error

    async def story() -> None:
        here = Machine(tmp_path / "a", replace(ACCOUNT, limit=8_000, rate=600, fail_fast=True))
        backend = Keeps(here.world)
        ctx = here.process("one", backend)
        running = asyncio.ensure_future(here.run(ctx))
        await until(lambda: _any(parts(ctx, Stage.COLLECTED)))
        at_first = backend.deletes
        collected = len(await parts(ctx, Stage.COLLECTED, Stage.REFUSED))
        await asyncio.sleep(40.0)
        new = len(await parts(ctx, Stage.COLLECTED, Stage.REFUSED)) - collected

        assert backend.deletes - at_first <= new + DELETED_AT_ONCE
        assert (await running).completed == REQUESTS

    async def _any(found: Any) -> bool:
        return bool(await found)

    play(story())


def test_retry_after_nothing_is_no_reason_not_to_pause(tmp_path: Path) -> None:
    """A provider that answers 429 with ``Retry-After: 0`` is asked ever more seldom."""

    class Zero(Plain):
        creates = 0

        async def create(self, **given: Any) -> Accepted:
            self.creates += 1
            raise Throttled("slow down", retry_after_s=0.0)

    async def story() -> None:
        here = Machine(tmp_path / "a")
        backend = Zero(here.world)
        running = asyncio.ensure_future(here.run(here.process("one", backend)))
        await asyncio.sleep(60.0)
        lanes = 3

        assert 3 <= backend.creates <= lanes * 9
        await kill(running)

    play(story())


@pytest.mark.parametrize("slow", ["upload", "file"])
def test_nothing_that_was_reserved_is_created_after_a_cancel(tmp_path: Path, slow: str) -> None:
    """A gateway's client cancelled: parts whose files are being uploaded, or processed, go no further; no file stays."""

    class Slow(Plain):
        async def upload(self, *path: Any, **given: Any) -> RemoteFile:
            await asyncio.sleep(6.0 if slow == "upload" else 0.0)
            return await super().upload(*path, **given)

        async def file(self, file_id: str) -> RemoteFile:
            await asyncio.sleep(6.0 if slow == "file" else 0.0)
            return await super().file(file_id)

    async def story() -> None:
        here = Machine(tmp_path / "a")
        ctx = here.process("one", Slow(here.world))
        running = asyncio.ensure_future(here.run(ctx))
        await until(lambda: _reserved(ctx))
        run = await the_run(ctx)
        under_way = {part.id for part in await parts(ctx, Stage.SUBMITTING, Stage.HELD)}
        await ctx.store.transact(lambda tx: tx.update_run(run.id, closing="batch_cancelled: it was cancelled"))
        await running

        made = {part.id for part in await parts(ctx) if part.provider_batch}
        assert made <= under_way
        inputs = [name for name, _, _ in here.world.files.values()]
        assert len(inputs) == len(under_way - made)  # nothing of what was withdrawn stays at the provider

    async def _reserved(ctx: Any) -> bool:
        return len(await parts(ctx, Stage.RESERVED)) >= 5

    play(story())


def test_others_batches_that_could_not_be_read_are_estimated_again(tmp_path: Path) -> None:
    """A guess at a batch that tells nothing yet is not kept once its file can be read."""

    class Flaky(Plain):
        asked = 0

        async def file(self, file_id: str) -> RemoteFile:
            self.asked += 1
            if self.asked == 1:
                raise Unavailable("502", status=502)
            return RemoteFile(id=file_id, filename="theirs.jsonl", bytes=400_000_000, status="processed")

    async def story() -> None:
        here = Machine(tmp_path / "a")
        ctx = here.process("one", Flaky(here.world))
        theirs = ProviderBatch(
            id="theirs", status=BatchStatus.VALIDATING, model="m", input_file_id="file-1", created_at=1.0
        )
        booked = []
        for _ in range(3):
            await foreign.observe(ctx, "simulated", [theirs])
            (row,) = await ctx.store.transact(lambda tx: tx.foreign("simulated"))
            booked.append(row.tokens)

        assert booked[0] < booked[1] == booked[2] == 100_000_000

    play(story())


def test_a_first_look_at_a_very_long_list_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ran out of pages is not begun again before the poll is over."""
    monkeypatch.setattr(watcher, "FIRST_PAGES_MAX", 2)
    monkeypatch.setattr(watcher, "PAGES_MAX", 2)

    class Endless(Plain):
        looks = 0

        async def list_batches(self, *, after: str | None = None, limit: int = 100) -> BatchPage:
            self.looks += 1
            await asyncio.sleep(0.05)
            first, now = int(after or 0), VirtualClock().now()
            batches = tuple(
                ProviderBatch(id=f"x{i}", status=BatchStatus.COMPLETED, created_at=now - i)
                for i in range(first, first + limit)
            )
            return BatchPage(batches=batches, next_after=str(first + limit))

    async def story() -> None:
        here = Machine(tmp_path / "a")
        backend = Endless(here.world)
        ctx = here.process("one", backend, poll_s=60.0, poll_max_s=600.0)
        running = asyncio.ensure_future(here.run(ctx, ways=runs.Ways(new=True)))
        await asyncio.sleep(50.0)

        assert backend.looks <= 2
        await kill(running)

    play(story())


def test_a_clock_that_was_set_back_does_not_stop_the_looks(tmp_path: Path) -> None:
    """A last look that lies in the future was made before that."""

    class Movable(VirtualClock):
        back_s = 0.0

        def now(self) -> float:
            return super().now() - self.back_s

    async def story() -> None:
        here = Machine(tmp_path / "a")
        clock = Movable()
        ctx = here.process("one", clock=clock)
        running = asyncio.ensure_future(here.run(ctx))
        await asyncio.sleep(8.0)
        clock.back_s = 7_200.0
        began = VirtualClock().now()
        await running

        assert VirtualClock().now() - began < 3_600.0
        assert here.answers() == REQUESTS

    play(story())


def test_the_inputs_of_a_refused_meeting_are_asked_for_once(tmp_path: Path) -> None:
    """Without --adopt or --new a fresh folder stops, and says so each time; it remembers no half of a run."""

    async def story() -> None:
        here = Machine(tmp_path / "a")
        await here.run(here.process("one", state="first"))
        for name in ("two", "three"):
            ctx = here.process(name, state="second")
            with pytest.raises(prepare.UsageError, match="--adopt"):
                await here.run(ctx)
            assert await ctx.store.transact(lambda tx: tx.runs()) == []

    play(story())
