"""The gateway under load, over real sockets and with the official SDK: `python -m benchmarks.gateway_load [ROW …]`.

`many`: 40 clients create 25 batches each at once, together 40 × the limit. `fairness`: a tenant with twice the limit comes
after one with 50 ×. `uploads`: 8 files of 200 MB at once, against a bare Starlette app that streams them to files.
`polls`: 500 clients poll while 20 batches run, against a bare FastAPI app with the same JSON.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks import workload
from sluicegate.testing import RunningEmulator, emulator

DELAYS = {"validating": "0.5s", "start": "0.3s", "finalizing": "0.2s"}
FIXED_S = 1.0
MODEL = "gpt-4.1-batch"
LIMIT = 30_000
RATE = 6_000


@contextmanager
def gateway(provider: RunningEmulator, folder: Path, *options: str) -> Iterator[tuple[str, psutil.Process]]:
    """``sluicegate serve`` in front of an emulator: its URL and its process."""
    hidden = ("OPENAI_", "AZURE_", "SLUICEGATE_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment |= {"AZURE_OPENAI_ENDPOINT": provider.url, "AZURE_OPENAI_API_KEY": "any"}
    command = [sys.executable, "-m", "sluicegate", "serve", "--port", "0", "--state", str(folder), "--poll", "0.5s"]
    with (folder.parent / "gateway.log").open("w") as log:
        process = subprocess.Popen(
            [*command, *options], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process.stdout.readline().rpartition("ready at ")[2].strip(), psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def key(folder: Path, tenant: str) -> str:
    """A key of a tenant."""
    command = [
        sys.executable,
        "-m",
        "sluicegate",
        "keys",
        "create",
        "--tenant",
        tenant,
        "--state",
        str(folder),
        "--json",
    ]
    made: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return made["key"]


def bring(url: str, secret: str, sources: list[Path], poll_s: float) -> list[float]:
    """What a client does: upload, create, poll to the end, check the output; seconds until each batch had ended."""
    from openai import OpenAI

    began = time.monotonic()
    ends = []
    with OpenAI(base_url=f"{url}/v1", api_key=secret) as client:
        made = []
        for source in sources:
            file = client.files.create(file=source, purpose="batch")
            made.append(
                client.batches.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
                )
            )  # fmt: skip
        for source, batch in zip(sources, made, strict=True):
            seen = client.batches.retrieve(batch.id)
            while seen.status not in ("completed", "failed", "expired", "cancelled"):
                time.sleep(poll_s)
                seen = client.batches.retrieve(batch.id)
            assert seen.status == "completed" and seen.output_file_id, seen
            ends.append(time.monotonic() - began)
            answers = client.files.content(seen.output_file_id).text.splitlines()
            wanted = [json.loads(line)["custom_id"] for line in source.open(encoding="utf-8")]
            assert [json.loads(line)["custom_id"] for line in answers] == wanted, "not complete and in order"
    return ends


def clients(url: str, work: list[tuple[str, list[Path]]], poll_s: float = 1.0) -> list[list[float]]:
    """Each (key, files) by a client of its own, ten to a process; an error of one ends the benchmark."""
    processes = []
    for start in range(0, len(work), 10):
        some = [[secret, [str(path) for path in sources]] for secret, sources in work[start : start + 10]]
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gateway_load", "clients", url, str(poll_s)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(some))
        process.stdin.close()
        processes.append(process)
    ends: list[list[float]] = []
    for process in processes:
        assert process.stdout is not None
        said = process.stdout.read()
        if process.wait():
            raise SystemExit("a client failed")
        ends += json.loads(said)
    return ends


def clients_main(url: str, poll_s: float) -> None:
    """One process of :func:`clients`."""
    work = json.load(sys.stdin)
    with ThreadPoolExecutor(len(work)) as pool:
        done = pool.map(lambda one: bring(url, one[0], [Path(name) for name in one[1]], poll_s), work)
        print(json.dumps(list(done)))


def seed_of(name: str, number: int) -> int:
    """The same for the same file in every process."""
    return zlib.crc32(f"{name}-{number}".encode())


def files(folder: Path, name: str, count: int, requests: int, tokens: int) -> list[Path]:
    """Input files of a client."""
    made = []
    for i in range(count):
        path = folder / f"{name}-{i}.jsonl"
        workload.write(path, requests=requests, tokens=tokens, largest=3_200, seed=seed_of(name, i), model=MODEL,
                       prefix=f"{name}-{i}")  # fmt: skip
        made.append(path)
    return made


def many(folder: Path) -> None:
    """40 clients × 25 batches."""
    with emulator(limit=str(LIMIT), rate=RATE, **DELAYS) as provider:
        state = folder / "state"
        secrets = [key(state, f"tenant-{i % 5}") for i in range(40)]
        work = [(secret, files(folder, f"c{i}", 25, 5, 40 * LIMIT // 1_000)) for i, secret in enumerate(secrets)]
        with gateway(provider, state, "--limit", str(LIMIT)) as (url, process):
            began = time.monotonic()
            clients(url, work, 3.0)
            seconds = time.monotonic() - began
            memory = process.memory_info().rss / 1e6
        books = provider.report()
    total = sum(sum(workload.sizes(5, 1_200, 3_200, seed_of(f"c{i}", j))) for i in range(40) for j in range(25))
    ideal = workload.ideal_s(total, rate=RATE, fixed_s=FIXED_S, limit=[(0.0, float(LIMIT))])
    print(
        f"| many | {seconds / ideal:.3f} × ideal ({seconds:.0f} s) | refusals at the provider {sum(books['refusals'].values())}"
        f", answered twice {books['executed_again']}, provider batches {books['batches']}, utilisation "
        f"{books['utilisation']:.2f}, gateway {memory:.0f} MB |", flush=True,
    )  # fmt: skip


def fairness(folder: Path) -> None:
    """B alone, then B after A; and A alone, for the utilisation."""
    b_files = files(folder, "b", 4, 60, LIMIT // 2)
    figures: dict[str, tuple[float, float]] = {}
    for name in ("b alone", "a and b", "a alone"):
        state = folder / name.replace(" ", "-")
        a_files = files(folder, f"a{name[-3:]}", 10, 600, 5 * LIMIT) if name != "b alone" else []
        with emulator(limit=str(LIMIT), rate=RATE, **DELAYS) as provider:
            a, b = key(state, "a"), key(state, "b")
            with gateway(provider, state, "--limit", str(LIMIT)) as (url, _):
                started = threading.Event()
                thread = threading.Thread(target=_submit, args=(url, a, a_files, started), daemon=True)
                thread.start()
                started.wait()
                time.sleep(5.0 if a_files else 0.0)
                seconds = max(bring(url, b, b_files, 0.3)) if name != "a alone" else 0.0
                time.sleep(max(0.0, 30.0 - seconds))
            figures[name] = seconds, _busy(provider.report(), 8.0, 28.0)
    slower = figures["a and b"][0] / figures["b alone"][0]
    used = figures["a and b"][1] / figures["a alone"][1]
    print(
        f"| fairness | B needs {slower:.2f} × its time alone ({figures['b alone'][0]:.1f} s) | utilisation {used:.2f} of "
        f"that with one tenant ({figures['a alone'][1]:.2f}) |", flush=True,
    )  # fmt: skip


def _submit(url: str, secret: str, sources: list[Path], done: threading.Event) -> None:
    from openai import OpenAI

    with OpenAI(base_url=f"{url}/v1", api_key=secret) as client:
        for source in sources:
            file = client.files.create(file=source, purpose="batch")
            client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    done.set()


def _busy(books: dict[str, Any], start: float, stop: float) -> float:
    """Mean of held ÷ limit between two times since the first create."""
    total = 0.0
    samples = books["samples"]
    for (at, held, limit), (until, _, _) in zip(samples, [*samples[1:], [stop, 0, 1]], strict=True):
        span = min(until, stop) - max(at, start)
        total += max(0.0, span) * held / limit
    return total / (stop - start)


BARE_UPLOAD = """
import shutil, sys, uuid
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
import asyncio, multipart
async def take(request):
    _, options = multipart.parse_options_header(request.headers["content-type"])
    with open(f"{sys.argv[2]}/{uuid.uuid4()}", "wb") as out, multipart.PushMultipartParser(options["boundary"]) as parser:
        async for chunk in request.stream():
            for event in parser.parse(chunk):
                if isinstance(event, (bytes, bytearray)):
                    out.write(event)
    return JSONResponse({})
