"""Metrics, logs and readiness: what people look at while the gateway works, and when it cannot."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sluicegate.testing import emulator, local_emulator
from sluicegate.web.metrics import NAMES
from tests.web.conftest import Served, until_ended

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def run_one(client: Any, path: Path) -> Any:
    file = client.files.create(file=path, purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    return until_ended(client, batch)[0]


def values(text: str) -> dict[str, float]:
    """Samples by name, those with labels added up."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def test_metrics_are_the_documented_ones_and_promtool_likes_them(
    provider: Any, gateway: Served, requests_file: Callable[..., Path]
) -> None:
    """Every documented name is there, nothing undocumented of ours, and the numbers are those of the work."""
    before = values(gateway.client()._client.get(f"{gateway.url}/metrics").text)
    run_one(gateway.client(), requests_file(30))
    answer = gateway.client()._client.get(f"{gateway.url}/metrics")
    after = values(answer.text)

    ours = {family.name for family in text_string_to_metric_families(answer.text) if family.name.startswith("sluice")}
    assert ours == {name.removesuffix("_total") for name in NAMES}
    name = "sluicegate_requests_answered_total"
    assert after[name] - before.get(name, 0.0) == 30
    assert after["sluicegate_limit_tokens"] == 30_000 and after["sluicegate_headroom_tokens"] <= 30_000
    assert after["sluicegate_client_batches"] >= 1 and after["sluicegate_turn_age_seconds"] < 30
    assert 'route="/v1/batches/{id}"' in answer.text and "default" not in answer.text
    if shutil.which("promtool"):
        checked = subprocess.run(["promtool", "check", "metrics"], input=answer.content, capture_output=True)
        assert checked.returncode == 0 and not checked.stderr, checked.stderr


@pytest.mark.parametrize(("who", "open_", "with_key"), [("off", 404, 404), ("key", 401, 200)])
def test_metrics_can_be_closed(provider: Any, tmp_path: Path, who: str, open_: int, with_key: int) -> None:
    """By a setting."""
    served = Served(provider.url, tmp_path / "state", ("--set", f"gateway_metrics={who}")).start()
    try:
        http = served.client()._client
        assert http.get(f"{served.url}/metrics").status_code == open_
        assert http.get(f"{served.url}/metrics", headers={"api-key": served.key}).status_code == with_key
    finally:
        served.end()


def test_json_lines_follow_a_request_into_its_parts_and_name_no_key(
    provider: Any, tmp_path: Path, requests_file: Callable[..., Path]
) -> None:
    """Request id, trace, key id and batch id; never a key, a body or a query string."""
    served = Served(provider.url, tmp_path / "state", ("--set", "gateway_log=json")).start()
    try:
        headers = {"x-request-id": "mine-1", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        client = served.client(default_headers=headers)
        ended = run_one(client, requests_file(3))
        http = client._client
        for trace in ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", "nonsense", "00-" + "g" * 32 + "-00f067aa0ba902b7-01"):
            answer = http.get(
                f"{served.url}/v1/files?signature=hush", headers={"api-key": served.key, "traceparent": trace}
            )
            assert answer.status_code == 200
        wrong = "sgk_" + "a" * 16 + "_" + "b" * 48
        assert http.get(f"{served.url}/v1/files", headers={"api-key": wrong}).status_code == 401
    finally:
        served.end()
    text = "".join(served.said)
    lines = [json.loads(one) for one in text.splitlines() if one.startswith("{")]
    made = [one for one in lines if one.get("message") == "POST /v1/batches 200"]
    work = [one for one in lines if one["logger"] == "sluicegate.work" and one.get("batch") == ended.id]

    assert [(one["request"], one["trace"], one["batch"], one["tenant"]) for one in made] == [
        ("mine-1", TRACE, ended.id, "default")
    ]
    assert made[0]["key"].startswith("key_")
    assert {"cut", "accepted", "ended", "collected"} <= {one["message"] for one in work}
    assert all(one["trace"] == TRACE for one in lines if one.get("request") == "mine-1")
    after = text.partition("ready at")[2]
    for secret in (served.key.rpartition("_")[2], "b" * 48, "provider-secret", "hush", "word word"):
        assert secret not in after


def test_refused_credentials_make_it_not_ready_and_are_a_reason_not_an_error(
    tmp_path: Path, requests_file: Callable[..., Path]
) -> None:
    """Clients see a batch that waits; the administrator sees why; neither sees a key."""
    with local_emulator(keys=["another"]) as provider:
        served = Served(provider.url, tmp_path / "state").start()
        try:
            client = served.client()
            file = client.files.create(file=requests_file(2), purpose="batch")
            batch: Any = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            limit = time.monotonic() + 30
            while client._client.get(f"{served.url}/readyz").status_code == 200 and time.monotonic() < limit:
                time.sleep(0.1)
            ready = client._client.get(f"{served.url}/readyz")
            reasons: list[str] = []
            while not any("provider" in reason for reason in reasons) and time.monotonic() < limit:
                reasons = client.batches.retrieve(batch.id).to_dict()["sluicegate"]["reasons"]
                time.sleep(0.1)

            assert ready.status_code == 503
            assert ready.json()["wrong"] == ["provider: it refuses the gateway's credentials"]
            assert reasons[0].startswith("the provider refuses the gateway's credentials")
            assert client._client.get(f"{served.url}/healthz").status_code == 200
            assert client.batches.cancel(batch.id).status == "cancelling"
        finally:
            served.end()


@pytest.mark.parametrize("address", ["closed", "unresolvable"])
def test_a_provider_that_cannot_be_reached_is_a_reason_and_later_a_completion(
    tmp_path: Path, requests_file: Callable[..., Path], address: str
) -> None:
    """Requests of clients are answered at once all the while; when the provider is back the batch goes on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}" if address == "closed" else "http://provider.invalid"
    served = Served(url, tmp_path / "state").start()
    try:
        client = served.client(max_retries=0)
        file = client.files.create(file=requests_file(2), purpose="batch")
        began = time.monotonic()
        batch: Any = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        assert time.monotonic() - began < 5
        limit = time.monotonic() + 30
        reasons: list[str] = []
        while not any("provider" in reason for reason in reasons) and time.monotonic() < limit:
            reasons = client.batches.retrieve(batch.id).to_dict()["sluicegate"]["reasons"]
            time.sleep(0.1)

        assert reasons and "the provider cannot be reached" in reasons[0] and url not in reasons[0]
        assert client.batches.retrieve(batch.id).status == "in_progress"
        if address == "closed":
            with emulator(port=port, validating="0.1s", start="0.1s", finalizing="0.1s"):
                assert until_ended(client, batch)[0].status == "completed"
                shown = client.batches.retrieve(batch.id).to_dict()["sluicegate"]["reasons"]
                assert shown == []
    finally:
        served.end()
