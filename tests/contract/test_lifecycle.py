"""Every status and what each end leaves behind: F§2, row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.contract.conftest import Ordered
from tests.contract.target import ENDED, Surface

Order = Callable[..., Ordered]
SURFACES = ["openai", "azure", "azure-v1"]
every_surface = pytest.mark.parametrize("name", SURFACES)
every_azure = pytest.mark.parametrize("name", ["azure", "azure-v1"])
SLOW: dict[str, Any] = {"clock": "hand", "validating": "10m", "start": "20m", "finalizing": "5m"}
HOUR_S = 3_600


def make(made: Ordered, *, lines: int = 1, **fields: Any) -> str:
    """The id of a new batch."""
    content = b"".join(made.surface.line(f"id-{i}") for i in range(lines))
    batch_id: str = made.surface.create(made.surface.upload(content), **fields)["id"]
    return batch_id


def history(made: Ordered, batch_id: str) -> list[str]:
    """The statuses that a batch goes through until nothing happens any more, the first one included."""
    seen = [made.surface.get(batch_id)["status"]]
    while made.provider.get("/_emulator/clock")["next_event_at"] is not None:
        made.provider.post("/_emulator/clock", to="next")
        status = made.surface.get(batch_id)["status"]
        if status != seen[-1]:
            seen.append(status)
    return seen


# -- F§2.1: states -----------------------------------------------------------------------------------------------------


@pytest.mark.emulator_only
@every_surface
def test_f2_1_validating_in_progress_finalizing_completed(ordered: Order, name: str) -> None:
    """The straight way, each status with its time, in order; a terminal status stays."""
    made = ordered(name, **SLOW)
    batch_id = make(made)

    assert history(made, batch_id) == ["validating", "in_progress", "finalizing", "completed"]
    batch = made.surface.get(batch_id)
    assert batch["created_at"] < batch["in_progress_at"] < batch["finalizing_at"] < batch["completed_at"]
    assert batch["failed_at"] is batch["expired_at"] is batch["cancelled_at"] is batch["cancelling_at"] is None
    made.provider.advance("48h")
    assert made.surface.get(batch_id) == batch


@pytest.mark.emulator_only
@every_surface
def test_f2_1_validating_failed(ordered: Order, name: str) -> None:
    """A faulty file ends in validating."""
    made = ordered(name, **SLOW)
    batch_id = made.surface.create(made.surface.upload(b"{no json"))["id"]

    assert history(made, batch_id) == ["validating", "failed"]
    assert made.surface.get(batch_id)["failed_at"]


@pytest.mark.emulator_only
@every_surface
@pytest.mark.parametrize(("after", "status"), [("0", "validating"), ("11m", "in_progress"), ("31m", "finalizing")])
def test_f2_1_cancelling_cancelled_from_each_status(ordered: Order, name: str, after: str, status: str) -> None:
    """From in_progress as documented; from validating and finalizing too, which nothing says either way."""
    made = ordered(name, **SLOW)
    batch_id = make(made)
    made.provider.advance(float(after.rstrip("m")) * 60)
    assert made.surface.get(batch_id)["status"] == status
    cancelled = made.surface.call("POST", f"/batches/{batch_id}/cancel")

    assert cancelled.status_code == 200
    assert cancelled.json()["status"] == "cancelling"
    assert cancelled.json()["cancelling_at"]
    assert history(made, batch_id) == ["cancelling", "cancelled"]
    assert made.surface.get(batch_id)["cancelled_at"]


@pytest.mark.emulator_only
@every_surface
def test_f2_3_cancelling_takes_time_and_holds_its_tokens(ordered: Order, name: str) -> None:
    """F§2.3, F§4.1: up to ten minutes in cancelling, which still holds; the end releases."""
    made = ordered(name, **SLOW, limit="30K")
    batch_id = make(made)
    made.provider.advance("11m")
    made.surface.call("POST", f"/batches/{batch_id}/cancel")
    made.provider.advance("4m")

    assert made.surface.get(batch_id)["status"] == "cancelling"
    assert made.provider.held()["gpt-4.1"]["held"] > 0
    made.provider.advance("2m")
    assert made.surface.get(batch_id)["status"] == "cancelled"
    assert made.provider.held()["gpt-4.1"]["held"] == 0


def test_f2_1_statuses_are_lowercase_and_known(surface: Surface) -> None:
    """``cancelled`` has two l; times are integers (F§1.8)."""
    batch = surface.run(surface.line())

    assert batch["status"] in ENDED
    for key, value in batch.items():
        if key.endswith("_at"):
            assert value is None or type(value) is int, key


# -- F§2.2: observed times ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Times:
    """A row of F§2.2: seconds from the create to each status."""

    row: str
    name: str
    preset: str
    in_progress: tuple[int, int]
    finalizing: tuple[int, int]
    completed: tuple[int, int]

    def __str__(self) -> str:
        """The test's id."""
        return self.row


