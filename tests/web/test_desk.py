"""What ends while something else is under way: on real rows, between two commits that a real gateway makes in milliseconds."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import pytest

from sluicegate.core.lifecycle import RunState
from sluicegate.core.rows import BatchRow
from sluicegate.core.rules import CheckRules
from sluicegate.core.tenancy import ClientBatchRow
from sluicegate.core.types import BatchStatus, Dialect
from sluicegate.errors import UsageError
from sluicegate.service import runs
from sluicegate.service.context import Context
from sluicegate.service.desk import Desk, DeskPolicy
from sluicegate.service.ending import Ending
from tests.adapters.test_store import RUN

DONE = BatchRow(
    id="batch_r", run="run_1", ordinal=0, digest="d", input="inputs/d.jsonl", index="indexes/run_1-0", bytes=1, first=0,
    requests=1, output="out", errors="err", name="in.jsonl", out_lines=1,
)  # fmt: skip


def row(id_: str, **more: Any) -> ClientBatchRow:
    """A client's batch whose requests all have their answers."""
    given: dict[str, Any] = {
        "tenant": "a", "key": "k", "input_file": "file-1", "input": "inputs/d.jsonl", "input_bytes": 2,
        "endpoint": "/v1/chat/completions", "window": "24h", "metadata": None, "status": BatchStatus.IN_PROGRESS,
        "fingerprint": id_, "created_at": 1.0, "due_at": 9e9, "run": "run_1",
    }  # fmt: skip
    return ClientBatchRow(id=id_, **given | more)


async def test_a_batch_that_ended_during_a_turn_is_not_driven_once_more(
    alone: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn had read it as open, and then waited for the closing of another batch."""
    desk = Desk(alone, CheckRules(dialect=Dialect.OPENAI), DeskPolicy())
    stop = row("batch_stop", run=None, status=BatchStatus.CANCELLING)
    await alone.store.transact(lambda tx: tx.insert(row("batch_done"), stop))
    desk._drives["batch_done"] = asyncio.get_running_loop().create_task(asyncio.sleep(0))

    async def meanwhile(batch: ClientBatchRow, closing: str) -> None:
        await alone.store.transact(lambda tx: tx.amend(ClientBatchRow, "batch_done", status=BatchStatus.COMPLETED))
        del desk._drives["batch_done"]

    monkeypatch.setattr(desk, "_close", meanwhile)
    await desk._turn()

    assert desk._drives == {}


async def test_a_run_that_an_older_gateway_wrote_and_did_not_name_is_found(alone: Context) -> None:
    """It died between two transactions that are one now: the batch is not checked for ever."""
    batch = row("batch_1", run=None, status=BatchStatus.VALIDATING)
    digest = hashlib.sha256(b"batch_1").hexdigest()
    run = replace(RUN, tenant="a", digest=digest, resource=alone.backend.resource)
    await alone.store.transact(lambda tx: tx.insert(run, batch))
    alone.blobs.path(batch.input).write_text(
        '{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-4.1","messages":[{"role":"user","content":"hi"}]}}\n'
    )
    desk = Desk(alone, CheckRules(dialect=Dialect.AZURE), DeskPolicy())
    await desk.validation.check(batch)

    (named,) = await alone.store.read(lambda tx: tx.find(ClientBatchRow))
    assert (named.run, named.status, named.errors) == ("run_1", BatchStatus.IN_PROGRESS, None)
    assert [one.id for one in await alone.store.read(lambda tx: tx.runs())] == ["run_1"]


async def test_an_end_that_comes_twice_changes_nothing(alone: Context) -> None:
    """A completed batch was finalizing again, and one whose results had gone to a blob never ended."""
    batch = row("batch_1", status=BatchStatus.COMPLETED, ended_at=5.0, output_file="file-output-1")
    finished = replace(RUN, tenant="a", state=RunState.FINISHED, finished_at=4.0)
    await alone.store.transact(lambda tx: tx.insert(finished, DONE, batch))
    await Ending(alone, None, keep_s=60.0).end(batch, "run_1")

    assert await alone.store.read(lambda tx: tx.find(ClientBatchRow)) == [batch]


@pytest.mark.parametrize("command", [runs.cancel, runs.salvage])
async def test_the_gateways_runs_are_not_for_the_commands_of_persons(alone: Context, command: Any) -> None:
    """They left it in states that no gateway knows: a batch that went on for ever, a run that nobody drove."""
    run = replace(RUN, tenant="a")
    await alone.store.transact(lambda tx: tx.insert(run, DONE))
    with pytest.raises(UsageError, match="belongs to a batch of the gateway's tenant 'a'"):
        await command(alone, "run_1")

    assert await alone.store.read(lambda tx: tx.run("run_1")) == run


async def test_a_long_sweep_is_followed_by_a_rest_no_longer_than_itself(
    alone: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After nine times as long more was due than the next sweep could delete in its share of the time: rows grew without end."""
    desk = Desk(alone, CheckRules(dialect=Dialect.OPENAI), DeskPolicy())
    monkeypatch.setattr(desk._retention, "sweep", lambda: asyncio.sleep(0.3))
    began = alone.clock.now()
    await desk._sweep()
    ended = alone.clock.now()

    assert ended < desk._sweep_at <= ended + (ended - began)
