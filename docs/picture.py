"""Make docs/run.svg: the live screen of a real run against the emulator, half-way through (`python docs/picture.py`)."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import deque
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import workload

from sluicegate.api import run_async
from sluicegate.cli.screen import View, render
from sluicegate.core.report import Event, Progress
from sluicegate.settings import Settings
from sluicegate.testing import emulator

WIDTH = 104


def main() -> None:
    """Run, and keep the screen that shows most."""
    events: deque[Event] = deque(maxlen=6)
    best: list[View] = []

    def progress(now: Progress) -> None:
        if 0.45 < now.done / now.total < 0.7:
            best.append(View(inputs=("requests.jsonl",), progress=now, events=tuple(events)))

    os.environ["AZURE_OPENAI_API_KEY"] = "any"
    with tempfile.TemporaryDirectory() as name, emulator(limit="30K", rate=9000) as provider:
        source = Path(name) / "requests.jsonl"
        workload.write(source, requests=400, tokens=180_000, model="gpt-4.1")
        provider.post("/_emulator/foreign", tokens=4_000, seconds=120, deployment="gpt-4.1")
        settings = Settings.load(
            {"azure_endpoint": provider.url, "api_version": "2024-10-21", "poll": "1s", "state": Path(name) / "state"}
        )
        asyncio.run(run_async(source, settings=settings, on_event=events.append, on_progress=progress))
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print("[bold green]$[/] sluicegate run requests.jsonl -o results.jsonl")
    console.print(render(best[len(best) // 2], width=WIDTH, height=26))
    console.save_svg(str(Path(__file__).parent / "run.svg"), title="sluicegate run")


if __name__ == "__main__":
    main()
