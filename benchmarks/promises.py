"""What must hold whatever happens, as figures: `python -m benchmarks.promises [ROW …]`.

Each row runs real processes over real sockets, as :mod:`benchmarks.makespan` does, and prints what was promised and what
came out. ``kills`` takes about half an hour with its fifty runs; ``kills=5`` does five.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import workload
from benchmarks.makespan import LIMIT, LIMIT_BOUND, OTHERS, RATE_BOUND
from sluicegate.testing import RunningEmulator, emulator

COUNTING = "SELECT run, sum(charge) FROM parts WHERE stage IN ('reserved', 'submitting', 'held') GROUP BY run"

DELAYS_S = 2.5
"""Of the rate-bound service: validating, start and finalizing together."""


def start(
    provider: RunningEmulator, folder: Path, sources: list[Path], *more: str, out: str = "results.jsonl"
) -> subprocess.Popen[bytes]:
    """A run of ``sources`` in the data folder ``state`` to ``out``; what it says goes to ``log-NAME``."""
    with (folder / f"log-{sources[0].stem}").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sluicegate", "run", *map(str, sources), "-o", str(folder / out),
             "--azure-endpoint", provider.url, "--api-version", "2024-10-21", "--json", "--state", str(folder / "state"), *more],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=os.environ | {"AZURE_OPENAI_API_KEY": "any", "SLUICEGATE_POLL": "1s"},
        )  # fmt: skip


def ids(path: Path) -> list[str]:
    """The custom_ids of a file's lines, in order."""
    with path.open() as lines:
        return [json.loads(line)["custom_id"] for line in lines]


def ended(process: subprocess.Popen[bytes], folder: Path, source: Path) -> None:
    """Wait for a run, and insist that it went well."""
    if process.wait(timeout=600) != 0:
        raise SystemExit((folder / f"log-{source.stem}").read_text()[-3000:])


@contextmanager
def folder_of() -> Iterator[Path]:
    """A temporary folder."""
    with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as name:
        (Path(name) / "out").mkdir()
        yield Path(name)


def say(row: str, must: str, got: str) -> None:
    """One line of the table."""
    print(f"| {row} | {must} | {got} |", flush=True)


def two(discipline: str) -> None:
    """Two processes, one data folder: the second starts five seconds after the first."""
    with folder_of() as folder, emulator(limit=f"{LIMIT}", discipline=discipline, **RATE_BOUND) as provider:
        sources = [folder / "a.jsonl", folder / "b.jsonl"]
        total = 0
        for seed, source in enumerate(sources):
            workload.write(source, seed=seed + 20, prefix=source.stem)
            total += sum(workload.sizes(seed=seed + 20))
        began = time.monotonic()
        first = start(provider, folder, [sources[0]], "--limit", f"{LIMIT}", out="a.out")
        time.sleep(5.0)
        second = start(provider, folder, [sources[1]], "--limit", f"{LIMIT}", out="b.out")
        joined = time.monotonic()
        shares: list[float] = []
        while first.poll() is None and second.poll() is None:
            time.sleep(0.5)
            with closing(sqlite3.connect(f"file:{folder}/state/sluicegate.sqlite3?mode=ro", uri=True)) as rows:
                held = dict(rows.execute(COUNTING))
                waits = {run for (run,) in rows.execute("SELECT DISTINCT run FROM waiting")}
            both = sum(held.values())
            if time.monotonic() - joined >= 20 and len(waits) == 2 and both > LIMIT / 2:
                shares.append(min(held.get(run, 0) for run in waits) / both)
        for process, source in ((first, sources[0]), (second, sources[1])):
            ended(process, folder, source)
        seconds = time.monotonic() - began
        ideal = workload.ideal_s(total, rate=RATE_BOUND["rate"], fixed_s=DELAYS_S, limit=[(0.0, float(LIMIT))])
        books = provider.report()
        for source in sources:
            assert ids(folder / f"{source.stem}.out") == ids(source)
        assert not books["executed_again"]
        say(f"two processes, {discipline}", "≤ 1.10, 0 refusals, share ≥ 0.40",
            f"{seconds / ideal:.3f}, {sum(books['refusals'].values())} refusals, smaller share {min(shares):.2f} at the "
            f"least, {statistics.mean(shares):.2f} on average")  # fmt: skip


def thirty(discipline: str) -> None:
    """The well-known complaint: thirty files, each just under a limit of 30K that nobody tells."""
    with folder_of() as folder, emulator("--no-headers", limit="30K", discipline=discipline, **RATE_BOUND) as provider:
        sources = [folder / f"part-{i:02}.jsonl" for i in range(30)]
        total = 0
        for seed, source in enumerate(sources):
            workload.write(source, requests=60, tokens=29_000, largest=3_200, seed=seed)
            total += sum(workload.sizes(60, 29_000, 3_200, seed))
        began = time.monotonic()
        ended(start(provider, folder, sources, out="out"), folder, sources[0])
        seconds = time.monotonic() - began
        ideal = workload.ideal_s(total, rate=RATE_BOUND["rate"], fixed_s=DELAYS_S, limit=[(0.0, 30_000.0)])
        books = provider.report()
        for source in sources:
            assert ids(folder / "out" / f"{source.stem}.results.jsonl") == ids(source)
        assert not books["executed_again"]
        say(f"thirty files, {discipline}", "≤ 1.20, ≤ 1 refusal",
            f"{seconds / ideal:.3f}, {sum(books['refusals'].values())} refusals, {books['batches']} batches")  # fmt: skip


