"""`make demo`: the well-known complaint about the Batch API, first as people meet it, then through Sluicegate.

Starts the emulator with a 30K-token limit on a `gpt-4.1` deployment, takes the docstrings of Python's standard library
(one request each, "summarise in one sentence"), and sends them twice: as thirty files under 30K each, one create after
the other; and with `sluicegate run`. Ends with what happened, and with the emulator's own books.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

REQUESTS = 1_800
DEPLOYMENT = "gpt-4.1"
LIMIT = 30_000
FILES = 30

console = Console()


def docstrings(wanted: int) -> list[tuple[str, str]]:
    """(name, docstring) of the longest docstrings of the standard library, in the order of the files."""
    every = list(all_docstrings())
    enough = sorted((len(text) for _, text in every), reverse=True)[:wanted][-1]
    return [(name, text) for name, text in every if len(text) >= enough][:wanted]


def all_docstrings() -> Iterator[tuple[str, str]]:
    """(place, docstring) of every module, class and function of the standard library."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if {"site-packages", "dist-packages", "test", "tests"} & set(path.relative_to(library).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            text = ast.get_docstring(node)
            if text:
                yield f"{path.relative_to(library)}:{getattr(node, 'lineno', 1)}", text[:20_000]


def write_requests(path: Path) -> int:
    """The demo's input file; returns how many requests it has."""
    count = 0
    with path.open("w", encoding="utf-8") as out:
        for name, text in docstrings(REQUESTS):
            messages = [
                {"role": "system", "content": "Summarise in one sentence."},
                {"role": "user", "content": text},
            ]
            body = {"model": DEPLOYMENT, "messages": messages, "max_tokens": 80}
            line = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    return count


@contextlib.contextmanager
def emulator(speed: str = "1") -> Iterator[str]:
    """A running emulator's URL."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "sluicegate", "emulate", "--port", "0", "--dialect", "azure", "--limit", "30K",
            "--rate", "30000", "--validating", "0.6s", "--start", "0.4s", "--finalizing", "0.2s", "--speed", speed,
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        if "http" not in ready:
            raise SystemExit("the emulator did not start")
        yield ready[ready.index("http") :].split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)
        if process.stdout is not None:
            process.stdout.close()


def report(url: str) -> dict[str, Any]:
    """The emulator's own books."""
    with urllib.request.urlopen(f"{url}/_emulator/report", timeout=10) as answer:
        books: dict[str, Any] = json.load(answer)
    return books


def thirty_files(requests: Path, folder: Path) -> list[Path]:
    """What people do: cut by hand into files that are each well below the limit."""
    lines = requests.read_text(encoding="utf-8").splitlines(keepends=True)
    each = -(-len(lines) // FILES)
    files = []
    for i in range(FILES):
        path = folder / f"part-{i:02}.jsonl"
        path.write_text("".join(lines[i * each : (i + 1) * each]), encoding="utf-8")
        files.append(path)
    return files


def by_hand(url: str, requests: Path, folder: Path) -> tuple[int, int, str]:
    """Thirty files, one create after the other, with the official SDK: (batches accepted, answers, the refusal)."""
    client = openai.AzureOpenAI(azure_endpoint=url, api_key="demo", api_version="2024-10-21")
    accepted = []
    for path in thirty_files(requests, folder):
        with path.open("rb") as content:
            file = client.files.create(file=content, purpose="batch")
        while client.files.retrieve(file.id).status != "processed":
            time.sleep(0.05)
        with contextlib.suppress(openai.BadRequestError):
            accepted.append(
                client.batches.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
                ).id
            )
    answers, refusal = 0, ""
    for batch_id in accepted:
        while (batch := client.batches.retrieve(batch_id)).status not in (
            "completed",
            "failed",
            "expired",
            "cancelled",
        ):
            time.sleep(0.2)
        if batch.status == "completed" and batch.request_counts:
            answers += batch.request_counts.completed
        elif batch.errors and batch.errors.data:
            refusal = f"{batch.errors.data[0].code}: {batch.errors.data[0].message}"
    done = sum(1 for batch_id in accepted if client.batches.retrieve(batch_id).status == "completed")
    client.close()
    return done, answers, refusal


