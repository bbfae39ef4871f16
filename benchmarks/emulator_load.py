"""The emulator under load (`python -m benchmarks.emulator_load`): memory, answers to polls, exact books.

1. One file of 200 MB with 100,000 requests goes up, runs, and its results come down: peak of the emulator's RSS.
2. 200 clients poll, once a second each, while 20 upload 50 MB each and create a batch: the slowest of a hundred polls,
   the peak of RSS, and whether the books are exact to the token. The limit has room for 15 of the 20 batches.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from benchmarks import workload
from sluicegate import vocabulary
from sluicegate.testing import RunningEmulator, emulator

POLLERS, UPLOADERS, FIT = 200, 20, 15
MEGABYTE = 1_000_000
POLL_EVERY_S = 1.0
MODEL = "gpt-4.1"


@contextmanager
def watched() -> Iterator[list[int]]:
    """The peak of the emulator's RSS in bytes, once the block has ended; the emulator is this process's only child."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            for child in psutil.Process().children(recursive=True):
                try:
                    peak[0] = max(peak[0], child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def write(path: Path, requests: int, size: int) -> None:
    """A file of about that many bytes; what a request takes besides its words is 150 bytes."""
    workload.write(path, requests=requests, tokens=round((size - 150 * requests) / 3.55), largest=8_000, model=MODEL)


def count(path: Path) -> int:
    """Tokens of a file by the cookbook's rule, counted here and not by the emulator."""
    coder, total = vocabulary.encoding("o200k_base"), 0
    with path.open(encoding="utf-8") as file:
        for line in file:
            (message,) = json.loads(line)["body"]["messages"]
            total += (
                3 + 3 + len(coder.encode_ordinary(message["role"])) + len(coder.encode_ordinary(message["content"]))
            )
    return total


class Client:
    """Files and batches of an emulator, over one session."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, f"{url}/v1"

    async def upload(self, path: Path) -> str:
        """The file's id, once it is processed."""
        with path.open("rb") as content:
            form = aiohttp.FormData()
            form.add_field("purpose", "batch")
            form.add_field("file", content, filename="in.jsonl")
            async with self._session.post(f"{self._url}/files", data=form) as answer:
                file_id = str((await answer.json())["id"])
        for _ in range(600):
            if (await self.get(f"files/{file_id}"))["status"] == "processed":
                return file_id
            await asyncio.sleep(0.5)
        raise TimeoutError(f"{file_id} is still pending after five minutes")

    async def create(self, file_id: str) -> str:
        """The batch's id."""
        body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        async with self._session.post(f"{self._url}/batches", json=body) as answer:
            return str((await answer.json())["id"])

    async def get(self, path: str) -> Any:
        """JSON."""
        async with self._session.get(f"{self._url}/{path}") as answer:
            answer.raise_for_status()
            return await answer.json()

    async def lines(self, file_id: str) -> tuple[int, int]:
        """(lines, bytes) of a file's content."""
        lines = size = 0
        async with self._session.get(f"{self._url}/files/{file_id}/content") as answer:
            async for chunk in answer.content.iter_chunked(1 << 20):
                lines, size = lines + chunk.count(b"\n"), size + len(chunk)
        return lines, size


@contextmanager
def source(requests: int, size: int) -> Iterator[Path]:
    """An input file."""
    with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as folder:
        path = Path(folder) / "in.jsonl"
        write(path, requests, size)
        yield path


def session() -> aiohttp.ClientSession:
    """As many connections as clients."""
    return aiohttp.ClientSession(
        headers={"authorization": "Bearer any"}, connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=900),
    )  # fmt: skip


