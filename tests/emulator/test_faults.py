"""What goes wrong on order: each fault of the list, as a client sees it; and how often rules hit."""

import http.client
import json
import time
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.emulator.batch import Refused
from sluicegate.emulator.config import fault_of
from sluicegate.emulator.faults import KINDS, Fault, FaultBook, checked
from sluicegate.errors import UsageError
from sluicegate.testing import RunningEmulator, local_emulator
from tests.emulator.clients import azure, create, line, plain, upload
from tests.emulator.support import Bench

TEN = b"".join(line(f"r{i}", f"question {i}") for i in range(10))


def test_a_rule_hits_the_calls_that_it_names() -> None:
    """nth, times, every; 0 times is always."""
    for rule, hits in (
        (Fault(on="create", kind="500"), [1]),
        (Fault(on="create", kind="500", nth=3, times=2), [3, 4]),
        (Fault(on="create", kind="500", nth=2, times=0, every=3), [2, 5, 8]),
        (Fault(on="create", kind="500", times=0), [1, 2, 3, 4, 5, 6, 7, 8]),
    ):
        book = FaultBook((rule,), 0)
        assert [n for n in range(1, 9) if book.hit("create") is not None] == hits


def test_a_rule_counts_what_concerns_it_alone() -> None:
    """Only the deployment's calls, only the batch; a rule that is added later counts from then."""
    book = FaultBook(
        (Fault(on="batch", kind="expire", deployment="b", nth=2), Fault(on="batch", kind="fail", batch=4)), 0
    )
    seen = [book.hit("batch", deployment=name, batch=n) for n, name in enumerate("abab", 1)]
    assert [fault and fault.kind for fault in seen] == [None, None, None, "expire"]
    book.add(Fault(on="batch", kind="count", factor=2.0))
    late = book.hit("batch", deployment="a", batch=5)
    assert late is not None
    assert late.kind == "count"


def test_a_rule_holds_between_two_times_and_counts_only_then() -> None:
    """Seconds since the rule exists; ``until`` is the first moment at which it does not."""
    book = FaultBook((Fault(on="get", kind="500", at=10, until=20, nth=2),), 0)
    book.begin(1_000)
    seen = {at: book.hit("get", now=1_000 + at) is not None for at in (0, 9, 10, 11, 12, 19, 20, 30)}
    assert [at for at, hit in seen.items() if hit] == [11]
    book.add(Fault(on="get", kind="503", at=5, times=0), 1_100)
    assert [book.hit("get", now=1_100 + at) is not None for at in (0, 4, 5, 1_000)] == [False, False, True, True]


def test_a_rule_about_lines_hits_those_that_are_executed_in_its_time(batch_emulator: RunningEmulator) -> None:
    """However far the clock jumps."""
    batch_emulator.post("/_emulator/rate", rate=8)  # a line of eight tokens a second, after two seconds
    batch_emulator.fault("line", "500", at=4.5, until="7500ms", times=0)
    content = b"".join(line(f"r{i}", "hello") for i in range(10))
    with plain(batch_emulator) as client:
        batch = create(client, upload(client, content))
        batch_emulator.advance("1h")
        batch = client.batches.retrieve(batch.id)
        assert batch.error_file_id is not None
        bad = [json.loads(text)["custom_id"] for text in client.files.content(batch.error_file_id).text.splitlines()]

    assert sorted(bad) == ["r2", "r3", "r4"]


@pytest.mark.batch_emulator(fault=[{"on": "list", "kind": "503", "at": "1m", "until": "2m", "times": 0}])
def test_the_accounts_rules_exist_since_the_emulator_does(batch_emulator: RunningEmulator) -> None:
    """A minute later the list fails, for a minute; a rule added then begins then."""
    with plain(batch_emulator) as client:
        assert list(client.batches.list()) == []
        batch_emulator.advance("1m")
        with pytest.raises(openai.InternalServerError):
            client.batches.list()
        batch_emulator.advance("1m")
        assert list(client.batches.list()) == []
        batch_emulator.fault("list", "500", at="10s", until="never")
        assert list(client.batches.list()) == []
        batch_emulator.advance("10s")
        with pytest.raises(openai.InternalServerError):
            client.batches.list()
        assert [(rule["at"], rule["until"]) for rule in batch_emulator.get("/_emulator/fault")["faults"]] == [
            (60, 120), (10, "never")
        ]  # fmt: skip


