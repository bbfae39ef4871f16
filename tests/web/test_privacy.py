"""What one tenant's choice of names shows to others: nothing, and little of it to itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sluicegate.testing import local_emulator
from tests.web.conftest import Served
from tests.web.test_models import QUICK, batch_of, line
from tests.web.test_tenants import client_of, keys

MADE_UP = [f"alices-secret-{i}" for i in range(3)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Any, Any]]:
    """A gateway without settings, used by alice, who makes names up, and by bob, who has sent one file."""
    with local_emulator(deployments={"real": {}, "bobs": {}}, **QUICK) as provider:
        served = Served(provider.url, tmp_path_factory.mktemp("shared")).start()
        try:
            alice, bob = (
                client_of(served, keys(served, "create", "--tenant", name)["key"]) for name in ("alice", "bob")
            )
            batch_of(alice, *MADE_UP)
            assert batch_of(alice, "real").status == batch_of(bob, "bobs").status == "completed"
            yield served, alice, bob
        finally:
            served.end()


def test_models_and_quota_list_what_the_tenants_own_work_went_to(shared: tuple[Served, Any, Any]) -> None:
    """Names that another tenant sent are in no list, and those that the provider does not know in no list of models."""
    served, alice, bob = shared
    admin = client_of(served, keys(served, "create", "--tenant", "staff", "--role", "admin")["key"])

    def names(client: Any, path: str, field: str) -> set[str]:
        return {one[field] for one in client.get(path, cast_to=object)["data"]}

    assert names(alice, "/models", "id") == {"real"} and names(bob, "/models", "id") == {"bobs"}
    assert names(alice, "/quota", "deployment") == {*MADE_UP, "real"}
    assert names(bob, "/quota", "deployment") == {"bobs"}
    assert names(admin, "/models", "id") == {"real", "bobs"}
    assert names(admin, "/quota", "deployment") == {*MADE_UP, "real", "bobs"}
    for path in (f"/quota/{MADE_UP[0]}", "/quota/never", f"/models/{MADE_UP[0]}", "/models/real"):
        with pytest.raises(openai.NotFoundError):
            bob.get(path, cast_to=object)


def test_metrics_have_labels_for_deployments_that_exist_and_one_for_all_others(shared: tuple[Served, Any, Any]) -> None:
    """However many names clients make up, they are one series."""
    served, alice, _ = shared
    text = alice._client.get(f"{served.url}/metrics").text
    labels = {
        sample.labels["deployment"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "deployment" in sample.labels
    }

    assert labels == {"real", "bobs", "other"} and "alices-secret" not in text


def test_a_file_with_too_many_models_fails_with_one_short_error(shared: tuple[Served, Any, Any]) -> None:
    """In the code that the provider has for it; 20 are the most, and 20 are taken."""
    _, alice, _ = shared
    ended = batch_of(alice, *(f"m{i:02}" for i in range(21)))

    assert ended.status == "failed"
    assert [(e.code, e.line) for e in ended.errors.data] == [("model_mismatch", None)]
    assert ended.errors.data[0].message == ("The file names 21 models; a batch may name 20: m00, m01, m02, 18 more.")
    assert "m00" not in [row["deployment"] for row in alice.get("/quota", cast_to=object)["data"]]
    lines = [json.loads(line(str(i), f"n{i:02}")) for i in range(20)]
    assert alice.post("/quota/check", body={"lines": lines}, cast_to=object)["problem_counts"] == {"model_mismatch": 1}
    lines.append(json.loads(line("one more", "n20")))
    told = alice.post("/quota/check", body={"lines": lines}, cast_to=object)
    assert [one["severity"] for one in told["problems"]] == ["error"] and len(told["deployments"]) == 20


def test_reasons_stay_short_however_many_deployments_wait(tmp_path: Path) -> None:
    """Three deployments are named, and how many more there are."""
    deployments = {f"d{i}": 40 for i in range(6)}
    with local_emulator(deployments=deployments, rate=0, **QUICK) as provider:
        served = Served(provider.url, tmp_path / "state", ("--limit", "40")).start()
        try:
            client = served.client()
            content = "\n".join(line(f"{name}-{i}", name) for name in deployments for i in range(9)).encode()
            file = client.files.create(file=("in.jsonl", content), purpose="batch")
            batch: Any = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            for _ in range(100_000):
                (reason,) = client.batches.retrieve(batch.id).to_dict()["sluicegate"]["reasons"]
                if reason.count("; ") == 3:
                    break
            client.batches.cancel(batch.id)
        finally:
            served.end()

    assert reason.endswith("; 3 more") and reason.count(": ") >= 3
