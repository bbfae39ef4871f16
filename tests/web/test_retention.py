"""What the gateway keeps and for how long, on real rows and files; the clock is moved by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import openai
import pytest

from sluicegate.adapters.blobs import FolderBlobs
from sluicegate.adapters.store import SqlStore
from sluicegate.core.lifecycle import RunState, Stage
from sluicegate.core.tenancy import ClientBatchRow, FileRow, UploadPartRow, UploadRow
from sluicegate.core.types import BatchStatus
from sluicegate.errors import StateUnusable
from sluicegate.ports import Tx
from sluicegate.service.context import Context
from sluicegate.service.retention import SPEND_S, UPLOAD_S, Retention, drop_file
from sluicegate.web.dialects import Problem
from sluicegate.web.state import Gateway
from sluicegate.web.uploads import _enter_part
from tests.adapters.test_store import PART, RUN
from tests.web.conftest import Served, until_ended

T = TypeVar("T")


@dataclass
class Hand:
    """A clock that stands still until it is moved."""

    at: float = 1_000_000.0

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


class Dying(SqlStore):
    """A store whose process dies within its n-th transaction, right before the commit."""

    deaths: int = 0

    def _transact(self, function: Callable[[Tx], T]) -> T:
        self.deaths -= 1
        if self.deaths != 0:
            return super()._transact(function)

        def dies(tx: Tx) -> T:
            function(tx)
            raise StateUnusable("the process is gone")

        return super()._transact(dies)


@pytest.fixture
def ctx(alone: Context) -> Context:
    """With a clock by hand."""
    return replace(alone, clock=Hand())


def file_row(id_: str = "file-1", **more: Any) -> FileRow:
    given: dict[str, Any] = {
        "tenant": "a", "filename": "in.jsonl", "purpose": "batch", "bytes": 1, "lines": 1, "sha256": "d",
        "blob": "inputs/d.jsonl", "created_at": 1_000_000.0,
    }  # fmt: skip
    return FileRow(id=id_, **given | more)


@pytest.mark.parametrize("death", [1, 2, 3])
async def test_a_crash_while_a_file_is_deleted_never_leaves_a_row_without_content(
    ctx: Context, tmp_path: Path, death: int
) -> None:
    """Before either commit, or not at all: a file that is listed can be read."""
    await ctx.store.transact(lambda tx: tx.insert(file_row()))
    content = ctx.blobs.path("inputs/d.jsonl")
    content.write_text("{}")
    store = Dying(tmp_path / "sluicegate.sqlite3")
    store.deaths = death
    try:
        await drop_file(replace(ctx, store=store), file_row())
    except StateUnusable:
        assert death < 3
    await store.close()

    rows = await ctx.store.read(lambda tx: tx.find(FileRow))
    assert len(rows) == (death == 1)
    assert content.exists() == bool(rows)


async def test_content_that_another_file_has_as_well_stays(ctx: Context) -> None:
    """Files of equal content share it."""
    await ctx.store.transact(lambda tx: tx.insert(file_row(), file_row("file-2")))
    content = ctx.blobs.path("inputs/d.jsonl")
    content.write_text("{}")

    await drop_file(ctx, file_row())
    assert content.exists()
    await drop_file(ctx, file_row("file-2"))
    assert not content.exists()


def test_a_file_whose_content_is_gone_is_a_404_and_fails_its_batch(
    gateway: Served, requests_file: Callable[..., Path]
) -> None:
    """Not an answer that breaks off, not a batch that waits for ever."""
    client = gateway.client()
    file = client.files.create(file=requests_file(7, words=3), purpose="batch")
    whole = requests_file(7, words=3).read_bytes()
    (kept,) = [path for path in (gateway.state / "inputs").iterdir() if path.read_bytes() == whole]
    kept.unlink()

    url, headers = f"{gateway.url}/v1/files/{file.id}/content", {"api-key": gateway.key}
    assert [client._client.request(how, url, headers=headers).status_code for how in ("GET", "HEAD")] == [404, 404]
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    ended, _ = until_ended(client, batch)
    (problem,) = ended.errors.data
    assert ended.status == "failed" and "gone" in problem.message and problem.param == "input_file_id"


async def test_what_a_tenant_spent_is_known_for_thirty_days_whatever_is_deleted(ctx: Context) -> None:
    """The run goes after a minute; its tokens count until the days are over, and then nothing is left of them."""
    clock = ctx.clock
    assert isinstance(clock, Hand)
    home = {"stage": Stage.COLLECTED, "cleaned": True, "collected_at": clock.at}
    runs = [replace(RUN, id=f"run_{n}", tenant="a", state=RunState.FINISHED, finished_at=clock.at) for n in range(2)]
    parts = [replace(PART, id=f"part_{n}", run=f"run_{n}", input_tokens=100, output_tokens=7, **home) for n in range(2)]
    own = replace(RUN, id="run_9", state=RunState.FINISHED, finished_at=clock.at)  # of `sluicegate run`
    await ctx.store.transact(lambda tx: tx.insert(*runs, *parts, own))
    retention = Retention(ctx, keep_s=60.0, litter_s=3_600.0)

    async def used() -> list[tuple[str, int, int]]:
        return await ctx.store.read(lambda tx: tx.used_by_tenant("a", clock.now() - SPEND_S))

    assert await used() == [("d", 200, 14)]
    clock.at += 61.0
    await retention.sweep()
    assert [run.id for run in await ctx.store.read(lambda tx: tx.runs())] == ["run_9"]
    assert await used() == [("d", 200, 14)]
    assert await ctx.store.read(lambda tx: tx.used_by_tenant("b", 0.0)) == []
    clock.at += SPEND_S + 86_400.0
    assert await used() == []
    await retention.sweep()
    assert await ctx.store.read(lambda tx: tx.used_by_tenant("a", 0.0)) == []


async def test_an_input_goes_some_time_after_its_last_use(ctx: Context) -> None:
    """The upload, or the end of its last batch; not while one is open, and not before its client said."""
    clock = ctx.clock
    assert isinstance(clock, Hand)
    rows = [file_row(f"file-{name}", blob=f"inputs/{name}.jsonl") for name in ("unused", "used", "open")]
    rows.append(file_row("file-said", blob="inputs/said.jsonl", expires_at=clock.at + 90 * 86_400.0))
    contents = [ctx.blobs.path(row.blob) for row in rows]
    for content in contents:
        content.write_text("{}")
    batch = ClientBatchRow(
        id="batch_used", tenant="a", key="k", input_file="file-used", input="inputs/used.jsonl", input_bytes=2,
        endpoint="/v1/chat/completions", window="24h", metadata=None, status=BatchStatus.COMPLETED, fingerprint="p",
        created_at=clock.at, due_at=clock.at, ended_at=clock.at + 50.0,
    )  # fmt: skip
    begun = replace(
        batch, id="batch_open", input_file="file-open", input="inputs/open.jsonl", status=BatchStatus.IN_PROGRESS,
        ended_at=None,
    )  # fmt: skip
    await ctx.store.transact(lambda tx: tx.insert(*rows, batch, begun))
    retention = Retention(ctx, keep_s=60.0, litter_s=3_600_000.0)

    async def left_at(at: float) -> list[str]:
        clock.at = 1_000_000.0 + at
        await retention.sweep()
        left = [file.id.removeprefix("file-") for file in await ctx.store.read(lambda tx: tx.find(FileRow))]
        assert sorted(content.stem for content in contents if content.exists()) == sorted(left)
        return sorted(left)

    assert await left_at(59.0) == ["open", "said", "unused", "used"]
    assert await left_at(61.0) == ["open", "said", "used"]
    assert await left_at(111.0) == ["open", "said"]
    assert await left_at(86_400.0) == ["open", "said"]


async def test_results_that_storage_does_not_take_keep_their_run(ctx: Context) -> None:
    """However long it is away: the answers are paid for."""
    clock = ctx.clock
    assert isinstance(clock, Hand)
    run = replace(RUN, tenant="a", state=RunState.FINISHED, finished_at=clock.at)
    batch = ClientBatchRow(
        id="batch_1", tenant="a", key="k", input_file="file-1", input="inputs/d.jsonl", input_bytes=2, run=run.id,
        endpoint="/v1/chat/completions", window="24h", metadata=None, status=BatchStatus.FINALIZING, fingerprint="p",
        created_at=clock.at, due_at=clock.at + 86_400.0,
    )  # fmt: skip
    await ctx.store.transact(lambda tx: tx.insert(run, batch))
    retention = Retention(ctx, keep_s=60.0, litter_s=3_600_000.0)

    clock.at += 1_000.0
    await retention.sweep()
    assert await ctx.store.read(lambda tx: tx.run(run.id)) == run
    done = {"status": BatchStatus.COMPLETED, "ended_at": clock.at}
    await ctx.store.transact(lambda tx: tx.amend(ClientBatchRow, batch.id, **done))
    clock.at += 61.0
    await retention.sweep()
    assert await ctx.store.read(lambda tx: [tx.run(run.id), *tx.find(ClientBatchRow)]) == [None]


async def test_a_part_that_arrives_while_its_upload_expires_is_refused(ctx: Context) -> None:
    """It was taken in after the sweep had read the parts, and nothing ever deleted it."""
    clock = ctx.clock
    assert isinstance(clock, Hand)
    upload = UploadRow(id="upload_1", tenant="a", filename="a", purpose="batch", bytes=10, created_at=clock.at)
    rows = [UploadPartRow(id=f"part_{n}", upload=upload.id, bytes=2, blob=f"inputs/{n}.upload", created_at=clock.at)
            for n in range(2)]  # fmt: skip
    await ctx.store.transact(lambda tx: tx.insert(upload, rows[0]))
    said: list[str] = []

    class Meanwhile(FolderBlobs):
        async def delete(self, *keys: str) -> None:
            with pytest.raises(Problem) as refused:
                await ctx.store.transact(lambda tx: _enter_part(tx, cast(Gateway, None), upload, rows[1]))
            said.append(refused.value.message)
            await super().delete(*keys)

    clock.at += UPLOAD_S
    blobs = Meanwhile(ctx.blobs.path("inputs/x").parent.parent)
    await Retention(replace(ctx, blobs=blobs), keep_s=60.0, litter_s=3_600.0).sweep()

    assert said == ["The upload is expired already."]
    assert await ctx.store.read(lambda tx: [*tx.find(UploadRow), *tx.find(UploadPartRow)]) == []


async def test_what_a_look_at_others_left_behind_is_litter(ctx: Context) -> None:
    """A process died while it read another's input file."""
    clock = ctx.clock
    assert isinstance(clock, Hand)
    left = ctx.blobs.path("foreign/look_1.jsonl")
    left.write_text("{}")
    retention = Retention(ctx, keep_s=60.0, litter_s=3_600.0)
    await retention.sweep()
    clock.at += 3_601.0
    await retention.sweep()

    assert not left.exists()