def one(
    row: str,
    must: str,
    *flags: str,
    faults: tuple[dict[str, Any], ...] = (),
    more: tuple[str, ...] = (),
    **options: Any,
) -> None:
    """A run of 600 requests under faults."""
    with folder_of() as folder, emulator(*flags, **{"limit": f"{LIMIT}", **RATE_BOUND, **options}) as provider:
        for fault in faults:
            provider.post("/_emulator/fault", **fault)
        source = folder / "requests.jsonl"
        workload.write(source)
        began = time.monotonic()
        ended(start(provider, folder, [source], *more), folder, source)
        books = provider.report()
        assert ids(folder / "results.jsonl") == ids(source)
        say(row, must, f"{sum(books['refusals'].values())} refusals, {books['executed_again']} executed again, most "
            f"offered {books['offered_max']:.3f}, {time.monotonic() - began:.0f} s")  # fmt: skip


def lag(discipline: str) -> None:
    """The provider frees tokens twenty seconds late."""
    one(f"tokens freed 20 s late, {discipline}", "≤ 3 refusals", discipline=discipline, release_lag="20s")


def stuck(discipline: str) -> None:
    """The third batch stays in ``validating``."""
    one(f"a batch stuck in validating, {discipline}", "the rest goes on, sent again, nothing twice",
        faults=({"on": "batch", "kind": "stuck_validating", "nth": 3, "times": 1},),
        more=("--limit", f"{LIMIT}", "--set", "stuck_validating=15s"), discipline=discipline)  # fmt: skip


def expiry(discipline: str) -> None:
    """The third batch expires half done."""
    one(f"a batch expires half done, {discipline}", "finished half kept, 0 executed again",
        faults=({"on": "batch", "kind": "expire", "nth": 3, "times": 1},), more=("--limit", f"{LIMIT}"),
        discipline=discipline)  # fmt: skip


def quota(discipline: str) -> None:
    """`quota`, asked again and again while others' batches come and go, against the emulator's books."""
    with folder_of() as folder, emulator(limit=f"{LIMIT}", discipline=discipline, **LIMIT_BOUND) as provider:
        source = folder / "requests.jsonl"
        workload.write(source)
        process = start(provider, folder, [source], "--limit", f"{LIMIT}")
        stop = threading.Event()

        def others() -> None:
            while not stop.wait(7.0):
                provider.post(
                    "/_emulator/foreign", tokens=OTHERS // 3, seconds=5, listed=True, deployment="gpt-4.1-batch"
                )

        threading.Thread(target=others, daemon=True).start()
        asked, below, above, worst = 0, 0, 0, 1.0
        while process.poll() is None:
            seen = len(provider.report()["samples"])
            shown = json.loads(
                subprocess.run(
                    [sys.executable, "-m", "sluicegate", "quota", "--json", "--azure-endpoint", provider.url,
                     "--api-version", "2024-10-21", "--state", str(folder / "state")],
                    stdin=subprocess.DEVNULL, capture_output=True, check=True,
                    env=os.environ | {"AZURE_OPENAI_API_KEY": "any"},
                ).stdout
            )  # fmt: skip
            # What the books said at any moment since it was asked: a process takes a second to start and look.
            books = [held for _, held, _ in provider.report()["samples"][max(0, seen - 1) :]]
            rows = [row for row in shown if row["deployment"] == "gpt-4.1-batch"]
            if rows and max(books, default=0):
                asked += 1
                said = rows[0]["held"] + rows[0]["foreign"]
                worst = max(worst, said / max(books))
                below += said + rows[0]["reserved"] < min(books)
                above += said > 1.1 * max(books)
        stop.set()
        ended(process, folder, source)
        say(f"quota against the books, {discipline}", "never below, at most 10 % above",
            f"asked {asked} times: {below} below, {above} above, highest {worst:.3f}")  # fmt: skip


def kills(discipline: str, runs: int = 50) -> None:
    """Killed with SIGKILL at random moments, also while a create is answered, and started again until done."""
    dice = random.Random(11)
    lost = again = killed = 0
    offered = 0.0
    for number in range(runs):
        service = RATE_BOUND | {"rate": 30_000, "validating": "0.3s", "start": "0.2s", "finalizing": "0.1s"}
        with folder_of() as folder, emulator(limit=f"{LIMIT}", discipline=discipline, **service) as provider:
            if number % 2:
                provider.post("/_emulator/fault", on="create", kind="lost", nth=dice.randint(1, 6), times=2)
            source = folder / "requests.jsonl"
            workload.write(source, seed=number)
            more = ("--limit", f"{LIMIT}", "--poll", "0.3s")
            for _ in range(dice.randint(2, 6)):
                process = start(provider, folder, [source], *more)
                time.sleep(0.5 + 2.5 * dice.random())
                killed += process.poll() is None
                process.kill()
                process.wait()
            ended(start(provider, folder, [source], *more), folder, source)
            books = provider.report()
            lost += len(set(ids(source)) - set(ids(folder / "results.jsonl")))
            assert ids(folder / "results.jsonl") == ids(source)
            again += books["executed_again"]
            offered = max(offered, books["offered_max"])
    say(f"kill -9, {runs} runs, {discipline}", "0 lost, 0 executed again, most offered ≤ 1",
        f"{killed} kills: {lost} lost, {again} executed again, most offered {offered:.3f}")  # fmt: skip


ROWS: dict[str, Callable[..., None]] = {
    "two": two, "thirty": thirty, "lag": lag, "stuck": stuck, "expiry": expiry, "quota": quota, "kills": kills,
}  # fmt: skip


def main(wanted: list[str]) -> None:
    """Print the table."""
    print("| row | must | got |\n|---|---|---|")
    for word in wanted or list(ROWS):
        name, _, count = word.partition("=")
        for discipline in ("shared",) if name == "kills" else ("shared", "fifo"):
            ROWS[name](discipline, *([int(count)] if count else []))


if __name__ == "__main__":
    main(sys.argv[1:])
