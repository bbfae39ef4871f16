"""The gateway for half an hour on an emulator at 30 × speed: `python -m benchmarks.gateway_soak [MINUTES]`.

Clients of three tenants make batches all the time; some cancel, some upload in parts, some delete their inputs; the emulator
loses answers, fails lines, expires batches and lets some stick. Everything is kept for two minutes only, so memory, rows,
files and sockets have to come to rest. Printed each minute; at the end the second half is compared with the first.
"""

from __future__ import annotations

import json
import platform
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import mean
from typing import Any, Final

import openai
import psutil

from benchmarks.gateway_load import gateway, key
from sluicegate.testing import emulator

SPEED: Final = 30
CLIENTS: Final = 12
CONFIG: Final = """
dialect = "azure"
limit = "200K"
rate = 2000
delays = "lognormal"
validating = "20s"
start = "10s"
finalizing = "10s"

[[fault]]
on = "create"
kind = "lost"
nth = 20
times = 0
every = 40

[[fault]]
on = "upload"
kind = "503"
nth = 10
times = 0
every = 50

[[fault]]
on = "download"
kind = "broken"
nth = 10
times = 0
every = 30

[[fault]]
on = "line"
kind = "429"
nth = 3
times = 0
chance = 0.02

[[fault]]
on = "batch"
kind = "expire"
nth = 30
times = 0
every = 60
"""


class _Load:
    """Clients that go on until they are told to stop."""

    def __init__(self, url: str, secrets: list[str]) -> None:
        self._url, self._secrets = url, secrets
        self.stop = threading.Event()
        self.ends: Counter[str] = Counter()
        self.wrong: list[str] = []

    def work(self, number: int) -> None:
        dice = random.Random(number)
        with openai.OpenAI(base_url=f"{self._url}/v1", api_key=self._secrets[number % 3], max_retries=5) as client:
            serial = 0
            while not self.stop.is_set():
                try:
                    self._one(client, dice, f"s{number}-{serial}")
                except Exception as error:  # noqa: BLE001 - the soak's result, not its end
                    self.wrong.append(f"{type(error).__name__}: {error}"[:300])
                    time.sleep(1.0)
                serial += 1

    def _one(self, client: openai.OpenAI, dice: random.Random, name: str) -> None:
        ids = [f"{name}-{i}" for i in range(dice.choice((1, 5, 20, 60)))]
        lines = [
            json.dumps({
                "custom_id": id_, "method": "POST", "url": "/v1/chat/completions",
                "body": {"model": "gpt-4.1", "messages": [{"role": "user", "content": f"{id_} " + "word " * 150}]},
            })
            for id_ in ids
        ]  # fmt: skip
        content = "\n".join(lines).encode()
        if dice.random() < 0.2:
            upload = client.uploads.create(
                bytes=len(content), filename="in.jsonl", mime_type="application/jsonl", purpose="batch"
            )  # fmt: skip
            part = client.uploads.parts.create(upload.id, data=content)
            done = client.uploads.complete(upload.id, part_ids=[part.id])
            assert done.file is not None
            file_id = done.file.id
        else:
            file_id = client.files.create(file=("in.jsonl", content), purpose="batch").id
        batch = client.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")
        if dice.random() < 0.1:
            time.sleep(dice.random() * 3)
            with suppress(openai.ConflictError):  # it has ended meanwhile
                client.batches.cancel(batch.id)
        while batch.status not in ("completed", "failed", "expired", "cancelled"):
            time.sleep(1.0)
            batch = client.batches.retrieve(batch.id)
        self.ends[batch.status] += 1
        found = [
            json.loads(line)["custom_id"]
            for id_ in (batch.output_file_id, batch.error_file_id)
            for line in (client.files.content(id_).text.splitlines() if id_ else ())
        ]
        if (found or batch.status == "completed") and sorted(found) != sorted(ids):
            self.wrong.append(f"{batch.id} {batch.status}: {len(found)} of {len(ids)} answers")
        client.files.delete(file_id)


def _look(process: psutil.Process, state: Path) -> dict[str, float]:
    with sqlite3.connect(f"file:{state / 'sluicegate.sqlite3'}?mode=ro", uri=True) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = sum(database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables)
    database.close()
    return {
        "memory MB": process.memory_info().rss / 1e6, "rows": rows,
        "files": sum(1 for path in state.rglob("*") if path.is_file()), "descriptors": process.num_fds(),
        "threads": process.num_threads(), "database MB": (state / "sluicegate.sqlite3").stat().st_size / 1e6,
    }  # fmt: skip


@contextmanager
def _provider(folder: Path) -> Iterator[Any]:
    (folder / "emulator.toml").write_text(CONFIG)
    with emulator(speed=SPEED, config=folder / "emulator.toml") as provider:
        yield provider


def soak(folder: Path, minutes: float) -> int:
    """0 if nothing was wrong and nothing grew."""
    state = folder / "state"
    seen: list[dict[str, float]] = []
    with _provider(folder) as provider:
        secrets = [key(state, f"tenant-{i}") for i in range(3)]
        options = ("--limit", "200K", "--set", "gateway_keep=2m")
        with gateway(provider, state, *options) as (url, process):
            load = _Load(url, secrets)
            threads = [threading.Thread(target=load.work, args=(number,), daemon=True) for number in range(CLIENTS)]
            for thread in threads:
                thread.start()
            until = time.monotonic() + 60 * minutes
            while time.monotonic() < until:
                time.sleep(min(60.0, 6 * minutes))
                seen.append(_look(process, state))
                told = ", ".join(f"{name} {value:,.0f}" for name, value in seen[-1].items())
                print(f"{len(seen):3}: {told}; ends {dict(load.ends)}; wrong {len(load.wrong)}", flush=True)
            load.stop.set()
            for thread in threads:
                thread.join(120)
        books = provider.report()
    print(f"provider batches {books['batches']}, refusals {books['refusals']}, twice {books['executed_again']}, most held "
          f"{books['held_max_ratio']:.2f}")  # fmt: skip
    grown = []
    steady = seen[len(seen) // 4 :]
    half = len(steady) // 2
    for name in seen[0]:
        before, after = (mean(one[name] for one in some) for some in (steady[:half], steady[half:]))
        print(f"| {name} | {before:,.1f} | {after:,.1f} |")
        if after > 1.1 * before + 5:
            grown.append(name)
    for sentence in load.wrong[:20]:
        print(sentence)
    print(f"grown: {', '.join(grown) or 'nothing'}")
    return 1 if grown or load.wrong or books["executed_again"] else 0


def main() -> int:
    """The command."""
    print(f"machine: {platform.machine()}, {psutil.cpu_count()} CPUs, Python {platform.python_version()}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        return soak(Path(folder), float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)


if __name__ == "__main__":
    sys.exit(main())