def test_looking_at_files_may_fail_and_their_list_may_lag(batch_emulator: RunningEmulator) -> None:
    """As with batches."""
    with plain(batch_emulator) as client:
        file_id = upload(client, line("a"))
        batch_emulator.fault("file_get", "503")
        with pytest.raises(openai.InternalServerError):
            client.files.retrieve(file_id)
        assert client.files.retrieve(file_id).id == file_id
        batch_emulator.fault("file_list", "500")
        with pytest.raises(openai.InternalServerError):
            client.files.list()
        batch_emulator.fault("file_list", "lag", seconds=60, times=2)
        assert list(client.files.list()) == []
        batch_emulator.advance(60)
        assert [one.id for one in client.files.list()] == [file_id]
        batch_emulator.fault("file_list", "empty")
        page = client.files.list()
        assert (page.data, page.has_more) == ([], True)


def test_a_create_that_was_refused_is_no_batch_that_a_rule_counts() -> None:
    """The second batch is the second accepted one."""
    bench = Bench(fail_fast=True, faults=(Fault(on="batch", kind="fail", nth=2),))
    first = bench.create(0, [9_000])
    with pytest.raises(Refused):
        bench.create(1, [9_000], first=1)
    second = bench.create(2, [1], first=2)
    bench.at(50)

    assert (first.fault, second.fault, second.status) == (None, "fail", "failed")


@given(st.integers(0, 2**32), st.floats(0.1, 0.9))
def test_chance_follows_the_seed(seed: int, chance: float) -> None:
    """The same seed, the same hits; about as many as the chance says."""
    rule = (Fault(on="get", kind="500", times=0, chance=chance),)
    runs = [
        [book.hit("get") is not None for _ in range(200)] for book in (FaultBook(rule, seed), FaultBook(rule, seed))
    ]
    assert runs[0] == runs[1]
    assert abs(sum(runs[0]) / 200 - chance) < 0.2


@pytest.mark.parametrize(
    "wrong", [{"on": "create", "kind": "nothing"}, {"on": "moon", "kind": "lost"}, {"on": "get", "kind": "slow"},
              {"on": "get", "kind": "500", "at": -1}, {"on": "get", "kind": "500", "at": 5, "until": 5},
              {"on": "get", "kind": "500", "nth": 0}, {"on": "get", "kind": "500", "chance": 2}],
)  # fmt: skip
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    """With the list of what there is, also over HTTP."""
    with pytest.raises(UsageError):
        fault_of(wrong)


def test_every_kind_of_fault_can_be_ordered(batch_emulator: RunningEmulator) -> None:
    """And is listed, and cleared."""
    for on, kinds in KINDS.items():
        for kind in kinds:
            batch_emulator.fault(on, kind, nth=1_000_000, seconds=1)
    assert len(batch_emulator.get("/_emulator/fault")["faults"]) == sum(len(kinds) for kinds in KINDS.values())
    batch_emulator.clear_faults()
    assert batch_emulator.get("/_emulator/fault")["faults"] == []
    with pytest.raises(ValueError, match="there is no fault 'nothing'"):
        batch_emulator.fault("create", "nothing")


# -- calls -------------------------------------------------------------------------------------------------------------


