"""The endpoint that the provider does not have, before and after anything was sent."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from sluicegate.testing import local_emulator
from tests.web.conftest import Served, until_ended
from tests.web.test_models import QUICK, batch_of, line
from tests.web.test_tenants import client_of, keys


@pytest.fixture
def redirected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway that sends every line to one deployment, with a limit of the operator's."""
    with local_emulator(deployments={"only": {}}, **QUICK) as provider:
        options = ("--deployment", "only", "--limit", "20K")
        served = Served(provider.url, tmp_path_factory.mktemp("redirected"), options).start()
        yield served
        served.end()


def checked(client: Any, *names: str) -> Any:
    lines = [json.loads(line(str(i), name)) for i, name in enumerate(names)]
    return client.post("/quota/check", body={"lines": lines}, cast_to=object)


def test_check_knows_the_limit_of_the_settings_and_where_lines_go_from_the_first_call_on(redirected: Served) -> None:
    """Whatever lines name; and afterwards with the books of the deployment that all of them went to."""
    client = redirected.client()
    first = checked(client, "whatever")["deployments"]["whatever"]
    (row,) = client.get("/quota", cast_to=object)["data"]  # type: ignore[index]
    assert batch_of(client, "whatever").status == "completed"
    later = checked(client, "whatever")["deployments"]["whatever"]

    for forecast in (first, later):
        assert forecast["fits_now"] > 0 and forecast["done_at"] > time.time()
        assert "the limit is 20,000 (known from: configured" in forecast["note"]
    assert (row["deployment"], row["limit"], row["limit_source"]) == ("only", 20_000, "configured")


def test_check_plans_by_what_was_learned(tmp_path: Path) -> None:
    """Without a limit in the settings: by the one that the provider told, and by how long batches lived there."""
    with local_emulator(deployments={"x": 20_000}, **QUICK) as provider:
        served = Served(provider.url, tmp_path / "state").start()
        try:
            client = served.client()
            before = checked(client, *["x"] * 3_000)
            assert batch_of(client, "x").status == "completed"
            after = checked(client, *["x"] * 3_000)
        finally:
            served.end()

    assert (before["parts"], before["holds_s"]) == (1, None)
    assert after["tokens"] > 20_000 and after["parts"] > 5
    assert 0 < after["holds_s"] < 60 and after["deployments"]["x"]["done_at"] < time.time() + 60
    assert "a batch lives about" in after["deployments"]["x"]["note"]


def test_an_observer_may_ask_what_a_file_would_be(redirected: Served) -> None:
    """By lines and by file: nothing changes."""
    client = redirected.client()
    file = client.files.create(file=("in.jsonl", line("a", "x").encode()), purpose="batch")
    observer = client_of(redirected, keys(redirected, "create", "--tenant", "default", "--role", "observer")["key"])

    assert checked(observer, "x")["requests"] == 1
    asked: Any = observer.post("/quota/check", body={"input_file_id": file.id}, cast_to=object)
    assert asked["requests"] == 1


def test_check_of_a_file_that_has_expired_or_goes_meanwhile_is_404(redirected: Served) -> None:
    """As for any other file that is not there."""
    client = redirected.client(max_retries=0)
    gone, expired = (
        client.files.create(file=(f"{name}.jsonl", line(name, "x").encode()), purpose="batch") for name in ("a", "b")
    )
    with sqlite3.connect(redirected.state / "sluicegate.sqlite3", timeout=30) as rows:
        (blob,) = rows.execute("SELECT blob FROM files WHERE id = ?", (gone.id,)).fetchone()
        rows.execute("UPDATE files SET expires_at = 1 WHERE id = ?", (expired.id,))
    rows.close()
    (redirected.state / blob).unlink()

    for file in (gone, expired):
        with pytest.raises(openai.NotFoundError) as refused:
            client.post("/quota/check", body={"input_file_id": file.id}, cast_to=object)
        assert refused.value.body["message"] == f"No file found with id '{file.id}'."  # type: ignore[index]


def test_azures_limit_header_is_what_the_provider_has_told_of_the_files_deployment(tmp_path: Path) -> None:
    """Absent while nothing is known, there from the second create on, without ``--limit``; other deployments have none."""
    with local_emulator(deployments={"known": 30_000, "unused": 40_000}, **QUICK) as provider:
        served = Served(provider.url, tmp_path / "state").start()
        try:
            client = openai.AzureOpenAI(
                azure_endpoint=served.url, api_key=served.key, api_version="2024-10-21", max_retries=0
            )

            def told(model: str) -> str | None:
                file = client.files.create(file=("in.jsonl", line("a", model).encode()), purpose="batch")
                raw = client.batches.with_raw_response.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
                )
                assert int(raw.headers["deployment-enqueued-tokens"]) > 10
                until_ended(client, raw.parse())
                limit: str | None = raw.headers.get("deployment-maximum-enqueued-tokens")
                return limit

            assert [told("known"), told("known"), told("unused")] == [None, "30000", None]
            client.close()
        finally:
            served.end()
