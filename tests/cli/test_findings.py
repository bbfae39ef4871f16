"""What the check found, in words."""

from __future__ import annotations

from sluicegate.cli.findings import has_errors, problem_lines, summary, verdict
from tests.cli.scripted import START, report


def test_problems_are_grouped_by_code_with_place_sentence_and_remedy() -> None:
    """Errors before warnings, the first five of each code, how many more, and the remedy once."""
    lines = [line for line, _ in problem_lines(report())]

    assert lines[0] == "error invalid_json_line: 10 lines"
    assert lines[1] == "  requests.jsonl:10  not valid JSON: unexpected end"
    assert lines[6] == "  … and 5 more"
    assert lines.count("  → write one complete JSON object per line") == 1
    assert "  requests.jsonl:3 (a-3)  names gpt-4.1-mini, line 1 names gpt-4.1" in lines


def test_counts_of_what_is_not_listed_are_true() -> None:
    """Of 5,000 problems 1,000 may be listed; the count is 5,000."""
    lines = [line for line, _ in problem_lines(report(problem_counts={"invalid_json_line": 5_000}))]

    assert "error invalid_json_line: 5,000 lines" in lines
    assert "  … and 4,995 more" in lines


def test_errors_refuse_and_warnings_do_not() -> None:
    """The last line says which it is."""
    only_warnings = report(problems=report()["problems"][-1:], problem_count=1)  # type: ignore[index]
    clean = report(problems=[], problem_count=0)

    assert has_errors(report())
    assert verdict(report())[0] == "refused: 11 problems; nothing would be submitted"
    assert not has_errors(only_warnings)
    assert verdict(only_warnings)[0] == "ready, with 1 warning"
    assert verdict(clean)[0] == "ready: no problems"


def test_the_summary_says_what_the_work_is() -> None:
    """Requests, bytes, tokens, models, cost, parts, time, and the provider's answer."""
    rows = dict(summary(report(), now=START))

    assert (rows["files"], rows["requests"]) == ("1", "1,500")
    assert rows["tokens"] == "450,000 (median 280, largest 3,200)"
    assert rows["  gpt-4.1"] == "1,499 requests, 449,000 tokens, largest 3,200"
    assert rows["cost"] == "0.4500 USD (input only)"
    assert rows["parts"] == "16 provider batches under the limit"
    assert rows["holds"] == "the deployment for about 1 h 30 min"
    assert (rows["fits now"], rows["first part"]) == ("3,600 tokens", "at once")
    assert rows["done"].startswith("in about 1 h 30 min")


def test_what_is_not_known_is_said() -> None:
    """No limit, no price, no credentials: the reason stands where the number would."""
    note = {"fits_now": None, "first_part_at": None, "done_at": None, "note": "the provider was not asked: no key"}
    rows = dict(
        summary(
            report(parts=None, holds_s=None, cost_usd=None, cost_note="no price is known for x", provider=note),
            now=START,
        )
    )

    assert rows["parts"] == "not known without a limit; give --limit"
    assert rows["cost"] == "no price is known for x"
    assert rows["provider"] == "the provider was not asked: no key"


def test_parts_without_a_limit_are_the_least_that_requests_and_bytes_allow() -> None:
    """One part is not said to be under a limit that nobody knows."""
    rows = dict(summary(report(parts=1, holds_s=None), now=START))

    assert rows["parts"] == "at least 1 provider batch, by requests and bytes; the limit is not known (give --limit)"
