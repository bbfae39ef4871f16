"""The emulated clock, and who answers."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from sluicegate.emulator.answers import answers_of
from sluicegate.errors import UsageError
from sluicegate.testing import RunningEmulator, emulator, local_emulator
from tests.emulator.clients import create, line, plain, serving, upload


def test_a_clock_by_hand_stands_still_and_moves_all_fields(batch_emulator: RunningEmulator) -> None:
    """A day passes in a call; created_at, expires_at, the phases' times and the report follow."""
    batch_emulator.post("/_emulator/rate", rate=0)
    with plain(batch_emulator) as client:
        batch = create(client, upload(client, line("a")))
        before = batch_emulator.get("/_emulator/clock")["now"]
        assert client.batches.retrieve(batch.id).status == "validating"
        assert batch_emulator.get("/_emulator/clock") == {"now": before, "speed": 0.0, "next_event_at": before + 1.0}
        assert batch_emulator.advance("24h") == before + 86_400
        done = client.batches.retrieve(batch.id)

        assert done.status == "completed"
        assert (done.created_at, done.expires_at) == (int(before), int(before) + 86_400)
        assert done.completed_at == int(before + 2.5)
        assert batch_emulator.report()["seconds"] == 86_400
        with pytest.raises(ValueError, match="forward only"):
            batch_emulator.advance(-1)
        with pytest.raises(ValueError, match="there is no forward"):
            batch_emulator.post("/_emulator/clock", forward="1h")


def test_a_fast_clock_makes_a_day_of_seconds() -> None:
    """Speed 86,400: a day a second; phases of hours pass, and somebody else's load leaves at its emulated time."""
    with (
        local_emulator(speed=86_400.0, validating="6h", start="6h", finalizing="6h") as provider,
        plain(provider) as client,
    ):
        provider.others_hold("5K", "12h", deployment="gpt-4.1")
        batch = create(client, upload(client, line("a")))
        deadline = time.monotonic() + 20
        while client.batches.retrieve(batch.id).status != "completed":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        done = client.batches.retrieve(batch.id)
        other = list(client.batches.list())[-1]

        assert done.completed_at is not None
        assert done.completed_at - done.created_at == pytest.approx(18 * 3_600, abs=2)
        assert other.completed_at is not None
        assert other.completed_at - other.created_at == pytest.approx(12 * 3_600, abs=2)


def test_somebody_elses_load_ends_on_the_clock_by_hand(batch_emulator: RunningEmulator) -> None:
    """Not on the wall's."""
    batch_emulator.others_hold("5K", "12h", deployment="gpt-4.1")
    batch_emulator.others_hold(700, "1h", listed=False)
    with plain(batch_emulator) as client:
        create(client, upload(client, line("a")))
        assert batch_emulator.held()["gpt-4.1"]["foreign"] == 5_700
        batch_emulator.advance("11h")
        assert batch_emulator.held()["gpt-4.1"]["foreign"] == 5_000
        batch_emulator.advance("1h")
        assert batch_emulator.held()["gpt-4.1"]["foreign"] == 0
        theirs = list(client.batches.list())[-1]
        assert theirs.status == "completed"
        assert len(client.files.content(theirs.input_file_id).text.splitlines()) == 5
        assert theirs.output_file_id is not None
        assert len(client.files.content(theirs.output_file_id).text.splitlines()) == 5


def test_the_clock_can_be_set_to_run_and_to_stand(batch_emulator: RunningEmulator) -> None:
    """From hand to a thousandfold and back."""
    before = batch_emulator.get("/_emulator/clock")["now"]
    batch_emulator.post("/_emulator/clock", speed=1_000)
    time.sleep(0.05)
    after = batch_emulator.post("/_emulator/clock", by_hand=True)["now"]
    assert after - before >= 50
    assert batch_emulator.get("/_emulator/clock")["now"] == after


# -- answers -----------------------------------------------------------------------------------------------------------