def test_a_lost_reply_has_made_its_batch_and_a_reset_has_not(batch_emulator: RunningEmulator) -> None:
    """After the commit, before it."""
    with azure(batch_emulator) as client:
        file_id = upload(client, line("a"))
        for kind, batches in (("lost", 1), ("reset", 1), ("lost", 2)):
            batch_emulator.fault("create", kind)
            with pytest.raises(openai.APIConnectionError):
                create(client, file_id)
            assert len(list(client.batches.list())) == batches


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_each_status_is_sent_once_and_the_sdk_tries_again(batch_emulator: RunningEmulator, status: int) -> None:
    """429 carries both retry headers; with retries the SDK gets through."""
    for on in ("get", "list", "upload", "create", "download", "cancel", "delete"):
        batch_emulator.fault(on, str(status))
    with plain(batch_emulator) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            upload(client, line("a"))
        assert refused.value.status_code == status
        if status == 429:
            assert refused.value.response.headers["retry-after"] == "1"
            assert refused.value.response.headers["retry-after-ms"] == "1000"
        file_id = upload(client, line("a"))
        calls = (
            lambda: create(client, file_id), lambda: client.batches.list(), lambda: client.batches.retrieve("none"),
            lambda: client.batches.cancel("none"), lambda: client.files.content(file_id),
            lambda: client.files.delete(file_id),
        )  # fmt: skip
        for call in calls:
            with pytest.raises(openai.APIStatusError) as refused:
                call()
            assert refused.value.status_code == status


def test_a_cancel_may_meet_a_conflict(batch_emulator: RunningEmulator) -> None:
    """409, once; the batch is as it was."""
    with plain(batch_emulator) as client:
        batch = create(client, upload(client, line("a")))
        batch_emulator.fault("cancel", "409")
        with pytest.raises(openai.ConflictError):
            client.batches.cancel(batch.id)
        assert client.batches.cancel(batch.id).status == "cancelling"


def test_a_slow_reply_takes_its_seconds_by_the_emulated_clock() -> None:
    """Thirty emulated seconds at a hundredfold speed are 0.3 real ones."""
    with local_emulator(speed=100.0) as provider, plain(provider) as client:
        provider.fault("list", "slow", seconds=30)
        began = time.monotonic()
        client.batches.list()
        assert 0.3 <= time.monotonic() - began < 5


def test_a_list_may_lag_behind_or_be_empty_and_say_that_there_is_more(batch_emulator: RunningEmulator) -> None:
    """A batch that was just made is not listed yet; an empty page with ``has_more`` ends the SDK's paging (F§1.5)."""
    batch_emulator.fault("list", "lag", seconds=60, times=2)
    with plain(batch_emulator) as client:
        batch = create(client, upload(client, line("a")))
        assert list(client.batches.list()) == []
        batch_emulator.advance(60)
        assert [one.id for one in client.batches.list()] == [batch.id]
        batch_emulator.fault("list", "empty")
        page = client.batches.list()
        assert (page.data, page.has_more) == ([], True)


def _download(provider: RunningEmulator, file_id: str) -> bytes:
    connection = http.client.HTTPConnection(provider.url.removeprefix("http://"), timeout=10)
    connection.request("GET", f"/v1/files/{file_id}/content", headers={"authorization": "Bearer any"})
    try:
        return connection.getresponse().read()
    finally:
        connection.close()