app = Starlette(routes=[Route("/v1/files", take, methods=["POST"])])
import uvicorn
uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""

BARE_JSON = """
import json, sys
from fastapi import FastAPI
import uvicorn
app = FastAPI()
answer = json.loads(sys.argv[2])
@app.get("/v1/batches/{id}")
async def show(id: str):
    return answer
uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""


@contextmanager
def bare(program: str, *arguments: str) -> Iterator[str]:
    """The app to compare with, on a port of its own."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", program, str(port), *arguments])
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def uploads(folder: Path) -> None:
    """8 × 200 MB, by curl, so that the sender costs little."""
    source = folder / "large.jsonl"
    line = json.dumps({"custom_id": "x", "method": "POST", "url": "/v1/chat/completions", "body": {"model": MODEL}})
    with source.open("w") as out:
        for _ in range(199_000_000 // (len(line) + 1)):
            out.write(line + "\n")

    def send(url: str, secret: str) -> float:
        began = time.monotonic()
        command = ["curl", "-sS", "-o", os.devnull, "-w", "%{http_code}", "-F", "purpose=batch", "-F", f"file=@{source}",
                   "-H", f"authorization: Bearer {secret}", f"{url}/v1/files"]  # fmt: skip
        with ThreadPoolExecutor(8) as pool:
            codes = {
                subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(0)
            } | set(
                pool.map(lambda _: subprocess.run(command, capture_output=True, text=True, check=True).stdout, range(8))
            )
        assert codes == {"200"}, codes
        return time.monotonic() - began

    (folder / "bare").mkdir()
    with bare(BARE_UPLOAD, str(folder / "bare")) as url:
        plain = send(url, "x")
    state = folder / "state"
    with emulator() as provider, peak_of() as watch:
        secret = key(state, "one")
        with gateway(provider, state) as (url, process):
            watch(process)
            seconds = send(url, secret)
            peak = watch(None)
    mb = 8 * source.stat().st_size / 1e6
    print(
        f"| uploads | {plain / seconds:.2f} × bare Starlette ({mb / seconds:.0f} against {mb / plain:.0f} MB/s) | peak "
        f"{peak:.0f} MB |", flush=True,
    )  # fmt: skip


@contextmanager
def peak_of() -> Iterator[Callable[[psutil.Process | None], float]]:
    """``watch(process)`` begins, ``watch(None)`` tells the peak of its RSS in MB."""
    peak, stop = [0.0], threading.Event()

    def watch(process: psutil.Process | None) -> float:
        if process is not None:

            def look() -> None:
                while not stop.wait(0.05) and process.is_running():
                    peak[0] = max(peak[0], process.memory_info().rss / 1e6)

            threading.Thread(target=look, daemon=True).start()
        return peak[0]

    try:
        yield watch
    finally:
        stop.set()


def polls(folder: Path) -> None:
    """500 connections that poll as fast as they are answered."""
    with emulator(limit=str(LIMIT), rate=RATE, **DELAYS) as provider:
        state = folder / "state"
        secret = key(state, "one")
        with gateway(provider, state, "--limit", str(LIMIT)) as (url, _):
            _submit(url, secret, files(folder, "p", 20, 200, 2 * LIMIT), threading.Event())
            time.sleep(5)
            from openai import OpenAI

            with OpenAI(base_url=f"{url}/v1", api_key=secret) as client:
                batch = client.batches.list().data[5]
                before = client.batches.with_raw_response.retrieve(batch.id).text
            ages: list[float] = []
            stop = threading.Event()

            def look() -> None:
                import urllib.request

                while not stop.wait(1.0):
                    with urllib.request.urlopen(f"{url}/metrics") as answer:
                        text = answer.read().decode()
                    found = [line for line in text.splitlines() if line.startswith("sluicegate_turn_age_seconds ")]
                    ages.append(float(found[0].split()[1]))

            watcher = threading.Thread(target=look, daemon=True)
            watcher.start()
            ours = _poll(f"{url}/v1/batches/{batch.id}", secret)
            stop.set()
            watcher.join()
    with bare(BARE_JSON, before) as url:
        plain = _poll(f"{url}/v1/batches/{batch.id}", "x")
    print(
        f"| polls | {ours / plain:.2f} × bare FastAPI ({ours:.0f} against {plain:.0f} a second) | oldest turn "
        f"{max(ages, default=0.0):.1f} s |", flush=True,
    )  # fmt: skip


def _poll(url: str, secret: str, seconds: float = 12.0) -> float:
    """Requests a second of 500 connections."""
    import asyncio

    import aiohttp

    async def run() -> float:
        stop = time.monotonic() + seconds
        count = 0
        connector = aiohttp.TCPConnector(limit=500)
        headers = {"authorization": f"Bearer {secret}"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

            async def one() -> None:
                nonlocal count
                while time.monotonic() < stop:
                    async with session.get(url) as answer:
                        await answer.read()
                        assert answer.status == 200
                        count += 1

            await asyncio.gather(*(one() for _ in range(500)))
        return count / seconds

    return asyncio.run(run())


ROWS: dict[str, Callable[[Path], None]] = {"many": many, "fairness": fairness, "uploads": uploads, "polls": polls}


def main(wanted: list[str]) -> None:
    """Print the rows."""
    print(f"machine: {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    for name, row in ROWS.items():
        if not wanted or name in wanted:
            with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as folder:
                row(Path(folder))


if __name__ == "__main__":
    if sys.argv[1:2] == ["clients"]:
        clients_main(sys.argv[2], float(sys.argv[3]))
    else:
        main(sys.argv[1:])