def results(provider: RunningEmulator, content: bytes) -> tuple[Any, dict[str, Any]]:
    """(the batch, {custom_id: response}) after a run."""
    with plain(provider) as client:
        batch = create(client, upload(client, content))
        provider.until_idle()
        deadline = time.monotonic() + 20
        while (batch := client.batches.retrieve(batch.id)).status not in ("completed", "failed"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        lines = [
            json.loads(text)
            for file_id in (batch.output_file_id, batch.error_file_id)
            if file_id
            for text in client.files.content(file_id).text.splitlines()
        ]
        return batch, {one["custom_id"]: one["response"] for one in lines}


def test_a_python_function_answers_with_a_text_a_body_or_a_status() -> None:
    """What it raises is a line of status 500; counts and usage are true before the batch is seen to have ended."""

    def answer(asked: dict[str, Any]) -> Any:
        match asked["custom_id"]:
            case "text":
                return "one two three"
            case "body":
                return {"choices": [{"message": {"content": "x"}}]}
            case "status":
                return 404, {"error": {"message": "no such thing"}}
            case _:
                raise LookupError("on purpose")

    content = b"".join(line(name) for name in ("text", "body", "status", "raises"))
    with local_emulator(answers=answer, clock="hand", dialect="openai") as provider:
        batch, responses = results(provider, content)

    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 2)
    assert {name: one["status_code"] for name, one in responses.items()} == {
        "text": 200, "body": 200, "status": 404, "raises": 500
    }  # fmt: skip
    assert responses["text"]["body"]["usage"] == {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}
    assert responses["body"]["body"]["usage"]["completion_tokens"] == 1
    assert "LookupError: on purpose" in responses["raises"]["body"]["error"]["message"]
    assert batch.usage.output_tokens == 4


ODD = {
    "text": b"no json",
    "list": b"[1]",
    "choices": b'{"choices": ["x"]}',
    "surrogate": b'{"choices": [], "x": "\\ud800"}',
}
NO_ANSWERS: dict[str, Any] = {
    "object": object(), "three": (200, {}, "more"), "choices": {"choices": ["x"]}, "list": (200, ["x"]), "none": None,
    "inside": (404, {"error": object()}), "status": ("ok", {}), "surrogate": "\ud800",
}  # fmt: skip


def test_what_a_function_returns_and_is_no_answer_is_a_line_of_status_500() -> None:
    """The batch ends, the clock goes on, and every other call is answered."""
    content = b"".join(line(name) for name in (*NO_ANSWERS, "good"))
    answers = NO_ANSWERS | {"good": "fine"}
    with local_emulator(answers=lambda asked: answers[asked["custom_id"]], clock="hand") as provider:
        batch, responses = results(provider, content)
        with plain(provider) as client:
            assert len(list(client.files.list())) == 3

    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, len(NO_ANSWERS))
    assert {one["status_code"] for name, one in responses.items() if name != "good"} == {500}
    assert responses["good"]["status_code"] == 200
    assert "TypeError" in responses["object"]["body"]["error"]["message"]


def test_one_body_for_every_line_has_the_usage_of_each_line() -> None:
    """What is put into a function's body stays out of the function's."""
    body = {"choices": [{"message": {"content": "x"}}]}
    content = line("short", "hello") + line("long", "hello " * 100)
    with local_emulator(answers=lambda asked: body, clock="hand", dialect="openai") as provider:
        batch, responses = results(provider, content)
    given = {name: one["body"]["usage"]["prompt_tokens"] for name, one in responses.items()}

    assert given["long"] > given["short"] + 90
    assert batch.usage.input_tokens == sum(given.values())
    assert "usage" not in body


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": 31, "completion_tokens": 2}, {"input_tokens": 31, "output_tokens": 2}]
)
def test_a_batchs_usage_is_what_its_answered_lines_say(usage: dict[str, int]) -> None:
    """Not our own count; a line that failed is no part of it."""

    def answer(asked: dict[str, Any]) -> Any:
        return (400, {"error": {"message": "no"}}) if asked["custom_id"] == "bad" else {"choices": [], "usage": usage}

    content = b"".join(line(name) for name in ("a", "b", "bad"))
    with local_emulator(answers=answer, clock="hand", dialect="openai") as provider:
        batch, _ = results(provider, content)

    assert (batch.usage.input_tokens, batch.usage.output_tokens, batch.usage.total_tokens) == (62, 4, 66)


def test_the_same_seed_writes_the_same_results() -> None:
    """Order, ids and all; another seed writes others. Ids of files and batches are random."""
    content = b"".join(line(f"r{i}") for i in range(20))
    ids, outputs = set(), []
    for seed in (7, 7, 8):
        with local_emulator(clock="hand", dialect="openai", seed=seed) as provider, plain(provider) as client:
            batch = create(client, upload(client, content))
            provider.until_idle()
            output = client.batches.retrieve(batch.id).output_file_id
            assert output is not None
            outputs.append(client.files.content(output).text)
            ids |= {batch.id, batch.input_file_id, output}

    assert outputs[0] == outputs[1] != outputs[2]
    assert len(ids) == 9


@pytest.mark.parametrize("speed", [1.0, 3_600.0])
def test_answers_are_asked_when_they_are_due_though_nobody_calls(speed: float) -> None:
    """With a clock that runs; the batch has ended by the time somebody looks."""
    asked = threading.Event()

    def answer(one: dict[str, Any]) -> str:
        asked.set()
        return "here"

    phase_s = 0.05 * speed
    with (
        local_emulator(answers=answer, speed=speed, validating=phase_s, start=phase_s, finalizing=phase_s) as provider,
        plain(provider) as client,
    ):
        create(client, upload(client, line("a")))

        assert asked.wait(timeout=60)


