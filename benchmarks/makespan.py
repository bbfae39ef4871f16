"""How long runs take against the fluid bound, over real sockets: `python -m benchmarks.makespan [ROW …]`.

Each row starts an emulator and `sluicegate run` as processes of their own, 600 chat requests of log-normal size (about
285,000 tokens), an enqueued-token limit of 60,000, one look a second at most. *Ideal* is the fluid bound
(:func:`benchmarks.workload.ideal_s`). The worse of the two service disciplines counts.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import workload
from sluicegate.core.limits import parse_duration
from sluicegate.testing import RunningEmulator, emulator

RATE_BOUND = {"rate": 6000, "validating": "1s", "start": "1s", "finalizing": "0.5s"}
LIMIT_BOUND = {"rate": 20000, "validating": "4s", "start": "4s", "finalizing": "2s"}
BOTH = {"rate": 6000, "validating": "4s", "start": "4s", "finalizing": "2s"}
LIMIT = 60_000
OTHERS, OTHERS_S = 36_000, 40.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: a service, what is told, what happens meanwhile, and the bar."""

    name: str
    service: dict[str, Any]
    bar: str
    flags: tuple[str, ...] = ()
    told: int | None = None
    limits: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, float(LIMIT))])
    others: bool | None = None  # others hold OTHERS tokens for the first OTHERS_S: listed or not
    factor: float = 1.0


ROWS = [
    Row(name="told, rate-bound", service=RATE_BOUND, bar="≤ 1.10, 0", told=LIMIT),
    Row(name="told, limit-bound", service=LIMIT_BOUND, bar="≤ 1.18, 0", told=LIMIT),
    Row(name="told, both bind", service=BOTH, bar="≤ 1.38, 0", told=LIMIT),
    Row(name="not told, late, Azure", service=RATE_BOUND, bar="≤ 1.20, ≤ 2", flags=("--no-headers",)),
    Row(name="not told, at create, Azure", service=RATE_BOUND, bar="≤ 1.20, ≤ 2", flags=("--fail-fast", "--no-headers")),
    Row(name="not told, late, OpenAI's text", service=RATE_BOUND, bar="≤ 1.20, ≤ 2",
        flags=("--refusal", "openai", "--no-headers")),
    Row(name="not told, headers", service=RATE_BOUND, bar="≤ 1.20, ≤ 2"),
    Row(name="not told, limit-bound, no number", service=LIMIT_BOUND, bar="half ≥ 0.65, ≤ 6",
        flags=("--refusal", "bare", "--no-headers")),
    Row(name="told twice as high", service=RATE_BOUND, bar="≤ 1.20, ≤ 2", told=2 * LIMIT, flags=("--no-headers",)),
    Row(name="limit × 3 after 25 s", service=LIMIT_BOUND, bar="≤ 1.5", limits=[(0.0, 60_000.0), (25.0, 180_000.0)]),
    Row(name="limit × 3 after 25 s, no headers", service=LIMIT_BOUND, bar="≤ 1.5",
        limits=[(0.0, 60_000.0), (25.0, 180_000.0)], flags=("--no-headers",)),
    Row(name="limit halved after 15 s", service=LIMIT_BOUND, bar="≤ 1.25", told=LIMIT,
        limits=[(0.0, 60_000.0), (15.0, 30_000.0)]),
    Row(name="others 60 % for 40 s, listed", service=RATE_BOUND, bar="≤ 1.20, 0", told=LIMIT, others=True),
    Row(name="others 60 % for 40 s, in no list", service=LIMIT_BOUND, bar="≤ 1.30, ≤ 3", told=LIMIT, others=False),
    Row(name="provider counts 15 % more", service=RATE_BOUND, bar="≤ 1.25, ≤ 2", told=LIMIT, factor=1.15),
]  # fmt: skip


def script(provider: RunningEmulator, row: Row, stop: threading.Event) -> None:
    """What happens meanwhile, reckoned from the first create."""
    while not stop.is_set() and provider.report()["batches"] == 0:
        time.sleep(0.02)
    began = time.monotonic()
    for at, limit in row.limits[1:]:
        stop.wait(max(0.0, at - (time.monotonic() - began)))
        if not stop.is_set():
            provider.post("/_emulator/limit", limit=round(limit))


