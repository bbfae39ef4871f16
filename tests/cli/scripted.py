"""A run as a script: events and progress values as a real one gives them, at fixed times."""

from __future__ import annotations

from dataclasses import replace

from sluicegate.core.report import Event, EventKind, Progress, QuotaRow, RunResult
from sluicegate.core.types import Usage

START = 1_760_000_000.0
RUN = "run_4k2m0q7xw9ab"
RESOURCE = "https://example.openai.azure.com"


def quota_row(**changes: object) -> QuotaRow:
    """A deployment that is nearly full, with tokens of every kind."""
    row = QuotaRow(
        deployment="gpt-4.1-batch", resource=RESOURCE, model="gpt-4.1", limit=30_000, limit_source="configured",
        reserved=4_100, held=18_300, foreign=4_000, headroom=3_600, waiting=330_000, provider_batches=3,
        calibration=1.04, next_release_at=START + 300, idle_at=START + 3_600, observed_at=START + 240,
    )  # fmt: skip
    return replace(row, **changes)  # type: ignore[arg-type]


def progress(at_s: float = 252.0, **changes: object) -> Progress:
    """Where the scripted run stands ``at_s`` seconds after its start."""
    value = Progress(
        at=START + at_s, started_at=START, total=1_500, waiting=1_010, enqueued=78, done=410, failed=2,
        tokens_total=450_000, tokens_done=121_000, tokens_per_minute=18_300.0, finish_at=START + at_s + 540,
        finish_at_late=START + at_s + 1_080, quotas=(quota_row(),),
        waits_for="the release of batch_7f3 at about 14:05, which makes room for 9,800 tokens",
        last_refusal="part_9c of 31,200 tokens was refused: Enqueued token limit reached for gpt-4.1, limit 30K",
        learned="the limit of gpt-4.1-batch is 30,000 tokens (refusal)",
    )  # fmt: skip
    return replace(value, **changes)  # type: ignore[arg-type]


def event(kind: EventKind, sentence: str, at_s: float, **fields: object) -> Event:
    """An event ``at_s`` seconds after the start."""
    return Event(at=START + at_s, kind=kind, sentence=sentence, run=RUN, fields=dict(fields))


EVENTS = (
    event(
        EventKind.RUN_STARTED, f"run {RUN} starts: 1,500 requests, 450,000 tokens", 0, requests=1_500, tokens=450_000
    ),
    event(EventKind.CUT, "part_1 takes 96 requests of 28,800 tokens: all that fits", 1, part="part_1", requests=96),
    event(EventKind.ACCEPTED, "part part_1 is batch_7f1 at the provider", 3, provider_batch="batch_7f1"),
    event(EventKind.REFUSED, "part part_9c of 31,200 tokens was refused: limit 30K", 40, limit=30_000),
    event(EventKind.LIMIT_CHANGED, "the limit of gpt-4.1-batch is 30,000 tokens (refusal)", 40, limit=30_000),
    event(EventKind.TROUBLE, "the provider's list cannot be read: HTTP 503; again in 20 s", 90, retry_in_s=20.0),
    event(EventKind.ENDED, "batch_7f1 ended as completed", 120, status="completed"),
    event(EventKind.COLLECTED, "part_1 is home: 96 answered, 0 failed", 121, answered=96),
)


def result(**changes: object) -> RunResult:
    """How the scripted run ends."""
    value = RunResult(
        run=RUN, exit_code=1, total=1_500, completed=1_498, failed=2, parts=17, refusals=1, salvaged=3,
        usage=Usage(input_tokens=450_000, cached_tokens=12_000, output_tokens=98_000), cost=1.23, seconds=792.0,
        outputs=("/data/requests.results.jsonl",), errors=("/data/requests.errors.jsonl",),
    )  # fmt: skip
    return replace(value, **changes)  # type: ignore[arg-type]


def report(**changes: object) -> dict[str, object]:
    """A check's report with errors and warnings."""
    problems = [
        {"file": "requests.jsonl", "line": line, "custom_id": None, "code": "invalid_json_line", "severity": "error",
         "message": "not valid JSON: unexpected end", "remedy": "write one complete JSON object per line"}
        for line in range(10, 20)
    ] + [
        {"file": "requests.jsonl", "line": 3, "custom_id": "a-3", "code": "mixed_models", "severity": "warning",
         "message": "names gpt-4.1-mini, line 1 names gpt-4.1", "remedy": "run cuts by model; nothing to do"},
    ]  # fmt: skip
    return {
        "files": 1, "requests": 1_500, "bytes": 1_234_567, "tokens": 450_000, "median_tokens": 280,
        "largest_tokens": 3_200, "by_model": {"gpt-4.1": {"requests": 1_499, "tokens": 449_000, "largest": 3_200},
                                              "gpt-4.1-mini": {"requests": 1, "tokens": 1_000, "largest": 1_000}},
        "problem_count": 11, "problems": problems, "parts": 16, "holds_s": 5_400.0, "cost_usd": 0.45,
        "cost_note": "input only", "provider": {"fits_now": 3_600, "first_part_at": START, "done_at": START + 5_400,
                                                "note": None},
    } | changes  # fmt: skip
