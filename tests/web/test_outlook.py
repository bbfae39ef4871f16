"""What waits, in which order, and until when: the numbers that clients see before anything has come home."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sluicegate.adapters.store import SqlStore
from sluicegate.core import belief
from sluicegate.core.belief import Belief, Pace
from sluicegate.core.report import Progress
from sluicegate.core.rows import DemandRow, DeploymentRow
from sluicegate.ports import Tx
from sluicegate.service import overview
from sluicegate.service.context import Policy
from sluicegate.testing import local_emulator
from tests.adapters.test_store import RUN
from tests.web.conftest import Served


def test_what_waits_is_counted_and_in_line_also_before_it_is_driven(
    tmp_path: Path, requests_file: Callable[..., Path]
) -> None:
    """Three batches of which one is driven: the quota has the tokens of all, each has its place by due time."""
    with local_emulator(limit="30K", rate=300, validating="0.1s", start="0.1s", finalizing="0.1s") as provider:
        options = ("--limit", "30K", "--set", "gateway_active_max=1")
        served = Served(provider.url, tmp_path / "state", options).start()
        try:
            client = served.client()
            file = client.files.create(file=requests_file(200, words=220), purpose="batch")
            # The last two come with less time than the first.
            ids = []
            for window in ("72h", "24h", "24h"):
                made: Any = client.batches.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window=window,  # type: ignore[arg-type]
                )  # fmt: skip
                ids.append(made.id)

            def shown() -> list[dict[str, Any]]:
                return [client.batches.retrieve(id_).to_dict()["sluicegate"] for id_ in ids]  # type: ignore[misc]

            limit = time.monotonic() + 60
            outlooks = shown()
            while not _settled(outlooks) and time.monotonic() < limit:
                time.sleep(0.1)
                outlooks = shown()
            quota: Any = client.get("/quota/gpt-4.1", cast_to=object)
            metrics = client._client.get(f"{served.url}/metrics").text
        finally:
            served.end()

    waiting = sum(one["waiting_tokens"] for one in outlooks)
    assert [one["position"] for one in outlooks] == [3, 1, 2]
    assert [one["waiting_requests"] for one in outlooks].count(200) == 2, "one is driven"
    assert all(one["waiting_tokens"] > 200 * one["waiting_requests"] for one in outlooks)
    # A reservation is a little more than the estimate: the margin, and what the provider was seen to count.
    assert 90_000 < quota["waiting"] < 1.5 * waiting
    (line,) = [one for one in metrics.splitlines() if one.startswith("sluicegate_waiting_tokens{")]
    assert float(line.rpartition(" ")[2]) > 90_000


def _settled(outlooks: list[dict[str, Any]]) -> bool:
    """All three are in line, and the one that is driven has begun."""
    begun = any(one["reserved_tokens"] + one["held_tokens"] for one in outlooks)
    return begun and [one["position"] for one in outlooks] == [3, 1, 2]


@pytest.mark.parametrize(("pace", "known"), [(Pace(hold_s=100.0, ended=1), True), (Pace(), False)])
async def test_an_end_is_expected_before_anything_is_home_if_others_have_shown_the_pace(
    tmp_path: Path, pace: Pace, known: bool
) -> None:
    """At the earliest as if alone, at the latest after all that waits; nothing if nothing was ever seen to end."""
    store = SqlStore(tmp_path / "s.sqlite3")
    row = DeploymentRow(
        id="r#d", resource="r", name="d", model=None, belief=belief.dump(Belief(pace=pace)), cap_override=1_000
    )
    demands = [DemandRow(run=run, deployment="r#d", tokens=2_000, cap=None, at=0.0) for run in ("run_1", "run_2")]

    def read(tx: Tx) -> Progress:
        tx.insert(RUN, replace(RUN, id="run_2"), row)
        for demand in demands:
            tx.put_demand(demand)
        return overview.progress(
            tx, RUN, Policy(), 5_000.0, frozenset({"run_1", "run_2"}), settled=0, failed=0, started_at=0.0,
            waits_for="room", last_refusal=None, learned=None,
        )  # fmt: skip

    found = await store.transact(read)
    await store.close()
    # One life of a batch, and 1,000 tokens in each further 100 s.
    assert (found.finish_at, found.finish_at_late) == ((5_300.0, 5_500.0) if known else (None, None))


def test_a_batch_is_finalizing_while_its_output_is_written(tmp_path: Path, requests_file: Callable[..., Path]) -> None:
    """From the last answer on, with its counts and its time; a pipe in the output's place holds the writing up."""
    with local_emulator(clock="hand") as provider:
        served = Served(provider.url, tmp_path / "state", ("--limit", "30K")).start()
        try:
            client = served.client()
            file = client.files.create(file=requests_file(3), purpose="batch")
            batch: Any = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )

            def until(good: Callable[[Any], bool]) -> Any:
                limit = time.monotonic() + 60
                while not good(shown := client.batches.retrieve(batch.id)):
                    assert time.monotonic() < limit, shown
                    time.sleep(0.05)
                return shown

            # What comes home before the provider's clock is moved is nothing.
            until(lambda shown: shown.to_dict()["sluicegate"]["held_tokens"] > 0)
            pipe = served.state / "files" / f"{batch.id}-output.jsonl.partial"
            os.mkfifo(pipe)
            provider.advance("1h")
            writing = until(lambda shown: shown.status != "in_progress")
            reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
            pipe.unlink()
            os.close(reader)
            ended = until(lambda shown: shown.status != "finalizing")
            lines = client.files.content(ended.output_file_id).text.splitlines()
        finally:
            served.end()

    assert writing.status == "finalizing" and writing.finalizing_at is not None and writing.output_file_id is None
    assert (writing.request_counts.completed, writing.request_counts.failed) == (3, 0)
    assert ended.status == "completed" and len(lines) == 3
    assert ended.finalizing_at == writing.finalizing_at <= ended.completed_at
