import nightly
import openai
import pytest

pytestmark = pytest.mark.batch_emulator(preset="openai-ci-times", dialect="openai", limit="1K")


@pytest.fixture
def client(batch_emulator, monkeypatch):
    monkeypatch.setattr(nightly, "sleep", batch_emulator.advance)  # waiting moves the emulated clock
    with openai.OpenAI(base_url=batch_emulator.openai_url, api_key="any") as client:
        yield client


@pytest.mark.batch_emulator(answers=lambda line: line["custom_id"].upper())
def test_every_question_gets_its_answer(client):
    assert nightly.ask(client, {"a": "one", "b": "two"}) == {"a": "A", "b": "B"}


@pytest.mark.parametrize("kind", ["500", "missing"])
def test_what_failed_is_asked_again(client, batch_emulator, kind):
    batch_emulator.fault("line", kind, nth=2)
    assert nightly.ask(client, {"a": "one", "b": "two"}).keys() == {"a", "b"}
    assert batch_emulator.report()["executed_total"] == 3


def test_a_full_queue_is_waited_for(client, batch_emulator):
    batch_emulator.others_hold("1K", "5h")
    assert nightly.ask(client, {"a": "one"}, tries=9)
    assert batch_emulator.report()["refusals"]["late"] > 3
