"""The library against the emulator: the promises of docs/python.md."""

import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import sluicegate
from sluicegate.testing import RunningEmulator, emulator

FAST: dict[str, Any] = {"limit": "20K", "rate": 40000, "validating": "0.2s", "start": "0.1s", "finalizing": "0.1s"}


@pytest.fixture
def provider() -> Iterator[RunningEmulator]:
    with emulator(**FAST) as running:
        yield running


def request(custom_id: Any, words: int = 20) -> dict[str, Any]:
    messages = [{"role": "user", "content": "and " * words}]
    return {
        "custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "gpt-4.1-batch", "messages": messages},
    }  # fmt: skip


def options(provider: RunningEmulator, folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "base_url": provider.openai_url, "api_key": "any", "state": str(folder / "state"), "poll": "0.2s",
        "limit": "20K", **more,
    }  # fmt: skip


def outcomes(lines: list[dict[str, Any]]) -> list[tuple[Any, str]]:
    return [(line["custom_id"], line["error"]["code"] if line["error"] else "answered") for line in lines]


BAD = [request("d0"), request("d1"), request("d0"), request("d1"), {"method": "POST"}, request("e")]
WHAT_BECOMES_OF_BAD = [
    ("d0", "answered"), ("d1", "answered"), ("d0", "duplicate_custom_id"), ("d1", "duplicate_custom_id"),
    (None, "missing_required_parameter"), ("e", "answered"),
]  # fmt: skip


def test_each_request_gets_its_own_line_though_ids_repeat_or_are_missing(
    provider: RunningEmulator, tmp_path: Path
) -> None:
    """A request is told by its place, so an answer is never lost behind another's error."""
    lines = list(sluicegate.submit(BAD, skip_bad=True, **options(provider, tmp_path)))

    assert outcomes(lines) == WHAT_BECOMES_OF_BAD


async def test_requests_come_from_an_asynchronous_iterator_and_all_lines_go_back(
    provider: RunningEmulator, tmp_path: Path
) -> None:
    """The asynchronous form gives the same lines, and does not end early."""

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for one in BAD:
            yield one

    lines = [line async for line in sluicegate.submit_async(requests(), skip_bad=True, **options(provider, tmp_path))]
    assert outcomes(lines) == WHAT_BECOMES_OF_BAD


def test_results_come_while_later_requests_are_under_way_and_a_stop_loses_nothing(
    provider: RunningEmulator, tmp_path: Path
) -> None:
    """The second batch hangs: the first one's answers are there all the same; closing leaves no thread behind."""
    requests = [request(f"r{i}", 300) for i in range(100)]
    provider.fault("batch", "stuck_in_progress", nth=2, times=1)
    threads = set(threading.enumerate())
    results = sluicegate.submit(requests, **options(provider, tmp_path))
    assert next(results)["custom_id"] == "r0"
    results.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= threads

    lines = list(sluicegate.submit(requests, **options(provider, tmp_path, stuck_in_progress="0.5s")))
    assert [line["custom_id"] for line in lines] == [f"r{i}" for i in range(100)]
    assert provider.report()["executed_again"] == 0


def test_no_requests_give_no_lines(tmp_path: Path) -> None:
    """Nothing is asked of anybody."""
    nowhere = RunningEmulator(url="http://127.0.0.1:9")

    assert list(sluicegate.submit([], **options(nowhere, tmp_path))) == []


def test_a_program_that_dies_while_results_come_does_not_hang(provider: RunningEmulator, tmp_path: Path) -> None:
    """Its exception ends it, though nobody has closed the iterator; the same requests go on afterwards."""
    requests = [request(f"r{i}", 300) for i in range(100)]
    provider.fault("batch", "stuck_in_progress", nth=2, times=1)
    program = f"""
import sluicegate
for line in sluicegate.submit({requests!r}, **{options(provider, tmp_path)!r}):
    raise SystemError(line["custom_id"])
"""
    done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert "SystemError: r0" in done.stderr

    lines = list(sluicegate.submit(requests, **options(provider, tmp_path, stuck_in_progress="0.5s")))
    assert [line["custom_id"] for line in lines] == [f"r{i}" for i in range(100)]
    assert provider.report()["executed_again"] == 0


def test_a_refusal_tells_what_is_wrong_where_it_cannot_be_looked_up_again(
    provider: RunningEmulator, tmp_path: Path
) -> None:
    """The requests were handed in: no file with them is left to be checked."""
    with pytest.raises(sluicegate.InputRefused) as refused:
        list(sluicegate.submit(BAD, **options(provider, tmp_path)))

    assert "line 3: The custom_id 'd0' is not unique" in str(refused.value)
    assert "sluicegate check" not in str(refused.value) and str(tmp_path.parent) not in str(refused.value)
    assert {problem["line"] for problem in refused.value.problems} == {3, 4, 5}


def test_a_check_asks_for_each_deployment_and_knows_the_limit_it_is_told(
    provider: RunningEmulator, tmp_path: Path
) -> None:
    """Two deployments have two limits, and each has its own part of the work."""
    requests = [request(f"r{i}", 30_000) for i in range(2)]
    for one, model in zip(requests, ("gpt-4.1-batch", "gpt-4o-batch"), strict=True):
        one["body"]["model"] = model
    source = tmp_path / "two.jsonl"
    source.write_text("".join(json.dumps(one) + "\n" for one in requests))
    report = sluicegate.check(source, ask_provider=True, **options(provider, tmp_path, limit="40K"))

    assert report["provider"]["fits_now"] == report["tokens"] > 40_000
    assert report["provider"]["done_at"] is not None
    assert all(f"{name}: of " in report["provider"]["note"] for name in ("gpt-4.1-batch", "gpt-4o-batch"))


def test_a_closed_standard_input_is_said() -> None:
    """A sentence and exit 2, not a fault of ours."""
    command = f"{sys.executable} -m sluicegate check - <&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2 and "standard input" in done.stderr, done.stderr


def test_what_commands_do_by_hand_the_library_does_under_their_names(
    provider: RunningEmulator, tmp_path: Path
) -> None:  # fmt: skip
    """List, show, pause, cap, resume and prune, each giving what ``--json`` prints."""
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(request("a")) + "\n")
    where = options(provider, tmp_path)
    result = sluicegate.run(source, **where)

    assert [one["run"] for one in sluicegate.batches_list(**where)] == [result.run]
    assert sluicegate.batches_show(result.run, **where)["parts"][0]["stage"] == "collected"
    assert sluicegate.quota_pause("gpt-4.1-batch", **where).deployment == "gpt-4.1-batch"
    assert sluicegate.quota_set_limit("gpt-4.1-batch", "10K", **where).limit == 10_000
    with pytest.raises(sluicegate.UsageError, match="at least 1"):
        sluicegate.quota_set_limit("gpt-4.1-batch", 0, **where)
    assert sluicegate.quota_resume("gpt-4.1-batch", **where).headroom == 10_000
    assert sluicegate.prune(keep_days=0, **where)["runs"] == [result.run]
    assert sluicegate.batches_list(**where) == []