TIMES = [
    Times("Azure doc sample, 3 lines", "azure", "azure-sample-times", (365, 365), (677, 677), (768, 768)),
    Times("Azure doc sample 2", "azure", "azure-tailed-times", (297, 297), (443, 443), (537, 537)),
    Times("Azure July 2024 walkthrough", "azure", "azure-2024-times", (60, 60), (180, 180), (240, 240)),
    Times("Azure blob sample", "azure", "azure-blob-times", (120, 120), (120, 300), (120, 400)),
    Times("Azure user, 2 lines", "azure", "azure-user-times", (1, 600), (1, 600), (540, 660)),
    Times("OpenAI spec sample, 100 lines", "openai", "openai-sample-times", (5, 5), (21_600, 21_700), (21_630, 21_730)),
    Times("OpenAI, tiny batches in CI", "openai", "openai-ci-times", (1, 30), (480, 800), (540, 800)),
]


@pytest.mark.emulator_only
@pytest.mark.parametrize("row", TIMES, ids=str)
def test_f2_2_observed_timing(ordered: Order, row: Times) -> None:
    """A preset reproduces the reported times; within a second, since times are shown in whole seconds."""
    # The tailed preset has the sample's times as its medians; what varies is taken away.
    fixed = {"delays": "fixed"} if row.preset == "azure-tailed-times" else {}
    made = ordered(row.name, clock="hand", preset=row.preset, **fixed)
    batch_id = make(made, lines=3)
    made.provider.until_idle()
    batch = made.surface.get(batch_id)

    for status, (least, most) in (
        ("in_progress", row.in_progress), ("finalizing", row.finalizing), ("completed", row.completed)
    ):  # fmt: skip
        took = batch[f"{status}_at"] - batch["created_at"]
        assert least - 1 <= took <= most + 1, (status, took)


# -- F§2.3: the 24-hour window ------------------------------------------------------------------------------------------


@pytest.mark.emulator_only
def test_f2_3_openai_expires_after_24_hours(ordered: Order) -> None:
    """Unfinished lines go to the error file with ``batch_expired``; the status is expired."""
    made = ordered("openai", clock="hand", start="30h")
    batch_id = make(made, lines=2)
    made.provider.advance("23h")
    assert made.surface.get(batch_id)["status"] == "in_progress"
    made.provider.advance("2h")
    batch = made.surface.get(batch_id)

    assert batch["status"] == "expired"
    assert batch["expired_at"] >= batch["expires_at"] == batch["created_at"] + 24 * HOUR_S
    assert batch["errors"] is None
    lines = made.surface.lines(batch["error_file_id"])
    assert set(lines) == {"id-0", "id-1"}
    assert lines["id-0"]["response"] is None
    assert lines["id-0"]["error"] == {
        "code": "batch_expired",
        "message": "This request could not be executed before the completion window expired.",
    }


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", ["azure", "azure-v1"])
def test_f2_3_azure_goes_on_after_24_hours(ordered: Order, name: str) -> None:
    """24 h is a target; ``expires_at`` is returned all the same."""
    made = ordered(name, clock="hand", start="30h")
    batch_id = make(made)
    made.provider.advance("29h")
    batch = made.surface.get(batch_id)

    assert batch["status"] == "in_progress"
    assert batch["expires_at"] == batch["created_at"] + 24 * HOUR_S
    made.provider.advance("3h")
    assert made.surface.get(batch_id)["status"] == "completed"


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", ["azure", "azure-v1"])
def test_f2_3_azure_expires_where_the_setting_says_so(ordered: Order, name: str) -> None:
    """The how-to contradicts itself: ``expired`` is a setting."""
    made = ordered(name, clock="hand", start="30h", expire="24h")
    batch_id = make(made)
    made.provider.advance("25h")

    assert made.surface.get(batch_id)["status"] == "expired"


# -- F§2.4: what each end leaves ---------------------------------------------------------------------------------------


