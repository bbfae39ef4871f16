"""`sluicegate run` as a process, over real sockets, against the emulator: the promises that a person relies on."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from benchmarks import workload

from sluicegate.testing import RunningEmulator, emulator

FAST = {"limit": "20K", "rate": 40000, "validating": "0.2s", "start": "0.1s", "finalizing": "0.1s"}


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    """200 requests of about 60,000 tokens: three times the limit."""
    path = tmp_path / "requests.jsonl"
    workload.write(path, requests=200, tokens=60_000, largest=2_000)
    return path


@pytest.fixture
def provider() -> Iterator[RunningEmulator]:
    with emulator(**FAST) as running:
        yield running


def command(provider: RunningEmulator, source: Path, *more: str, name: str = "run") -> list[str]:
    state = () if "--state" in more else ("--state", str(source.parent / "state"))
    return [
        sys.executable, "-m", "sluicegate", name, str(source), "--azure-endpoint", provider.url, "--api-version",
        "2024-10-21", "--poll", "0.2s", *state, *more,
    ]  # fmt: skip


def start(provider: RunningEmulator, source: Path, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(provider, source, *more), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=os.environ | {"AZURE_OPENAI_API_KEY": "any"},
    )  # fmt: skip


def run(provider: RunningEmulator, source: Path, *more: str) -> tuple[int, str]:
    process = start(provider, source, *more)
    output, _ = process.communicate(timeout=90)
    return process.returncode, output


def ids(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]


def wanted(path: Path) -> list[str]:
    return ids(path)


def results(source: Path) -> Path:
    return source.with_name("requests.results.jsonl")


def assert_clean(provider: RunningEmulator, *, offered: float = 1.0) -> dict[str, Any]:
    books = provider.report()
    assert books["executed_again"] == 0
    assert books["offered_max"] <= offered
    return books


def test_three_times_the_limit_goes_through_in_order_without_a_refusal(
    provider: RunningEmulator, requests: Path
) -> None:
    """The main job."""
    code, output = run(provider, requests)

    assert code == 0, output
    assert ids(results(requests)) == wanted(requests)
    assert not requests.with_name("requests.errors.jsonl").exists()
    assert not Path(f"{results(requests)}.partial").exists()
    assert sum(assert_clean(provider)["refusals"].values()) == 0


def test_the_same_command_again_submits_nothing(provider: RunningEmulator, requests: Path) -> None:
    """A finished run writes its outputs again, wherever they are wanted, and pays for nothing."""
    run(provider, requests)
    batches = provider.report()["batches"]

    code, output = run(provider, requests, "-o", str(requests.with_name("elsewhere.jsonl")))
    assert code == 0, output
    assert ids(requests.with_name("elsewhere.jsonl")) == wanted(requests)
    assert provider.report()["batches"] == batches


def test_a_limit_that_nobody_told_is_learned_from_the_refusals_number(requests: Path) -> None:
    """No headers, refusals late: one refusal, then none."""
    with emulator("--no-headers", **FAST) as provider:
        code, output = run(provider, requests)
        assert code == 0, output
        assert ids(results(requests)) == wanted(requests)
        assert_clean(provider, offered=9.0)
        assert sum(provider.report()["refusals"].values()) <= 2


def test_openais_dialect_works_with_the_sdks_own_variables(requests: Path) -> None:
    """`/v1`, Bearer, null ids, 200 everywhere."""
    with emulator("--dialect", "openai", **FAST) as provider:
        done = subprocess.run(
            [sys.executable, "-m", "sluicegate", "run", str(requests), "--poll", "0.2s", "--limit", "20K", "--state",
             str(requests.parent / "state")],
            env=os.environ | {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": "any"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert ids(results(requests)) == wanted(requests)
        assert_clean(provider)


def test_a_limit_of_enqueued_requests_is_learned_and_says_nothing_of_tokens(tmp_path: Path) -> None:
    """OpenAI's second dimension: one refusal, the number is kept to, others' requests count, the token limit stays."""
    source = tmp_path / "requests.jsonl"
    request = {"method": "POST", "url": "/v1/embeddings"}
    lines = [
        json.dumps({"custom_id": f"r{i}", **request, "body": {"model": "text-embedding-3-small", "input": f"text {i}"}})
        for i in range(150)
    ]
    source.write_text("\n".join(lines) + "\n")
    longer = [line.replace("text ", "text of others, " * 25) for line in lines[:20]]
    config = tmp_path / "emulator.toml"
    config.write_text("enqueued_requests_max = 60\n")
    sluicegate = [sys.executable, "-m", "sluicegate"]
    common = ["--poll", "0.2s", "--state", str(tmp_path / "state"), "--json"]
    options = FAST | {"limit": "3M", "rate": 400, "config": str(config)}
    with emulator("--dialect", "openai", "--deployment", "text-embedding-3-small", **options) as provider:
        env = os.environ | {"OPENAI_BASE_URL": provider.openai_url, "OPENAI_API_KEY": "any"}
        client = openai.OpenAI(base_url=provider.openai_url, api_key="any")
        others = client.files.create(file=("others.jsonl", "\n".join(longer).encode()), purpose="batch")
        client.batches.create(input_file_id=others.id, endpoint="/v1/embeddings", completion_window="24h")
        done = subprocess.run(
            [*sluicegate, "run", str(source), *common], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert ids(results(source)) == [f"r{i}" for i in range(150)]
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        learned = [event for event in events if event.get("event") == "limit_changed"]
        assert [event.get("requests_limit") for event in learned] == [60]
        assert sum(provider.report()["refusals"].values()) == 1
        assert_clean(provider)


def test_thirty_files_are_one_run_with_a_result_file_each(provider: RunningEmulator, tmp_path: Path) -> None:
    """Files that all count from request-0 share parts: ids are told apart on the wire and given back as they were."""
    sources = [tmp_path / f"part-{i:02}.jsonl" for i in range(6)]
    for i, source in enumerate(sources):
        workload.write(source, requests=40, tokens=9_000, largest=1_000, seed=i)
    process = subprocess.run(
        [*command(provider, sources[0], "-o", str(tmp_path / "results"))[:4], *map(str, sources),
         *command(provider, sources[0], "-o", str(tmp_path / "results"))[5:]],
        env=os.environ | {"AZURE_OPENAI_API_KEY": "any"}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=90, check=False,
    )  # fmt: skip

    assert process.returncode == 0, process.stdout + process.stderr
    for source in sources:
        assert ids(tmp_path / "results" / f"{source.stem}.results.jsonl") == wanted(source)
    assert_clean(provider)


def test_kill_9_at_any_moment_loses_nothing_and_pays_nothing_twice(provider: RunningEmulator, requests: Path) -> None:
    """Killed again and again, started again and again: the rows and the provider's list settle it (D4, D12)."""
    dice = random.Random(5)
    for _ in range(8):
        process = start(provider, requests)
        time.sleep(0.9 + dice.random())
        process.kill()
        process.communicate()
    code, output = run(provider, requests)

    assert code == 0, output
    assert ids(results(requests)) == wanted(requests)
    assert_clean(provider)


