"""Large inputs: memory of all processes together, time to the first create (`python -m benchmarks.large [REQUESTS BYTES]`).

The emulator has no delays and a limit of 1 B; it reads each file before the file is ``processed`` (that time is told apart)
and counts it by tiktoken before the batch leaves ``validating``. Memory is the sum of PSS over `sluicegate run` and its children.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

from benchmarks import workload
from sluicegate.testing import RunningEmulator, emulator


def write(path: Path, requests: int, size: int) -> None:
    """``requests`` chat requests of real words, about ``size`` bytes in all."""
    workload.write(path, requests=requests, tokens=round(size / 3.55), largest=8_000, model="gpt-4.1")


def pss(process: psutil.Process) -> int:
    """Proportional set size of a process and its children, bytes."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def statuses(provider: RunningEmulator) -> set[str]:
    """Of the files at the provider."""
    request = urllib.request.Request(f"{provider.url}/openai/files?api-version=2024-10-21", headers={"api-key": "any"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return {file["status"] for file in json.load(answer)["data"]}


def main(requests: int, size: int) -> None:
    """One run, its figures."""
    with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as name:
        folder = Path(name)
        source = folder / "requests.jsonl"
        write(source, requests, size)
        with emulator(limit="1B", validating="0s", start="0s", finalizing="0s") as provider:
            before = time.monotonic()
            with (folder / "log").open("w") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "sluicegate", "run", str(source), "-o", str(folder / "out.jsonl"),
                     "--azure-endpoint", provider.url, "--api-version", "2024-10-21", "--poll", "1s", "--limit", "1B",
                     "--state", str(folder / "state"), "--json"],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    env=os.environ | {"AZURE_OPENAI_API_KEY": "any"},
                )  # fmt: skip
                watched = psutil.Process(process.pid)
                peak, first, since, pending = 0, None, 0.0, 0.0
                while process.poll() is None:
                    peak = max(peak, pss(watched))
                    if first is None and statuses(provider) == {"pending"}:
                        since = since or time.monotonic()
                        pending = time.monotonic() - since
                    if first is None and '"accepted"' in (folder / "log").read_text():
                        first = time.monotonic() - before
                    time.sleep(0.1)
            seconds = time.monotonic() - before
            books = provider.report()
        count = 0
        with (folder / "out.jsonl").open() as out:
            for count, line in enumerate(out, 1):
                assert json.loads(line)["custom_id"] == f"request-{count - 1}", "the results are not in order"
        assert count == requests, f"{count} of {requests} results"
        print(
            f"{platform.machine()}, {os.cpu_count()} CPUs: {requests:,} requests, {source.stat().st_size / 1e6:,.0f} MB: "
            f"{books['batches']} batches, peak {peak / 1e6:,.0f} MB in all processes, first create after "
            f"{first or 0:.1f} s (of which the file was pending for {pending:.1f} s), done after {seconds:.1f} s, "
            f"executed again {books['executed_again']}"
        )


if __name__ == "__main__":
    main(*(int(word.replace("_", "")) for word in sys.argv[1:3])) if len(sys.argv) > 2 else main(50_000, 182_000_000)