def test_a_download_may_be_truncated_corrupt_or_break_off(batch_emulator: RunningEmulator) -> None:
    """Half in good order, one byte wrong, half and then nothing; after that all is well."""
    with plain(batch_emulator) as client:
        file_id = upload(client, TEN)
    batch_emulator.fault("download", "truncated")
    assert _download(batch_emulator, file_id) == TEN[: len(TEN) // 2]
    batch_emulator.fault("download", "corrupt")
    corrupt = _download(batch_emulator, file_id)
    assert len(corrupt) == len(TEN)
    assert sum(a != b for a, b in zip(corrupt, TEN, strict=True)) == 1
    batch_emulator.fault("download", "broken")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        _download(batch_emulator, file_id)
    assert _download(batch_emulator, file_id) == TEN


# -- files and batches -------------------------------------------------------------------------------------------------


def test_a_file_may_stay_pending_or_end_in_error(batch_emulator: RunningEmulator) -> None:
    """A create on it is refused with the provider's words (F§5.2)."""
    with azure(batch_emulator) as client:
        for kind, status in (("stuck_pending", "pending"), ("error", "error")):
            batch_emulator.fault("file", kind)
            file_id = upload(client, line("a"))
            batch_emulator.advance("1d")
            assert client.files.retrieve(file_id).status == status
            with pytest.raises(
                openai.BadRequestError, match=f"is in '{status}' state. Only files with status 'Processed'"
            ):
                create(client, file_id)


def test_an_upload_may_meet_the_quota_of_files(batch_emulator: RunningEmulator) -> None:
    """Without five hundred uploads."""
    batch_emulator.fault("upload", "quota")
    with azure(batch_emulator) as client, pytest.raises(openai.BadRequestError, match="The maximum is 500"):
        upload(client, line("a"))


@pytest.mark.parametrize("phase", ["validating", "in_progress", "finalizing", "cancelling"])
def test_a_batch_may_get_stuck_in_every_phase(phase: str) -> None:
    """It holds its tokens for ever; but for the last, a cancel ends it."""
    bench = Bench(faults=(Fault(on="batch", kind=f"stuck_{phase}"),))
    batch = bench.create(0, [100])
    if phase == "cancelling":
        bench.at(5).cancel(bench.at(5)._now, batch.id)
    model = bench.at(1_000_000)

    assert (batch.status, model.held("gpt-4.1")) == (phase, 100)
    if phase != "cancelling":
        model.cancel(model._now, batch.id)
        assert bench.at(1_000_100).held("gpt-4.1") == 0


def test_a_batch_may_validate_slowly_fail_expire_half_way_or_be_counted_wrongly() -> None:
    """Each kind on a batch of its own."""
    kinds = {
        "slow_validating": {"seconds": 100},
        "fail": {},
        "input_modified": {},
        "expire": {},
        "count": {"factor": 3.0},
    }
    rules = tuple(
        checked(Fault(on="batch", kind=kind, batch=n, **more)) for n, (kind, more) in enumerate(kinds.items(), 1)
    )
    bench = Bench(faults=rules, rate=0.0)
    slow, failed, modified, expired, counted = (bench.create(0, [50, 50], first=2 * i) for i in range(5))
    bench.at(11)
    assert (slow.status, counted.charge) == ("validating", 300)
    bench.at(10_000)

    assert [b.status for b in (slow, failed, modified, expired, counted)] == [
        "completed", "failed", "failed", "expired", "completed"
    ]  # fmt: skip
    assert (failed.errors[0]["code"], modified.errors[0]["code"]) == ("invalid_request", "input_modified")
    assert expired.executed == 1


@pytest.mark.batch_emulator(count_factor=2.0, limit="1M")
def test_a_batch_that_is_counted_otherwise_says_so_in_its_header(batch_emulator: RunningEmulator) -> None:
    """``deployment-enqueued-tokens`` is what is held from then on."""
    batch_emulator.fault("batch", "count", factor=3.0, nth=2)
    with azure(batch_emulator) as client:
        file_id = upload(client, TEN)
        shown, held = [], [0]
        for _ in range(2):
            answer = client.batches.with_raw_response.create(
                input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            shown.append(int(answer.headers["deployment-enqueued-tokens"]))
            held.append(batch_emulator.held()["gpt-4.1"]["held"])

    assert shown == [held[1], held[2] - held[1]]
    assert shown[1] == 3 * shown[0]


# -- lines -------------------------------------------------------------------------------------------------------------


def _result_lines(provider: RunningEmulator) -> tuple[Any, list[dict[str, Any]], list[dict[str, Any]]]:
    """(the batch, its output lines, its error lines) after a run of TEN."""
    with azure(provider) as client:
        batch = create(client, upload(client, TEN))
        provider.until_idle()
        batch = client.batches.retrieve(batch.id)
        found = [
            [json.loads(text) for text in client.files.content(file_id).text.splitlines()] if file_id else []
            for file_id in (batch.output_file_id, batch.error_file_id)
        ]
        return batch, found[0], found[1]


@pytest.mark.parametrize("kind", ["0", "429", "500", "content_filter"])
def test_failed_lines_are_in_the_error_file_and_in_the_counts(batch_emulator: RunningEmulator, kind: str) -> None:
    """With the HTTP status in the line, not in the batch (F§2.5)."""
    batch_emulator.fault("line", kind, nth=3, times=2)
    batch, good, bad = _result_lines(batch_emulator)

    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 8, 2)
    assert sorted(one["custom_id"] for one in bad) == ["r2", "r3"]
    assert {one["response"]["status_code"] for one in bad} == {400 if kind == "content_filter" else int(kind)}
    assert len(good) == 8
    if kind == "content_filter":
        assert bad[0]["response"]["body"]["error"]["innererror"]["code"] == "ResponsibleAIPolicyViolation"


def test_lines_may_be_missing_doubled_swapped_or_of_an_unknown_id() -> None:
    """The counts say nothing of it: only the ids tell."""
    found = {}
    for kind in ("missing", "doubled", "unknown", "swapped"):
        with local_emulator(clock="hand", answers=lambda asked: asked["custom_id"]) as provider:
            provider.fault("line", kind, nth=4)
            batch, good, _ = _result_lines(provider)
            assert (batch.request_counts.completed, batch.request_counts.failed) == (10, 0)
            found[kind] = {
                (one["custom_id"], one["response"]["body"]["choices"][0]["message"]["content"] if one["response"]["body"] else "")
                for one in good
            }, sorted(one["custom_id"] for one in good)  # fmt: skip
    every = [f"r{i}" for i in range(10)]

    assert found["missing"][1] == [name for name in every if name != "r3"]
    assert found["doubled"][1] == sorted([*every, "r3"])
    assert found["unknown"][1] == sorted([*every, "nobody-sent-this"])
    assert found["swapped"][1] == every
    assert {("r3", "r4"), ("r4", "r3"), ("r5", "r5")} <= found["swapped"][0]


@pytest.mark.parametrize("answers", [None, lambda asked: "an answer of five tokens"])
@pytest.mark.parametrize(("kind", "answered"), [
    ("doubled", 10), ("swapped", 10), ("unknown", 10), ("missing", 9), ("500", 9), ("content_filter", 9),
])  # fmt: skip
def test_usage_counts_every_request_that_was_answered_once(kind: str, answered: int, answers: Any) -> None:
    """However often, and under whatever id, its line is there."""
    with local_emulator(clock="hand", answers=answers, dialect="openai") as provider, plain(provider) as client:
        provider.fault("line", kind, nth=4)
        batch = create(client, upload(client, TEN))
        provider.until_idle()
        batch = client.batches.retrieve(batch.id)
        assert batch.output_file_id is not None
        assert batch.usage is not None
        lines = [json.loads(text) for text in client.files.content(batch.output_file_id).text.splitlines()]
        bodies = {
            one["response"]["body"]["id"]: one["response"]["body"]["usage"] for one in lines if one["response"]["body"]
        }

        assert len(bodies) == answered
        assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in bodies.values())
        assert batch.usage.output_tokens == sum(usage["completion_tokens"] for usage in bodies.values())


def test_openai_writes_unfinished_lines_of_an_expired_batch_into_the_error_file() -> None:
    """``batch_expired`` (F§2.3), the finished half is delivered."""
    with local_emulator(dialect="openai", clock="hand", rate=1000) as provider, plain(provider) as client:
        provider.fault("batch", "expire")
        batch = create(client, upload(client, TEN))
        provider.until_idle()
        batch = client.batches.retrieve(batch.id)
        assert batch.status == "expired"
        assert batch.output_file_id is not None
        assert batch.error_file_id is not None
        bad = [json.loads(text) for text in client.files.content(batch.error_file_id).text.splitlines()]
        good = client.files.content(batch.output_file_id).text.splitlines()
        assert {one["error"]["code"] for one in bad} == {"batch_expired"}
        assert len(good) + len(bad) == 10
        assert 0 < len(good) < 10
