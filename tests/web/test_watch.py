"""What the gateway notices although nobody asks: loops that hang, a busy database, a wrong key, a wrong clock."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest

from sluicegate.core.rules import CheckRules
from sluicegate.core.types import Dialect
from sluicegate.service import desk as desks
from sluicegate.service.context import Context
from sluicegate.service.desk import Desk, DeskPolicy
from sluicegate.testing import local_emulator
from sluicegate.web.watch import SET_SHOWN_S, Watch
from tests.service.processes import play
from tests.web.conftest import Served


def wrong(served: Served, *, until: str, seconds: float = 30.0) -> list[str]:
    """What /readyz says once it says something of ``until``."""
    limit = time.monotonic() + seconds
    said: list[str] = []
    while not any(one.startswith(until) for one in said) and time.monotonic() < limit:
        said = httpx2.get(f"{served.url}/readyz", timeout=10).json()["wrong"]
        time.sleep(0.05)
    return said


def test_a_wrong_key_shows_before_there_is_a_batch(tmp_path: Path) -> None:
    """The gateway asks at its start; no request does."""
    with local_emulator(keys=["another"]) as provider:
        served = Served(provider.url, tmp_path / "state").start()
        try:
            assert wrong(served, until="provider") == ["provider: it refuses the gateway's credentials"]
        finally:
            served.end()

    assert len([line for line in served.said if "refuses the gateway's credentials" in line]) == 1


def test_a_busy_database_is_said_soon_to_all_who_ask(provider: Any, tmp_path: Path) -> None:
    """Not after a minute, when SQLite gives up; and it is well again when the other process is done."""
    served = Served(provider.url, tmp_path / "state").start()
    other = sqlite3.connect(served.state / "sluicegate.sqlite3", timeout=30, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(1.1)  # for so long an earlier write is believed
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: httpx2.get(f"{served.url}/readyz", timeout=20), range(8)))
        took = time.monotonic() - began
        other.execute("ROLLBACK")
        limit = time.monotonic() + 30
        while httpx2.get(f"{served.url}/readyz", timeout=20).status_code != 200 and time.monotonic() < limit:
            time.sleep(0.05)

        assert [answer.status_code for answer in answers] == [503] * 8 and took < 15
        assert all(answer.json()["wrong"][0].startswith("database: busy") for answer in answers)
        assert httpx2.get(f"{served.url}/readyz", timeout=20).json() == {"status": "ok", "wrong": []}
    finally:
        other.close()
        served.end()


@pytest.fixture
def yesterday() -> Iterator[str]:
    """A provider without batches whose clock is a day behind."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps({"object": "list", "data": [], "has_more": False}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() - 86_400)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_clock_far_from_the_providers_makes_it_not_ready(yesterday: str, tmp_path: Path) -> None:
    """Due times would be wrong, and sign-ins refused."""
    served = Served(yesterday, tmp_path / "state").start()
    try:
        (said,) = wrong(served, until="clock")
        limit = time.monotonic() + 30
        while not any("gateway's clock" in line for line in served.said) and time.monotonic() < limit:
            time.sleep(0.05)
    finally:
        served.end()

    assert said in {f"clock: it is {seconds:,} s ahead of the provider's" for seconds in range(86_398, 86_430)}
    assert any("the gateway's clock: it is 86," in line for line in served.said)


async def test_a_clock_that_was_set_is_said_for_a_minute() -> None:
    """Slow drift is none."""
    hands = {"wall": 1_000.0, "steady": 5.0}
    ctx = cast(Context, SimpleNamespace(backend=None))
    watch = Watch(ctx, cast(Desk, None), wall=lambda: hands["wall"], steady=lambda: hands["steady"])
    told = []
    for wall, steady in ((4.0, 0.0), (8.0, 5.0), (5.0 - 3_600, 5.0), (5.0, 5.0), (SET_SHOWN_S, SET_SHOWN_S)):
        hands["wall"], hands["steady"] = hands["wall"] + wall, hands["steady"] + steady
        told.append(watch.clock())

    assert told == [None, None, *["it was set by -3,600 s while the gateway ran"] * 2, None]


async def test_whatever_hangs_is_named_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A driver before it first says where it stands, a check, a sweep; and no longer when it has ended."""
    for name in ("BEGIN_S", "LONG_S"):
        monkeypatch.setattr(desks, name, 0.0)
    desk = Desk(cast(Context, SimpleNamespace()), CheckRules(dialect=Dialect.OPENAI), DeskPolicy())
    ends = asyncio.Event()

    async def hang() -> None:
        await ends.wait()

    desk._start(desk._drives, "batch_a", hang)
    desk._start(desk._checks, "batch_b", hang)
    desk._start(desk._sweeps, desks.SWEEP, hang)
    tasks = [*desk._drives.values(), *desk._checks.values(), *desk._sweeps.values()]
    await asyncio.sleep(0)
    with caplog.at_level(logging.ERROR):
        found = [desk.stalled(), desk.stalled()]
    ends.set()
    await asyncio.gather(*tasks)

    assert found == [{"drivers": ["batch_a"], "checks": ["batch_b"], "sweep": ["sweep"]}] * 2
    assert sorted(one.getMessage().split(" has ")[0] for one in caplog.records) == [
        "checks: batch_b", "drivers: batch_a", "sweep: sweep",
    ]  # fmt: skip
    assert desk.stalled() == {}


async def test_a_desk_that_does_not_turn_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Without anybody asking."""
    desk: Any = SimpleNamespace(stalled=dict, idle_s=31.0)

    async def list_batches(limit: int) -> None:
        """Lets the gateway in."""

    watch = Watch(cast(Context, SimpleNamespace(backend=SimpleNamespace(list_batches=list_batches))), desk)
    with caplog.at_level(logging.ERROR):
        watch.look()
        watch.look()
        desk.idle_s = 0.5
        watch.look()
        desk.idle_s = 31.0
        watch.look()
    await asyncio.sleep(0)

    assert [one.getMessage() for one in caplog.records] == ["the gateway's desk: has not turned for 30 s"] * 2


@pytest.mark.parametrize(("proxies", "expected"), [("", "127.0.0.1"), ("127.0.0.1", "203.0.113.9")])
def test_a_refused_key_is_logged_with_the_clients_address(
    provider: Any, tmp_path: Path, proxies: str, expected: str
) -> None:
    """As the proxy names it where a proxy is believed."""
    served = Served(
        provider.url, tmp_path / "state", ("--set", "gateway_log=json", "--set", f"gateway_proxies={proxies}")
    ).start()  # fmt: skip
    try:
        headers = {"x-forwarded-for": "203.0.113.9", "api-key": "sgk_wrong"}
        assert httpx2.get(f"{served.url}/v1/files", headers=headers).status_code == 401
    finally:
        served.end()

    lines = [json.loads(line) for line in served.said if line.startswith("{")]
    assert [one["client"] for one in lines if one["message"] == "GET /v1/files 401"] == [expected]


def test_a_desk_that_is_woken_all_the_time_turns_a_tenth_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among thousands of open batches turns took half of a core; a stop is heeded at once all the same."""
    desk = Desk(cast(Context, SimpleNamespace()), CheckRules(dialect=Dialect.OPENAI), DeskPolicy())
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        await asyncio.sleep(0.05)

    async def story() -> None:
        running = asyncio.ensure_future(desk.run())
        for _ in range(1_010):
            desk.wake()
            await asyncio.sleep(0.01)
        assert turns == 21
        desk.stop()
        await asyncio.wait_for(running, 0.06)

    monkeypatch.setattr(desk, "_turn", turn)
    play(story())