def test_f2_4_completed_all_good(surface: Surface) -> None:
    """OpenAI: no error file. Azure: one of 0 bytes."""
    batch = surface.run(surface.line("a") + surface.line("b"))

    assert batch["status"] == "completed"
    assert batch["errors"] is None
    assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    assert set(surface.lines(batch["output_file_id"])) == {"a", "b"}
    if surface.azure:
        assert surface.content(batch["error_file_id"]) == b""
    else:
        assert batch["error_file_id"] is None


@pytest.mark.emulator_only
@every_surface
def test_f2_4_completed_all_lines_failed(ordered: Order, name: str) -> None:
    """Still ``completed``; OpenAI: ``output_file_id`` null."""
    made = ordered(name)
    made.provider.fault("line", "500", times=0)
    batch = made.surface.run(made.surface.line("a") + made.surface.line("b"))

    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
    assert not batch["output_file_id"]
    assert set(made.surface.lines(batch["error_file_id"])) == {"a", "b"}


def test_f2_4_failed(surface: Surface) -> None:
    """Neither file, ``errors`` filled."""
    batch = surface.run(b"")

    assert batch["status"] == "failed"
    assert not batch["output_file_id"]
    assert not batch["error_file_id"]
    assert batch["errors"]["data"]


@pytest.mark.emulator_only
def test_f2_4_expired(ordered: Order) -> None:
    """A partial output, the rest in the error file; together every custom_id once."""
    made = ordered("openai", clock="hand", rate=1, start="1s")
    content = b"".join(made.surface.line(f"id-{i}", "word " * 2_000) for i in range(60))
    batch_id = made.surface.create(made.surface.upload(content))["id"]
    made.provider.advance("25h")
    batch = made.surface.get(batch_id)
    good, bad = made.surface.lines(batch["output_file_id"]), made.surface.lines(batch["error_file_id"])

    assert batch["status"] == "expired"
    assert good
    assert bad
    assert not set(good) & set(bad)
    assert len(good) + len(bad) == 60
    assert {line["error"]["code"] for line in bad.values()} == {"batch_expired"}


@pytest.mark.emulator_only
@every_surface
def test_f2_4_cancelled(ordered: Order, name: str) -> None:
    """F§2.3, F§2.4: finished lines are available, unstarted work is dropped."""
    made = ordered(name, clock="hand", rate=1, start="1s")
    content = b"".join(made.surface.line(f"id-{i}", "word " * 2_000) for i in range(10))
    batch_id = made.surface.create(made.surface.upload(content))["id"]
    made.provider.advance("3h")
    made.surface.call("POST", f"/batches/{batch_id}/cancel")
    made.provider.until_idle()
    batch = made.surface.get(batch_id)

    assert batch["status"] == "cancelled"
    assert batch["errors"] is None
    assert 0 < len(made.surface.lines(batch["output_file_id"])) == batch["request_counts"]["completed"] < 10


@pytest.mark.emulator_only
@every_surface
def test_f2_4_lines_of_status_0_and_missing_lines(ordered: Order, name: str) -> None:
    """Reported: lines of ``status_code`` 0, and fewer lines than requests."""
    made = ordered(name)
    made.provider.fault("line", "0")
    made.provider.fault("line", "missing", nth=2)
    batch = made.surface.run(b"".join(made.surface.line(str(i)) for i in range(4)))

    assert batch["status"] == "completed"
    assert made.surface.lines(batch["error_file_id"])["0"]["response"]["status_code"] == 0
    assert set(made.surface.lines(batch["output_file_id"])) == {"2", "3"}


# -- F§2.5: lines ------------------------------------------------------------------------------------------------------


def test_f2_5_output_line_of_openai(openai_surface: Surface) -> None:
    """``id``, ``custom_id``, ``response{status_code, request_id, body}``, ``error`` null."""
    line = openai_surface.lines(openai_surface.run(openai_surface.line("ü/ 1"))["output_file_id"])["ü/ 1"]

    assert list(line) == ["id", "custom_id", "response", "error"]
    assert line["id"].startswith("batch_req_")
    assert list(line["response"]) == ["status_code", "request_id", "body"]
    assert line["response"]["status_code"] == 200
    assert line["error"] is None
    assert line["response"]["body"]["object"] == "chat.completion"


