"""A gateway in front of an emulator: two real processes, real sockets, the official SDK."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import SecretStr

from sluicegate.service.context import Context
from sluicegate.settings import Settings
from sluicegate.testing import emulator
from sluicegate.wiring import context


@dataclass
class Served:
    """A gateway process on a data folder."""

    provider: str
    state: Path
    options: tuple[str, ...] = ()
    dialect: str = "azure"
    prefix: tuple[str, ...] = ()
    port: int = 0
    process: Any = None
    url: str = ""
    key: str = ""
    reader: Any = None
    said: list[str] = field(default_factory=list)
    clients: list[openai.OpenAI] = field(default_factory=list)

    def start(self) -> Served:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "AZURE_", "SLUICEGATE_"))}
        environment |= (
            {"AZURE_OPENAI_ENDPOINT": self.provider, "AZURE_OPENAI_API_KEY": "provider-secret"}
            if self.dialect == "azure"
            else {"OPENAI_BASE_URL": f"{self.provider}/v1", "OPENAI_API_KEY": "provider-secret"}
        )
        command = [
            *self.prefix, sys.executable, "-m", "sluicegate", "serve", "--port", str(self.port), "--state", str(self.state),
            "--poll", "0.2s", *self.options,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in self.process.stdout:
            self.said.append(line)
            if "ready at " in line:
                self.url = line.rpartition("ready at ")[2].strip()
                first = self.state / "first-key"
                self.key = first.read_text().strip() if first.exists() else self.key
                # Its log is read all the time: a full pipe would stop it.
                self.reader = threading.Thread(target=self.said.extend, args=(self.process.stdout,), daemon=True)
                self.reader.start()
                return self
        self.process.wait()
        self.process.stdout.close()
        raise RuntimeError("the gateway did not start: " + "".join(self.said))

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        while self.clients:
            self.clients.pop().close()
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(10)
        self.process.stdout.close()

    def client(self, **options: Any) -> openai.OpenAI:
        self.clients.append(openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, **options))
        return self.clients[-1]


@pytest.fixture(scope="module")
def provider() -> Iterator[Any]:
    """An emulator whose limit is far below the work, so that a blind client would be refused."""
    with emulator(limit="30K", rate=60_000, validating="0.1s", start="0.1s", finalizing="0.1s") as running:
        yield running


@pytest.fixture(scope="module")
def gateway(provider: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway for the tests of one module."""
    served = Served(provider.url, tmp_path_factory.mktemp("state"), ("--limit", "30K")).start()
    yield served
    served.end()


@pytest.fixture
def requests_file(tmp_path: Path) -> Callable[..., Path]:
    """Makes input files of ``count`` requests with about ``words`` tokens each."""

    def make(count: int, words: int = 200, name: str = "requests.jsonl", **body: Any) -> Path:
        path = tmp_path / name
        lines = [
            json.dumps({
                "custom_id": f"ask/{i} ä", "method": "POST", "url": "/v1/chat/completions",
                "body": {"model": "gpt-4.1", "messages": [{"role": "user", "content": f"{i} " + "word " * words}]} | body,
            })
            for i in range(count)
        ]  # fmt: skip
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return make


def until_ended(client: Any, batch: Any, seconds: float = 90.0) -> tuple[Any, list[str]]:
    """Poll as clients do; the batch at its end, and the statuses seen on the way."""
    seen: list[str] = []
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        batch = client.batches.retrieve(batch.id)
        if not seen or seen[-1] != batch.status:
            seen.append(batch.status)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch, seen
        time.sleep(0.1)
    raise AssertionError(f"the batch did not end; it went through {seen}: {batch}")


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Context]:
    """A real context whose provider is never asked."""
    async with context(
        Settings(azure_endpoint="http://127.0.0.1:1", azure_api_key=SecretStr("k"), state=tmp_path)
    ) as made:
        yield made
