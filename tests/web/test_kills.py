"""kill -9 under load, again and again; the clients are the official SDK with ``max_retries=20`` and nothing else."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from sluicegate.testing import emulator
from tests.web.conftest import Served

CLIENTS = 10
REQUESTS = 12


class _Clients:
    """Each makes one batch after the other until it is told to stop, and compares what it gets with what it asked."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key
        self.stop = threading.Event()
        self.batches: list[str] = []
        self.ends = 0

    def work(self, number: int) -> None:
        serial = 0
        with openai.OpenAI(base_url=f"{self._url}/v1", api_key=self._key, max_retries=20, timeout=30) as client:
            while not self.stop.is_set():
                self._one(client, f"k{number}-{serial}")
                serial += 1

    def _one(self, client: openai.OpenAI, name: str) -> None:
        ids = [f"{name}-{i}" for i in range(REQUESTS)]
        content = "\n".join(
            json.dumps({
                "custom_id": id_, "method": "POST", "url": "/v1/chat/completions",
                "body": {"model": "gpt-4.1", "messages": [{"role": "user", "content": f"{id_} " + "word " * 100}]},
            })
            for id_ in ids
        )  # fmt: skip
        file = client.files.create(file=(f"{name}.jsonl", content.encode()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )  # fmt: skip
        self.batches.append(batch.id)
        while batch.status not in ("completed", "failed", "expired", "cancelled"):
            time.sleep(0.5)
            batch = client.batches.retrieve(batch.id)
        assert batch.status == "completed" and batch.output_file_id, batch
        shown = client.files.retrieve(batch.output_file_id)
        got = client.files.content(batch.output_file_id).content
        assert len(got) == shown.bytes, "a half-written file was served"
        assert [json.loads(line)["custom_id"] for line in got.splitlines()] == ids, "not complete and in order"
        self.ends += 1


def _endure(kills: int, folder: Path) -> tuple[int, int]:
    """Kill a gateway so often, at times that a seed says; the batches created and ended."""
    dice = random.Random(kills)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    delays = {"validating": "0.2s", "start": "0.1s", "finalizing": "0.1s"}
    with emulator(limit="30K", rate=20_000, **delays) as provider:
        served = Served(provider.url, folder, ("--limit", "30K"), port=port).start()
        clients = _Clients(served.url, served.key)
        try:
            with ThreadPoolExecutor(CLIENTS) as pool:
                working = [pool.submit(clients.work, number) for number in range(CLIENTS)]
                for _ in range(kills):
                    time.sleep(dice.uniform(1.0, 5.0))
                    served.end(signal.SIGKILL)
                    served.start()
                clients.stop.set()
                for one in working:
                    one.result()
            with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key) as client:
                assert sorted(batch.id for batch in client.batches.list(limit=100)) == sorted(clients.batches)
        finally:
            clients.stop.set()
            served.end()
        report = provider.report()
    assert report["executed_again"] == 0, "a request was paid twice"
    assert report["refusals"] == {"at_create": 0, "late": 0}
    assert report["held_max_ratio"] <= 1
    assert not [path for path in (folder / "inputs").iterdir() if path.name.startswith("upload_")], (
        "half an upload is kept"
    )
    return len(clients.batches), clients.ends


def test_a_few_kills(tmp_path: Path) -> None:
    """None lost, none twice, no half-written file, never over the limit, one batch for each create."""
    made, ended = _endure(4, tmp_path)
    assert made == ended > 0


@pytest.mark.slow
def test_a_hundred_kills(tmp_path: Path) -> None:
    """The same for ten minutes."""
    made, ended = _endure(int(os.environ.get("KILLS", "100")), tmp_path)
    assert made == ended > 100