def through_sluicegate(url: str, requests: Path, folder: Path) -> tuple[Path, float]:
    """One command, the limit not told."""
    output = folder / "results.jsonl"
    command = [
        "run", str(requests), "-o", str(output), "--azure-endpoint", url, "--api-version", "2024-10-21",
        "--poll", "0.5s", "--state", str(folder / "state"),
    ]  # fmt: skip
    console.print(f"[dim]$ sluicegate run {requests.name} -o results.jsonl --azure-endpoint {url} …[/]")
    before = time.monotonic()
    environment = os.environ | {"AZURE_OPENAI_API_KEY": "demo"}
    done = subprocess.run([sys.executable, "-m", "sluicegate", *command], env=environment, check=False)
    if done.returncode != 0:
        raise SystemExit(f"sluicegate run ended with exit code {done.returncode}")
    return output, time.monotonic() - before


def check_order(requests: Path, output: Path) -> int:
    """Every request has its answer, in input order; returns how many."""
    wanted = [json.loads(line)["custom_id"] for line in requests.open(encoding="utf-8")]
    got = [json.loads(line)["custom_id"] for line in output.open(encoding="utf-8")]
    if wanted != got:
        raise SystemExit("the results are not complete and in order")
    return len(got)


def main() -> None:
    """Run the demo."""
    with tempfile.TemporaryDirectory(prefix="sluicegate-demo-") as name:
        folder = Path(name)
        requests = folder / "docstrings.jsonl"
        count = write_requests(requests)
        console.print(
            Panel(
                f'[b]{count:,}[/] requests: docstrings of Python\'s standard library, "summarise in one sentence".\n'
                f"One batch deployment [b]{DEPLOYMENT}[/] whose enqueued-token limit is [b]{LIMIT:,}[/].",
                title="The work",
            )
        )
        console.rule("1. As people do it: thirty files under 30K each, one create after the other")
        with emulator() as url:
            batches, answers, refusal = by_hand(url, requests, folder)
            hand = report(url)
        console.print(f"[red]{refusal}[/]")
        console.print(
            f"{batches} of {FILES} batches went through; [b red]{count - answers:,} of {count:,} requests have no answer[/]."
        )
        console.rule("2. The same work through Sluicegate, which is not told the limit")
        with emulator() as url:
            output, seconds = through_sluicegate(url, requests, folder)
            books = report(url)
        complete = check_order(requests, output)
        table = Table(title="What happened")
        for column in ("", "thirty files by hand", "sluicegate run"):
            table.add_column(column, justify="left" if not column else "right")
        table.add_row("requests answered", f"{answers:,}", f"{complete:,}")
        table.add_row("requests without an answer", f"{count - answers:,}", f"{count - complete:,}")
        table.add_row("refusals", f"{sum(hand['refusals'].values())}", f"{sum(books['refusals'].values())}")
        table.add_row("most ever offered ÷ limit", f"{hand['offered_max']:.2f}", f"{books['offered_max']:.2f}")
        table.add_row("provider batches", f"{hand['batches']}", f"{books['batches']}")
        table.add_row("requests run twice", f"{hand['executed_again']}", f"{books['executed_again']}")
        table.add_row("seconds", "", f"{seconds:.0f}")
        console.print(table)
        if books["executed_again"] or books["offered_max"] > 1.0:
            raise SystemExit("the emulator's books say that a request ran twice or the limit was exceeded")
        console.print(
            "[green]The emulator's own books: no request ran twice, and the limit was never exceeded.[/]\n"
            "[dim]The answers are the emulator's; with AZURE_OPENAI_ENDPOINT and a key the same command runs for real.[/]"
        )


if __name__ == "__main__":
    main()
