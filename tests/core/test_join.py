"""Joining (D5): every request is settled exactly once, whatever the provider's files look like."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from sluicegate.core.join import ERR, OUT, Matcher, Outcome, Settled, error_line, is_passing


def line(custom_id: str, status: int | None = 200, error: Any = None, **usage: int) -> bytes:
    response = None if status is None else {"status_code": status, "body": {"usage": usage} if usage else {"x": 1}}
    return json.dumps({"id": "r", "custom_id": custom_id, "response": response, "error": error}).encode()


def match(lines: list[tuple[int, bytes]], ids: list[str]) -> tuple[Outcome, list[int]]:
    matcher = Matcher(range(len(ids)), [xxh3_64_intdigest(i.encode()) for i in ids], [100] * len(ids))
    offset = 0
    for source, text in lines:
        matcher.feed(text, source, offset)
        offset += len(text) + 1
    return matcher.finish()


def test_answers_failures_and_passing_failures_are_told_apart() -> None:
    """200 and 400 are final; 429, 500, 0 and an expiry may do better next time (F§2.4, F§5.3)."""
    expired = {"code": "batch_expired", "message": "…"}
    outcome, missing = match(
        [
            (OUT, line("good", prompt_tokens=110, completion_tokens=7)), (ERR, line("filter", 400)),
            (ERR, line("busy", 429)), (ERR, line("broken", 500)), (ERR, line("zero", 0)),
            (ERR, line("late", None, expired)), (ERR, line("odd", None, {"code": "invalid_prompt", "message": "no"})),
        ],
        ["good", "filter", "busy", "broken", "zero", "late", "odd", "gone"],
    )  # fmt: skip

    assert sorted(outcome.settled.position) == [0, 1, 6]
    assert (outcome.answered, outcome.failed) == (1, 2)
    assert outcome.executed == 6
    assert sorted(outcome.passing) == [2, 3, 4, 5]
    assert missing == [7]
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (110, 7)
    assert (outcome.counted, outcome.estimated) == (110, 100)


def test_doubled_unknown_and_unreadable_lines_are_findings_and_no_crash() -> None:
    """The first answer counts; everything else is counted as odd."""
    outcome, missing = match(
        [(OUT, line("a")), (OUT, line("a")), (OUT, line("stranger")), (OUT, b'{"custom_id": '), (OUT, b'{"id": 1}')],
        ["a"],
    )

    assert (outcome.answered, outcome.doubled, outcome.unknown, outcome.unreadable) == (1, 1, 2, 1)
    assert not missing


def test_an_answer_beats_a_passing_failure_whichever_comes_first() -> None:
    """A request in both files is answered."""
    for order in ([(ERR, line("a", 429)), (OUT, line("a"))], [(OUT, line("a")), (ERR, line("a", 429))]):
        outcome, missing = match(order, ["a"])

        assert (outcome.answered, dict(outcome.passing), missing) == (1, {}, [])


def test_an_answer_beats_a_failure_for_good_whichever_comes_first() -> None:
    """It is paid for, and it is what the client asked for; the other line is a finding."""
    good, bad = line("a", prompt_tokens=110, completion_tokens=7), line("a", 400)
    for order in ([(ERR, bad), (OUT, good)], [(OUT, good), (ERR, bad)]):
        outcome, missing = match(order, ["a"])

        assert (outcome.answered, outcome.failed, outcome.doubled, missing) == (1, 0, 1, [])
        assert (list(outcome.settled.source), list(outcome.settled.failed)) == ([OUT], [0])
        assert (outcome.settled.offset[0], outcome.settled.length[0]) == (
            0 if order[0][0] == OUT else len(bad) + 1,
            len(good),
        )
        assert (outcome.usage.input_tokens, outcome.counted, outcome.estimated) == (110, 110, 100)


@pytest.mark.parametrize("error", [None, {}, "", {"code": None, "message": None}, {"code": None, "message": ""}])
def test_an_error_that_says_nothing_is_none(error: Any) -> None:
    """A request that was answered is not sent, and paid for, once more."""
    outcome, _ = match([(OUT, line("a", 200, error))], ["a"])

    assert (outcome.answered, dict(outcome.passing)) == (1, {})


@pytest.mark.parametrize(
    ("status", "counts"),
    [("200", (1, 0, 0)), ("400", (0, 1, 0)), ("429", (0, 0, 1)), ("0", (0, 0, 1)), ("", (0, 0, 1)), ("ok", (0, 0, 1))],
)
def test_a_status_that_is_written_as_a_text_counts_as_its_number(status: str, counts: tuple[int, int, int]) -> None:
    """(answered, failed, passing)."""
    outcome, _ = match([(OUT, line("a", status))], ["a"])  # type: ignore[arg-type]

    assert (outcome.answered, outcome.failed, len(outcome.passing)) == counts


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([200, 400, 429, 500, 0]), st.booleans()), max_size=40))
def test_every_request_is_settled_passing_or_missing_and_never_two_of_them(
    rows: list[tuple[int, int, bool]],
) -> None:
    """Conservation over any heap of lines."""
    outcome, missing = match(
        [(ERR if err else OUT, line(str(n), status)) for n, status, err in rows], list("0123456789")
    )

    settled = list(outcome.settled.position)
    everything = settled + list(outcome.passing) + missing
    assert sorted(everything) == list(range(10))
    assert outcome.answered + outcome.failed == len(settled)
    assert outcome.failed == sum(outcome.settled.failed)
    assert set(settled) >= {n for n, status, _ in rows if status == 200}
    assert outcome.answered == len({n for n, status, _ in rows if status == 200})


def test_a_sidecar_brings_its_columns_back_and_a_torn_one_is_refused() -> None:
    """What a crash left half-written is never believed."""
    settled = Settled()
    settled.add(7, OUT, False, 5_000_000_000, 900)
    settled.add(3, ERR, True, 12, 34)
    data = settled.to_bytes()

    assert Settled.from_bytes(data) == settled
    for cut in range(len(data)):
        try:
            Settled.from_bytes(data[:cut])
        except ValueError:
            continue
        raise AssertionError(f"{cut} bytes were taken for a sidecar")


def test_error_lines_of_ours_have_the_providers_shape() -> None:
    """Programs that read the provider's error file read ours."""
    text = json.loads(error_line("ü 1", "missing_result", "no line"))

    assert text == {
        "id": None, "custom_id": "ü 1", "response": None, "error": {"code": "missing_result", "message": "no line"},
    }  # fmt: skip
    assert is_passing(error_line("x", "missing_result", ""))
    assert not is_passing(error_line("x", "request_exceeds_limit", ""))
    assert not is_passing(b"{")