async def one_large_file(provider: RunningEmulator, path: Path) -> dict[str, Any]:
    """Up, through, down."""
    async with session() as http:
        client, began = Client(http, provider.url), time.monotonic()
        file_id = await client.upload(path)
        uploaded = time.monotonic() - began
        batch_id = await client.create(file_id)
        while (batch := await client.get(f"batches/{batch_id}"))["status"] != "completed":
            assert batch["status"] not in ("failed", "expired"), batch["errors"]
            await asyncio.sleep(0.2)
        lines, size = await client.lines(batch["output_file_id"])
        assert lines == batch["request_counts"]["completed"]
        return {
            "processed_s": uploaded,
            "results": lines,
            "results_mb": size / MEGABYTE,
            "all_s": time.monotonic() - began,
        }


async def many_clients(provider: RunningEmulator, path: Path) -> list[float]:
    """Seconds that each poll took, while all uploaders were busy."""
    took: list[float] = []
    made: list[str] = []
    done = asyncio.Event()

    async def poll(client: Client, dice: random.Random) -> None:
        await asyncio.sleep(dice.random() * POLL_EVERY_S)
        while not done.is_set():
            began = time.monotonic()
            await client.get(f"batches/{dice.choice(made)}" if made and dice.random() < 0.9 else "batches?limit=20")
            took.append(time.monotonic() - began)
            await asyncio.sleep(POLL_EVERY_S)

    async def work(client: Client) -> None:
        made.append(await client.create(await client.upload(path)))

    async with session() as http:
        client = Client(http, provider.url)
        pollers = [asyncio.create_task(poll(client, random.Random(i))) for i in range(POLLERS)]
        await asyncio.gather(*(work(client) for _ in range(UPLOADERS)))
        waiting = list(made)
        while waiting:  # large inputs are counted while their batches validate
            waiting = [one for one in waiting if (await client.get(f"batches/{one}"))["status"] == "validating"]
            await asyncio.sleep(0.2)
        done.set()
        await asyncio.gather(*pollers)
    return took


def main(size: int, requests: int, each: int) -> int:
    """Both parts; exit code 1 if a figure is missed."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    fast = {"validating": "0s", "start": "0s", "finalizing": "0s"}
    with source(requests, size) as path, watched() as peak:
        with emulator(**fast) as provider:
            found = asyncio.run(one_large_file(provider, path))
        good = peak[0] <= 200 * MEGABYTE and found["results"] == requests
        print(
            f"{path.stat().st_size / MEGABYTE:,.0f} MB up, processed after {found['processed_s']:.1f} s, "
            f"{found['results']:,} results ({found['results_mb']:,.0f} MB) down, {found['all_s']:.1f} s in all; "
            f"peak RSS {peak[0] / MEGABYTE:,.0f} MB (≤ 200)"
        )
    with source(round(each / 2_000), each) as path:
        tokens = count(path)
        limit = FIT * tokens + tokens // 2
        # They stay in progress, so that all of them are held at once.
        with watched() as peak, emulator(validating="1s", start="24h", limit=limit) as provider:
            took = asyncio.run(many_clients(provider, path))
            held, report = provider.held()[MODEL]["held"], provider.report()
        late = report["refusals"]["late"]
        exact = held == FIT * tokens and late == UPLOADERS - FIT
        p99 = statistics.quantiles(took, n=100)[98]
        good = good and exact and p99 <= 0.25 and peak[0] <= 300 * MEGABYTE
        print(
            f"{POLLERS} pollers, {UPLOADERS} uploaders of {path.stat().st_size / MEGABYTE:,.0f} MB: {len(took):,} polls, "
            f"median {statistics.median(took) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms (≤ 250), most "
            f"{max(took) * 1000:.0f} ms; held {held:,} of {FIT} × {tokens:,} tokens, {late} refused: "
            f"{'exact' if exact else 'NOT EXACT'}; peak RSS {peak[0] / MEGABYTE:,.0f} MB (≤ 300)"
        )
    return 0 if good else 1


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]] or [200, 100_000, 50]
    raise SystemExit(main(numbers[0] * MEGABYTE, numbers[1], numbers[2] * MEGABYTE))