@pytest.mark.parametrize("fault", ["lost", "reset", "500", "429"])
def test_creates_whose_answer_is_odd_are_settled_and_not_repeated_blindly(
    provider: RunningEmulator, requests: Path, fault: str
) -> None:
    """A lost reply after the commit, a reset before it, a 500, a 429: no request runs twice, none is lost."""
    provider.post("/_emulator/fault", on="create", kind=fault, nth=2, times=2)
    code, output = run(provider, requests, "--limit", "20K")

    assert code == 0, output
    assert ids(results(requests)) == wanted(requests)
    assert_clean(provider)


@pytest.mark.parametrize(
    ("fault", "failed"),
    [("missing", 0), ("doubled", 0), ("unknown", 0), ("0", 0), ("429", 0), ("500", 0), ("content_filter", 1)],
)
def test_odd_result_lines_are_repaired_or_reported(
    provider: RunningEmulator, requests: Path, fault: str, failed: int
) -> None:
    """What failed for a passing reason goes again; a content filter is final and ends in the error file."""
    provider.post("/_emulator/fault", on="line", kind=fault, nth=2, times=1, batch=1)
    code, output = run(provider, requests, "--limit", "20K")

    assert code == (1 if failed else 0), output
    good = ids(results(requests))
    errors = requests.with_name("requests.errors.jsonl")
    bad = ids(errors) if errors.exists() else []
    assert len(bad) == failed
    assert sorted(good + bad) == sorted(wanted(requests))
    assert good == [i for i in wanted(requests) if i not in bad]


def test_a_batch_that_expires_half_done_keeps_its_finished_half(provider: RunningEmulator, requests: Path) -> None:
    """Only the rest goes again (D5)."""
    provider.post("/_emulator/fault", on="batch", kind="expire", nth=3, times=1)
    code, output = run(provider, requests, "--limit", "20K")

    assert code == 0, output
    assert ids(results(requests)) == wanted(requests)
    assert_clean(provider)