def test_a_clock_that_is_set_to_run_has_events_by_itself() -> None:
    """Set by hand nothing comes; from then on it does."""
    asked = threading.Event()

    def answer(one: dict[str, Any]) -> str:
        asked.set()
        return "here"

    with local_emulator(answers=answer, clock="hand") as provider, plain(provider) as client:
        create(client, upload(client, line("a")))
        provider.advance(1)
        assert not asked.is_set()
        provider.post("/_emulator/clock", speed=1_000)

        assert asked.wait(timeout=60)


def test_a_batch_of_which_every_line_failed_used_nothing() -> None:
    """Neither in nor out."""
    with local_emulator(answers=lambda asked: (400, {"error": {}}), clock="hand", dialect="openai") as provider:
        batch, _ = results(provider, line("a") + line("b"))

    assert (batch.request_counts.completed, batch.usage.total_tokens) == (0, 0)


class _Model(BaseHTTPRequestHandler):
    """An OpenAI-compatible server: it repeats the question, refuses one, and answers some with what is no answer."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        question = asked["messages"][0]["content"]
        status = 400 if question == "too long" else 200
        usage = {"prompt_tokens": 77, "completion_tokens": 5, "total_tokens": 82}
        body = {"choices": [{"message": {"content": f"{self.path} {question}"}}], "usage": usage}
        data = json.dumps(body if status == 200 else {"error": {"message": "context"}}).encode()
        if question in ODD:
            status, data = 200, ODD[question]
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def model_server() -> Iterator[str]:
    with serving(_Model) as url:
        yield f"{url}/v1"


@pytest.mark.parametrize("clock", ["hand", "real"])
def test_another_server_answers_each_line(model_server: str, clock: str) -> None:
    """Body, status and usage are that server's; a refusal there is a line in the error file."""
    content = b"".join(line(f"r{i}", "too long" if i == 7 else f"question {i}") for i in range(30))
    with local_emulator(
        answers=model_server, clock=clock, dialect="openai", validating=0.1, start=0.1, finalizing=0.1
    ) as provider:
        batch, responses = results(provider, content)

    assert (batch.request_counts.completed, batch.request_counts.failed) == (29, 1)
    assert responses["r3"]["body"]["choices"][0]["message"]["content"] == "/v1/chat/completions question 3"
    assert responses["r3"]["body"]["usage"]["prompt_tokens"] == 77
    assert responses["r7"]["status_code"] == 400
    assert (batch.usage.input_tokens, batch.usage.output_tokens) == (29 * 77, 29 * 5)


def test_what_a_server_says_and_is_no_answer_is_a_line_of_status_503(model_server: str) -> None:
    """Not the end of the emulator."""
    content = b"".join(line(name, name) for name in ODD)
    with local_emulator(answers=model_server, clock="hand") as provider:
        batch, responses = results(provider, content)

    assert (batch.status, batch.request_counts.failed) == ("completed", len(ODD))
    assert {one["status_code"] for one in responses.values()} == {503}


def test_a_server_that_is_not_there_is_a_line_of_status_503() -> None:
    """The batch ends all the same."""
    with local_emulator(answers="http://127.0.0.1:9/v1", clock="hand") as provider:
        batch, responses = results(provider, line("a"))

    assert (batch.status, batch.request_counts.failed, responses["a"]["status_code"]) == ("completed", 1, 503)


def test_the_command_takes_a_function_from_a_file(tmp_path: Any) -> None:
    """``--answers file.py:function``; a name that leads nowhere is refused."""
    (tmp_path / "mine.py").write_text("def answer(line):\n    return line['custom_id'].upper()\n")
    with emulator(
        answers=f"{tmp_path / 'mine.py'}:answer", validating="0.1s", start="0.1s", finalizing="0.1s"
    ) as provider:
        deadline = time.monotonic() + 20
        with plain(provider) as client:
            batch = create(client, upload(client, line("abc")))
            while (done := client.batches.retrieve(batch.id)).status != "completed":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert done.output_file_id is not None
            assert '"ABC"' in client.files.content(done.output_file_id).text
    for wrong in ("json:nothing", "no_such_module_at_all:x", f"{tmp_path}/none.py:x", "noseparator"):
        with pytest.raises(UsageError, match="neither a URL nor"):
            answers_of(wrong)
        with pytest.raises(RuntimeError, match="neither a URL nor"), local_emulator(answers=wrong):
            pass