def run(row: Row, discipline: str, folder: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """One run of a row; its figures."""
    source = folder / "requests.jsonl"
    workload.write(source)
    tokens = sum(workload.sizes()) * row.factor
    options = {"limit": f"{LIMIT}", "discipline": discipline, "count-factor": row.factor, **row.service}
    with emulator(*row.flags, **options) as provider:
        if row.others is not None:
            provider.post(
                "/_emulator/foreign", tokens=OTHERS, seconds=OTHERS_S + 1, listed=row.others, deployment="gpt-4.1-batch"
            )
            time.sleep(0.2)
        command = [
            sys.executable, "-m", "sluicegate", "run", str(source), "-o", str(folder / "out.jsonl"), "--azure-endpoint",
            provider.url, "--api-version", "2024-10-21", "--poll", "1s", "--state", str(folder / "state"), "--json",
        ]  # fmt: skip
        if row.told:
            command += ["--limit", str(row.told)]
        stop = threading.Event()
        watcher = threading.Thread(target=script, args=(provider, row, stop), daemon=True)
        watcher.start()
        before = time.monotonic()
        with (folder / "log").open("w") as log:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, timeout=400, check=False,
                env=os.environ | {"AZURE_OPENAI_API_KEY": "any"},
            )  # fmt: skip
        seconds = time.monotonic() - before
        stop.set()
        watcher.join()
        books = provider.report()
    if done.returncode != 0:
        progress((folder / "log").read_text()[-2000:])
        raise SystemExit(f"{row.name}: exit code {done.returncode}")
    got = [json.loads(line)["custom_id"] for line in (folder / "out.jsonl").open()]
    assert got == [f"request-{i}" for i in range(600)], "the results are not complete and in order"
    ideal = ideal_of(row, tokens)
    return {
        "ratio": seconds / ideal, "seconds": seconds, "batches": books["batches"],
        "refusals": sum(books["refusals"].values()), "offered": books["offered_max"], "again": books["executed_again"],
        "utilisation": books["utilisation"], "half": second_half(books["samples"]),
    }  # fmt: skip


def ideal_of(row: Row, tokens: float) -> float:
    """The fluid bound of a row, in seconds."""
    fixed = sum(parse_duration(row.service[name]) for name in ("validating", "start", "finalizing"))
    foreign = [(0.0, OTHERS_S, float(OTHERS))] if row.others is not None else []
    return workload.ideal_s(tokens, rate=row.service["rate"], fixed_s=fixed, limit=row.limits, foreign=foreign)


def second_half(samples: list[tuple[float, int, int | None]]) -> float:
    """Mean of held ÷ limit over the second half of the time in which work waited (until the last create)."""
    rises = [at for (at, held, _), (_, before, _) in zip(samples[1:], samples, strict=False) if held > before]
    stop = max(rises, default=0.0)
    start = stop / 2
    total = 0.0
    for (at, held, limit), (until, _, _) in itertools.pairwise(samples):
        span = min(until, stop) - max(at, start)
        if span > 0 and limit:
            total += span * held / limit
    return total / (stop - start) if stop else 0.0


def main(wanted: list[str]) -> None:
    """Print the table."""
    print(f"machine: {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(
        "| row | must | shared: ratio, refusals | fifo: ratio, refusals | batches | most offered | utilisation (2nd half) |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in ROWS:
        if wanted and not any(word in row.name for word in wanted):
            continue
        figures = []
        for discipline in ("shared", "fifo"):
            with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as folder:
                figures.append(run(row, discipline, Path(folder), print))
        a, b = figures
        print(
            f"| {row.name} | {row.bar} | {a['ratio']:.3f}, {a['refusals']} | {b['ratio']:.3f}, {b['refusals']} "
            f"| {max(a['batches'], b['batches'])} | {max(a['offered'], b['offered']):.3f} "
            f"| {min(a['utilisation'], b['utilisation']):.2f} ({min(a['half'], b['half']):.2f}) |",
            flush=True,
        )
        assert not a["again"] and not b["again"], "a request was executed again"


if __name__ == "__main__":
    main(sys.argv[1:])
