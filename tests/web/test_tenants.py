"""Tenants do not see each other, and keys end when they are told to."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from sluicegate.testing import local_emulator
from tests.web.conftest import Served, until_ended


def keys(gateway: Served, *words: str) -> Any:
    """What ``sluicegate keys … --json`` prints."""
    command = [sys.executable, "-m", "sluicegate", "keys", *words, "--state", str(gateway.state), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def client_of(gateway: Served, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)


def test_another_tenants_ids_are_404_on_every_endpoint_and_method(
    gateway: Served, requests_file: Callable[..., Path]
) -> None:
    """Table-driven over the OpenAPI document: the answer is that of an id that never was, and nothing changes."""
    mine = gateway.client()
    file = mine.files.create(file=requests_file(2), purpose="batch")
    batch = mine.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    upload = mine.uploads.create(bytes=1, filename="in.jsonl", mime_type="application/jsonl", purpose="batch")
    other = client_of(gateway, keys(gateway, "create", "--tenant", "other")["key"])
    known = {
        "files": (file.id, "file-never"),
        "batches": (batch.id, "batch_never"),
        "uploads": (upload.id, "upload_never"),
    }
    paths = other._client.get(f"{gateway.url}/openapi.json").json()["paths"]
    tried = 0

    for path, methods in paths.items():
        if "{id}" not in path:
            continue
        real, never = known[path.split("/")[2]]
        for method in methods:
            for family in ("/v1", "/openai/v1", "/openai", "/api/projects/mine/openai/v1"):
                answers = [
                    other._client.request(
                        method, gateway.url + re.sub("^/v1", family, path).replace("{id}", id_),
                        params={"api-version": "2024-10-21"}, headers={"api-key": other.api_key},
                    )
                    for id_ in (real, never)
                ]  # fmt: skip
                assert [a.status_code for a in answers] == [404, 404], (method, path, family)
                assert answers[0].text.replace(real, never) == answers[1].text
                tried += 1

    assert tried >= 20
    assert other.files.list().data == [] and other.batches.list().data == []
    wanted = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    texts = [
        made.errors.data[0].message.replace(id_, "ID")
        for id_ in (file.id, "file-never")
        for made in [other.batches.create(input_file_id=id_, **wanted)]
    ]
    assert texts[0] == texts[1]
    assert mine.uploads.cancel(upload.id).status == "cancelled"
    assert until_ended(mine, batch)[0].status == "completed"


def test_an_observer_may_look_but_not_change_and_an_admin_sees_all(
    gateway: Served, requests_file: Callable[..., Path]
) -> None:
    """Roles."""
    file = gateway.client().files.create(file=requests_file(1), purpose="batch")
    observer = client_of(gateway, keys(gateway, "create", "--tenant", "default", "--role", "observer")["key"])
    admin = client_of(gateway, keys(gateway, "create", "--tenant", "staff", "--role", "admin")["key"])

    assert observer.files.retrieve(file.id).id == admin.files.retrieve(file.id).id == file.id
    with pytest.raises(openai.PermissionDeniedError):
        observer.files.delete(file.id)


def test_a_tenants_weight_is_changed_without_another_key(gateway: Served) -> None:
    """And shown with its keys; a tenant that there is not, or an impossible weight, is refused."""
    made = keys(gateway, "create", "--tenant", "heavy")

    def weights() -> list[float]:
        return [row["weight"] for row in keys(gateway, "list") if row["id"] == made["id"]]

    before = weights()
    assert keys(gateway, "weight", "heavy", "2.5") == {"tenant": "heavy", "weight": 2.5}
    assert (before, weights()) == ([1.0], [2.5])
    command = [sys.executable, "-m", "sluicegate", "keys"]
    shown = subprocess.run(
        [*command, "list", "--state", str(gateway.state)], capture_output=True, text=True, check=True
    )
    assert f"{made['id']}  heavy  weight 2.5  user" in shown.stdout
    for words, said in ((("nobody", "2"), "there is no tenant nobody"), (("heavy", "0"), "from 0.001 to 1000")):
        refused = subprocess.run(
            [*command, "weight", *words, "--state", str(gateway.state)], capture_output=True, text=True, check=False
        )
        assert refused.returncode == 2 and said in refused.stderr


def test_a_revoked_key_is_refused_and_a_rotated_one_after_its_grace(gateway: Served) -> None:
    """Within the second that a looked-up key is believed."""
    made = keys(gateway, "create", "--tenant", "short")
    assert client_of(gateway, made["key"]).files.list().data == []
    new = keys(gateway, "rotate", made["id"], "--grace", "1s")
    keys(gateway, "revoke", new["id"])
    time.sleep(1.3)

    for key in (made["key"], new["key"]):
        with pytest.raises(openai.AuthenticationError):
            client_of(gateway, key).files.list()
    stored = b"".join(path.read_bytes() for path in gateway.state.glob("sluicegate.sqlite3*"))
    assert made["key"].rpartition("_")[2].encode() not in stored


def test_a_new_tenant_does_not_wait_for_the_end_of_anothers_batch(
    tmp_path: Path, requests_file: Callable[..., Path]
) -> None:
    """As many batches are driven as may be, all of one tenant: another's is driven beside them."""
    with local_emulator(limit="30K", rate=2_000, validating="0.1s", start="0.1s", finalizing="0.1s") as provider:
        options = ("--limit", "30K", "--set", "gateway_active_max=2")
        served = Served(provider.url, tmp_path / "state", options).start()
        try:
            first = served.client()
            file = first.files.create(file=requests_file(400, words=220), purpose="batch")
            wanted: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
            long = [first.batches.create(input_file_id=file.id, **wanted).id for _ in range(3)]
            limit = time.monotonic() + 60
            while provider.report()["batches"] < 2 and time.monotonic() < limit:
                time.sleep(0.1)
            other = client_of(served, keys(served, "create", "--tenant", "bob")["key"])
            small = other.files.create(file=requests_file(1), purpose="batch")
            ended, _ = until_ended(other, other.batches.create(input_file_id=small.id, **wanted))
            states = [first.batches.retrieve(id_).status for id_ in long]
            other.close()
        finally:
            served.end()

    assert ended.status == "completed"
    assert states == ["in_progress"] * 3
