"""One limit, five applications: each is a process with the official SDK, and nobody sees a refusal.

An emulator with a limit of 30K enqueued tokens, the gateway in front of it, five tenants of different weights and sizes.
Run it with ``make demo-gateway``; it takes about a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from openai import OpenAI

from sluicegate.testing import emulator

APPLICATIONS = (
    ("search", 3.0, 300),
    ("tickets", 1.0, 200),
    ("reports", 1.0, 150),
    ("labels", 2.0, 100),
    ("notes", 1.0, 50),
)
"""Name, weight, requests of about 230 tokens."""

LIMIT = "30K"


def application(url: str, key: str, name: str, count: int) -> None:
    """What an application does: it knows nothing of limits. Its only change is ``base_url``."""
    client = OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    lines = [
        json.dumps(
            {
                "custom_id": f"{name}-{i}", "method": "POST", "url": "/v1/chat/completions",
                "body": {"model": "gpt-4.1", "messages": [{"role": "user", "content": f"{name} {i} " + "word " * 220}]},
            }
        )
        for i in range(count)
    ]  # fmt: skip
    file = client.files.create(file=("requests.jsonl", "\n".join(lines).encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"application": name}
    )
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.5)
        batch = client.batches.retrieve(batch.id)
    answers = client.files.content(batch.output_file_id or "").text.splitlines()
    in_order = [json.loads(line)["custom_id"] for line in answers] == [f"{name}-{i}" for i in range(count)]
    sys.exit(0 if batch.status == "completed" and in_order else 1)


def make_key(state: Path, tenant: str, *more: str) -> str:
    """A key for a tenant, as an administrator makes it."""
    command = [
        sys.executable,
        "-m",
        "sluicegate",
        "keys",
        "create",
        "--tenant",
        tenant,
        "--state",
        str(state),
        "--json",
        *more,
    ]
    made: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return made["key"]


def table(client: OpenAI) -> str:
    """Where the five batches stand."""
    batches = {batch.metadata["application"]: batch for batch in client.batches.list() if batch.metadata}
    cells = []
    for name, weight, count in APPLICATIONS:
        batch: Any = batches.get(name)
        done = batch.request_counts.completed if batch else 0
        cells.append(f"{name} (weight {weight:g}) {done:>3}/{count} {batch.status if batch else 'not sent yet':<12}")
    return "  ".join(cells)


def main() -> int:
    """Run it all; 0 if every application has all its answers and the provider never refused."""
    with (
        tempfile.TemporaryDirectory(prefix="sluicegate-demo-") as folder,
        emulator(limit=LIMIT, rate=9_000, validating="0.5s", start="0.3s", finalizing="0.3s") as provider,
    ):
        state = Path(folder)
        hidden = ("OPENAI_", "AZURE_", "SLUICEGATE_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        keys = {name: make_key(state, name, "--weight", str(weight)) for name, weight, _ in APPLICATIONS}
        admin = make_key(state, "administration", "--role", "admin")
        gateway = subprocess.Popen(
            [sys.executable, "-m", "sluicegate", "serve", "--port", "0", "--state", str(state), "--poll", "0.5s",
             "--limit", LIMIT],
            env=environment | {"AZURE_OPENAI_ENDPOINT": provider.url, "AZURE_OPENAI_API_KEY": "any"},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert gateway.stdout is not None
            url = gateway.stdout.readline().rpartition("ready at ")[2].strip()
            print(f"gateway at {url}, provider's limit {LIMIT} enqueued tokens, work about 6 times that")
            began = time.monotonic()
            command = [sys.executable, __file__, "application", url]
            clients = [subprocess.Popen([*command, keys[name], name, str(count)]) for name, _, count in APPLICATIONS]
            watcher = OpenAI(base_url=f"{url}/v1", api_key=admin)
            shown = ""
            while True:
                ended = all(client.poll() is not None for client in clients)
                if (now := table(watcher)) != shown:
                    print(f"{time.monotonic() - began:5.1f} s  {now}", flush=True)
                    shown = now
                if ended:
                    break
                time.sleep(2)
        finally:
            gateway.terminate()
            gateway.wait()
        report = provider.report()
        refused = sum(report["refusals"].values())
        whole = sum(client.returncode == 0 for client in clients)
        print(f"applications with every answer, in order: {whole} of {len(clients)}")
        print(
            f"the provider's books: {report['batches']} batches, {refused} refusals, most held "
            f"{report['held_max']:,} tokens ({report['held_max_ratio']:.0%} of the limit), "
            f"{report['executed_again']} requests answered twice"
        )
        return 0 if whole == len(clients) and not refused and not report["executed_again"] else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["application"]:
        application(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    sys.exit(main())
