"""Creates that are sent again: which of them are the same create, and which are not."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from sluicegate.web.refusals import KEPT_MOST, KEPT_S, Refusals
from tests.web.conftest import Served


@pytest.fixture
def slow(provider: Any, tmp_path: Path) -> Iterator[Served]:
    """A gateway whose tenants may create one batch a minute."""
    options = ("--limit", "30K", "--set", "gateway_tenant_creates_per_minute=1")
    served = Served(provider.url, tmp_path / "state", options).start()
    yield served
    served.end()


class Creates:
    """Creates of one file, each as an attempt that an SDK says to make."""

    def __init__(self, served: Served, path: Path) -> None:
        self._served = served
        self.file = served.client().files.create(file=path, purpose="batch").id

    def __call__(self, attempt: int, **headers: str) -> str:
        """The id of the answered batch."""
        headers |= {"x-stainless-retry-count": str(attempt)}
        made: Any = self._served.client(max_retries=0).batches.create(
            input_file_id=self.file, endpoint="/v1/chat/completions", completion_window="24h", extra_headers=headers
        )  # fmt: skip
        return str(made.id)

    def unread(self) -> str:
        """A create whose answer nobody reads; its batch."""
        place = urlsplit(self._served.url)
        body = json.dumps(
            {"input_file_id": self.file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        ).encode()  # fmt: skip
        head = f"POST /v1/batches HTTP/1.1\r\nhost: x\r\napi-key: {self._served.key}\r\ncontent-length: {len(body)}\r\n\r\n"
        with socket.create_connection((place.hostname, place.port)) as wire:
            wire.sendall(head.encode() + body)
            client = self._served.client()
            limit = time.monotonic() + 60
            while not (made := client.batches.list().data) and time.monotonic() < limit:
                time.sleep(0.05)
        return made[0].id

    def a_minute_ago(self) -> None:
        """Let the rate limit see older creates."""
        with sqlite3.connect(self._served.state / "sluicegate.sqlite3", timeout=30) as rows:
            rows.execute("UPDATE client_batches SET created_at = created_at - 61")
        rows.close()


def test_a_second_create_that_was_refused_first_is_a_second_batch(
    slow: Served, requests_file: Callable[..., Path]
) -> None:
    """Create, create: 429, the same again: the gateway knows that its refusal made no batch."""
    create = Creates(slow, requests_file(1))
    first = create(0)
    with pytest.raises(openai.RateLimitError):
        create(0)
    create.a_minute_ago()

    assert create(1) != first


def test_a_create_whose_answer_was_lost_stays_one_batch_however_often_it_is_repeated(
    slow: Served, requests_file: Callable[..., Path]
) -> None:
    """And the repeat of a rate-limited gateway is not refused: it creates nothing."""
    create = Creates(slow, requests_file(1))
    lost = create.unread()

    assert [create(1), create(2), create(4)] == [lost] * 3


def test_a_batch_that_one_create_was_repeated_for_is_not_anothers(
    gateway: Served, requests_file: Callable[..., Path]
) -> None:
    """The attempts of one create count up: the same number again is another create."""
    create = Creates(gateway, requests_file(1, words=3))
    first = create(0)
    assert create(1) == first

    second = create(1)

    assert second != first and create(2) == second


def test_a_batch_that_was_asked_for_is_no_lost_answer_also_after_a_kill(
    provider: Any, tmp_path: Path, requests_file: Callable[..., Path]
) -> None:
    """Its client knows the id, so a later create whose first attempt never arrived means another batch."""
    served = Served(provider.url, tmp_path / "state", ("--limit", "30K")).start()
    try:
        create = Creates(served, requests_file(1))
        first = create(0)
        assert served.client().batches.list().data[0].id == first
        assert served.client().batches.retrieve(first).id == first
        served.end(signal.SIGKILL)
        served.start()

        assert create(1) != first
    finally:
        served.end()


def test_a_list_proves_nothing_about_an_answer(gateway: Served, requests_file: Callable[..., Path]) -> None:
    """A dashboard with the same key may look while an SDK waits for its answer."""
    create = Creates(gateway, requests_file(1, words=4))
    first = create(0)
    gateway.client().batches.list()

    assert create(1) == first


def test_an_idempotent_create_is_never_the_repeat_of_one_without_a_key(
    gateway: Served, requests_file: Callable[..., Path]
) -> None:
    """All attempts of one call have the same headers."""
    create = Creates(gateway, requests_file(1, words=5))
    named = create(0, **{"Idempotency-Key": "named"})

    assert create(1) != named and create(1, **{"Idempotency-Key": "named"}) == named


def test_refusals_are_used_up_forgotten_and_bounded() -> None:
    """One refusal stands for one repeat of the next attempt, for two minutes."""
    refusals = Refusals()
    refusals.put("a", 0, 10.0)
    refusals.put("a", 0, 11.0)
    refusals.put("old", 0, 10.0)
    for number in range(KEPT_MOST - 2):
        refusals.put(f"f{number}", 0, 12.0)

    assert [refusals.take("a", 0, 12.0) for _ in range(3)] == [True, True, False]
    assert not refusals.take("a", 1, 12.0) and not refusals.take("old", 0, 10.0 + KEPT_S)
    refusals.put("one more", 0, 12.0)
    refusals.put("and another", 0, 12.0)
    refusals.put("and a third", 0, 12.0)
    assert not refusals.take("f0", 0, 12.0) and refusals.take("and a third", 0, 12.0)