def test_results_expire_when_their_batch_was_asked_to_let_them(
    gateway: Served, requests_file: Callable[..., Path]
) -> None:
    """``output_expires_after`` counts from the making of the output file, and what makes no sense is refused as such."""
    client = gateway.client()
    file = client.files.create(file=requests_file(2), purpose="batch")
    wanted: Any = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    after = {"anchor": "created_at", "seconds": 7_200}
    batch = client.batches.create(**wanted, output_expires_after=after)  # type: ignore[arg-type]
    again = client.batches.create(
        **wanted, output_expires_after=after, extra_headers={"x-stainless-retry-count": "1"}  # type: ignore[arg-type]
    )  # fmt: skip
    plain, _ = until_ended(client, client.batches.create(**wanted))
    ended, _ = until_ended(client, batch)

    made = client.files.retrieve(ended.output_file_id)
    assert made.expires_at is not None and made.expires_at - made.created_at == 7_200
    assert client.files.retrieve(plain.output_file_id).expires_at is None
    assert again.id == batch.id != plain.id
    for wrong in (
        {"anchor": "now", "seconds": 7_200},
        {"anchor": "created_at", "seconds": 5},
        {"anchor": "created_at"},
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.batches.create(**wanted, output_expires_after=wrong)  # type: ignore[arg-type]
        assert "output_expires_after" in str(refused.value.body)