def test_a_batch_stuck_in_validating_is_cancelled_and_sent_again(provider: RunningEmulator, requests: Path) -> None:
    """The rest goes on meanwhile; nothing runs twice."""
    provider.post("/_emulator/fault", on="batch", kind="stuck_validating", nth=2, times=1)
    code, output = run(provider, requests, "--limit", "20K", "--set", "stuck_validating=2s")

    assert code == 0, output
    assert ids(results(requests)) == wanted(requests)
    assert_clean(provider)


def test_downloads_that_break_off_are_resumed(provider: RunningEmulator, requests: Path) -> None:
    """From the byte where it broke, not from the start of the run."""
    provider.post("/_emulator/fault", on="download", kind="broken", nth=2, times=3)
    code, output = run(provider, requests, "--limit", "20K")

    assert code == 0, output
    assert ids(results(requests)) == wanted(requests)


def test_ctrl_c_says_how_to_go_on_and_loses_nothing(provider: RunningEmulator, requests: Path) -> None:
    """Exit 4; what is at the provider goes on, and the next start collects it."""
    process = start(provider, requests)
    until = time.monotonic() + 60
    while not provider.report()["batches"]:
        assert time.monotonic() < until, "nothing is sent"
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 4, output
    assert "batches cancel" in output and f"--state {requests.parent / 'state'}" in output.partition("to cancel:")[2]

    code, output = run(provider, requests)
    assert code == 0, output
    assert ids(results(requests)) == wanted(requests)
    assert_clean(provider)


def test_two_processes_share_one_limit(provider: RunningEmulator, tmp_path: Path) -> None:
    """Two files, one data folder: together they never offer more than fits, and both end."""
    sources = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for i, source in enumerate(sources):
        workload.write(source, requests=150, tokens=45_000, largest=1_500, seed=i, prefix=source.stem)
    processes = [start(provider, source, "--limit", "20K") for source in sources]
    for source, process in zip(sources, processes, strict=True):
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 0, output
        assert ids(source.with_name(f"{source.stem}.results.jsonl")) == wanted(source)
    assert sum(assert_clean(provider)["refusals"].values()) == 0


def test_a_second_process_on_the_same_file_follows_the_first(provider: RunningEmulator, requests: Path) -> None:
    """Two of the same file are one run; the second says so, and both end with the results."""
    first = start(provider, requests)
    time.sleep(1.5)
    second = start(provider, requests)
    outputs = [process.communicate(timeout=90)[0] for process in (first, second)]

    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert "following" in outputs[1]
    assert ids(results(requests)) == wanted(requests)
    assert_clean(provider)


def test_bad_lines_refuse_or_are_set_aside(provider: RunningEmulator, requests: Path) -> None:
    """Exit 3 and no upload; with --skip-bad the good lines run and the bad ones are in the error file."""
    lines = requests.read_text().splitlines()
    lines[3] = (
        lines[3].replace('"role":"user"', '"role":"user","stream":1').replace('"model"', '"stream":true,"model"', 1)
    )
    requests.write_text("\n".join(lines) + "\n")

    code, output = run(provider, requests)
    assert code == 3, output
    assert "streaming_unsupported" in output
    assert provider.report()["batches"] == 0

    code, output = run(provider, requests, "--skip-bad")
    assert code == 1, output
    assert ids(requests.with_name("requests.errors.jsonl")) == ["request-3"]
    assert len(ids(results(requests))) == 199