def test_f2_5_output_line_of_azure(azure_surface: Surface) -> None:
    """No ``id``; the response's keys in another order."""
    line = azure_surface.lines(azure_surface.run(azure_surface.line("ü/ 1"))["output_file_id"])["ü/ 1"]

    assert list(line) == ["custom_id", "response", "error"]
    assert list(line["response"]) == ["body", "request_id", "status_code"]
    assert line["response"]["status_code"] == 200
    assert line["error"] is None
    body = line["response"]["body"]
    assert {"choices", "id", "model", "object", "prompt_filter_results", "usage"} <= set(body)
    assert isinstance(body["prompt_filter_results"], list)
    assert "content_filter_results" in body["choices"][0]


@pytest.mark.emulator_only
@every_azure
def test_f2_5_a_filtered_prompt(ordered: Order, name: str) -> None:
    """The synchronous call's error, in a line of status 400 of the error file."""
    made = ordered(name)
    made.provider.fault("line", "content_filter")
    batch = made.surface.run(made.surface.line("a"))
    response = made.surface.lines(batch["error_file_id"])["a"]["response"]
    error = response["body"]["error"]

    assert (response["status_code"], error["status"], error["code"]) == (400, 400, "content_filter")
    assert error["param"] == "prompt"
    assert error["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    assert any(one["filtered"] for one in error["innererror"]["content_filter_result"].values())


@pytest.mark.emulator_only
@every_surface
def test_f2_5_a_filtered_completion(ordered: Order, name: str) -> None:
    """A line of status 200 in the output file, whose ``finish_reason`` says it; on Azure the choice's results too."""
    made = ordered(name)
    made.provider.fault("line", "content_filter_completion")
    batch = made.surface.run(made.surface.line("a") + made.surface.line("b"))
    choices = {
        key: one["response"]["body"]["choices"][0] for key, one in made.surface.lines(batch["output_file_id"]).items()
    }

    assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    assert {key: one["finish_reason"] for key, one in choices.items()} == {"a": "content_filter", "b": "stop"}
    assert choices["a"]["message"]["content"] == ""
    if made.surface.azure:
        found = {
            key: any(x["filtered"] for x in one["content_filter_results"].values()) for key, one in choices.items()
        }
        assert found == {"a": True, "b": False}


@pytest.mark.emulator_only
@every_surface
@pytest.mark.parametrize(("kind", "status"), [("429", 429), ("500", 500), ("content_filter", 400)])
def test_f2_5_a_line_with_an_http_error(ordered: Order, name: str, kind: str, status: int) -> None:
    """In the error file with ``response.status_code``, the envelope in the body, ``error`` null; counted as failed."""
    made = ordered(name)
    made.provider.fault("line", kind)
    batch = made.surface.run(made.surface.line("a"))
    line = made.surface.lines(batch["error_file_id"])["a"]

    assert batch["request_counts"]["failed"] == 1
    assert line["error"] is None
    assert line["response"]["status_code"] == status
    assert line["response"]["body"]["error"]["message"]
    if kind == "content_filter":
        error = line["response"]["body"]["error"]
        assert (error["code"], error["param"], error["status"]) == ("content_filter", "prompt", 400)
        assert error["innererror"]["code"] == "ResponsibleAIPolicyViolation"
        assert "content_filter_result" in error["innererror"]


@pytest.mark.emulator_only
@every_surface
def test_f2_5_order_is_not_guaranteed(ordered: Order, name: str) -> None:
    """Forty lines do not come back in the order in which they went in."""
    made = ordered(name)
    ids = [f"id-{i}" for i in range(40)]
    batch = made.surface.run(b"".join(made.surface.line(one) for one in ids))
    back = list(made.surface.lines(batch["output_file_id"]))

    assert back != ids
    assert sorted(back) == sorted(ids)


# -- F§2.6: retention --------------------------------------------------------------------------------------------------


@pytest.mark.emulator_only
@every_surface
def test_f2_6_retention(ordered: Order, name: str) -> None:
    """OpenAI: inputs 30 days, outputs 30 days after the end. Azure: until deleted."""
    made = ordered(name, clock="hand")
    file_id = made.surface.upload(made.surface.line())
    batch_id = made.surface.create(file_id)["id"]
    made.provider.advance("1h")
    output_id = made.surface.get(batch_id)["output_file_id"]
    made.provider.advance(30 * 24 * HOUR_S - 2 * HOUR_S)
    assert made.surface.call("GET", f"/files/{file_id}").status_code == 200
    assert made.surface.call("GET", f"/files/{output_id}").status_code == 200
    made.provider.advance(3 * HOUR_S)
    statuses = [made.surface.call("GET", f"/files/{one}").status_code for one in (file_id, output_id)]

    assert statuses == ([404, 404] if name == "openai" else [200, 200])