def test_a_line_that_fails_validation_ends_alone(provider: RunningEmulator, requests: Path) -> None:
    """Its neighbours are answered, and its batches' failing costs them no attempt."""
    lines = requests.read_text().splitlines()[:40]
    for bad in (17, 30):  # the check lets a number through that the provider does not
        lines[bad] = lines[bad].replace('"model"', '"stream":1,"model"', 1)
    requests.write_text("\n".join(lines) + "\n")

    code, output = run(provider, requests, "--attempts", "1")

    assert code == 1, output
    assert ids(results(requests)) == [f"request-{i}" for i in range(40) if i not in (17, 30)]
    failed = [json.loads(line) for line in requests.with_name("requests.errors.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in failed] == ["request-17", "request-30"]
    assert all("Streaming is not supported" in line["error"]["message"] for line in failed)
    assert "that costs them no attempt" in output
    assert_clean(provider)


def test_a_request_that_the_provider_never_takes_ends_in_the_error_file(tmp_path: Path) -> None:
    """Refused alone at an empty deployment, twice: the rest is answered, and it does not wait for ever (D9)."""
    source = tmp_path / "requests.jsonl"
    workload.write(source, requests=20, tokens=2_000, largest=150)
    large = json.loads(source.read_text().splitlines()[7])
    large["custom_id"] = "large"
    large["body"]["messages"][0]["content"] = "and " * 900
    with source.open("a") as more:
        more.write(json.dumps(large) + "\n" + json.dumps(large | {"custom_id": "large too"}) + "\n")
    with emulator("--no-headers", **(FAST | {"limit": "1000", "count-factor": "1.3"})) as provider:
        code, output = run(provider, source, "--limit", "1000")
        assert code == 1, output
        assert len(ids(results(source))) == 20
        assert ids(source.with_name("requests.errors.jsonl")) == ["large", "large too"]
        assert sum(provider.report()["refusals"].values()) <= 6
        assert provider.report()["executed_again"] == 0


def test_results_that_could_not_be_written_are_not_paid_for(provider: RunningEmulator, requests: Path) -> None:
    """Exit 2 before anything is submitted."""
    in_the_way = requests.with_name("file")
    in_the_way.touch()

    code, output = run(provider, requests, "-o", str(in_the_way / "results.jsonl"))
    assert code == 2 and "cannot be written" in output, output
    assert provider.report()["batches"] == 0


def test_a_wrong_key_and_a_wrong_deployment_end_with_exit_5(requests: Path) -> None:
    """A sentence that says what to do; nothing is retried for ever."""
    with emulator("--key", "right", **FAST) as provider:
        code, output = run(provider, requests)
        assert code == 5, output
        assert "AZURE_OPENAI_API_KEY" in output or "key" in output
    with emulator("--deployment", "other", "--no-headers", **FAST | {"validating": "1s"}) as provider:
        code, output = run(provider, requests, "--state", str(requests.parent / "state2"))
        assert code == 5, output
        assert "gpt-4.1-batch" in output
        assert "Traceback" not in output  # of the second batch that failed, beside the sentence of the first


def test_changed_content_of_a_known_path_is_not_run_by_mistake(provider: RunningEmulator, requests: Path) -> None:
    """Exit 2 unless --new."""
    run(provider, requests)
    requests.write_text(requests.read_text().replace("the", "The", 1))

    code, output = run(provider, requests)
    assert code == 2 and "--new" in output, output
    assert run(provider, requests, "--new")[0] == 0


def test_a_fresh_data_folder_does_not_pay_again_for_what_is_at_the_provider(
    provider: RunningEmulator, requests: Path
) -> None:
    """Batches of the same inputs stop a new folder; --adopt collects them."""
    run(provider, requests, "--set", "keep_provider_files=true")
    batches = provider.report()["batches"]
    fresh = ("--state", str(requests.parent / "fresh"), "-o", str(requests.with_name("again.jsonl")))

    code, output = run(provider, requests, *fresh)
    assert code == 2 and "--adopt" in output, output

    code, output = run(provider, requests, *fresh, "--adopt")
    assert code == 0, output
    assert ids(requests.with_name("again.jsonl")) == wanted(requests)
    assert provider.report()["batches"] == batches


def test_what_was_cleaned_cannot_be_adopted_and_is_not_paid_for_again(
    provider: RunningEmulator, requests: Path
) -> None:
    """Once the first folder has deleted its files, nobody can tell which requests were answered: only --new pays again."""
    run(provider, requests)
    batches = provider.report()["batches"]
    fresh = ("--state", str(requests.parent / "fresh"), "-o", str(requests.with_name("again.jsonl")))

    for _ in range(2):
        code, output = run(provider, requests, *fresh, "--adopt")
        assert code == 2 and "--new" in output, output
        assert provider.report()["batches"] == batches


def test_without_a_network_it_says_so_and_goes_on_when_asked_again(provider: RunningEmulator, requests: Path) -> None:
    """Nothing is lost while the provider does not answer; Ctrl-C is exit 4."""
    nowhere = RunningEmulator(url="http://127.0.0.1:9")
    process = start(nowhere, requests)
    assert process.stdout is not None
    assert any("trying again" in line for line in process.stdout)  # it goes on trying, so this ends by it or not at all
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)

    assert process.returncode == 4, output
    assert run(provider, requests)[0] == 0


def test_what_is_wrong_with_a_file_as_a_whole_has_no_line(provider: RunningEmulator, tmp_path: Path) -> None:
    """Exit 3, and the sentence names the file, not a line 0."""
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    code, output = run(provider, empty)

    assert code == 3 and "The input file is empty" in output and "line 0" not in output
