"""For tests of programs that use the Batch API: an emulator of one's own, on a free port, gone at the end.

>>> from sluicegate.testing import emulator
>>> with emulator(limit="30K", rate=6000) as provider:  # doctest: +SKIP
...     client = openai.AzureOpenAI(azure_endpoint=provider.url, api_key="any", api_version="2024-10-21")
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RunningEmulator:
    """An emulator that accepts connections at ``url``."""

    url: str

    def get(self, path: str) -> Any:
        """The JSON at a path of the emulator's own, for instance ``/_emulator/held``."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, **body: Any) -> Any:
        """Send JSON to a path of the emulator's own, for instance ``/_emulator/limit``."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def report(self) -> dict[str, Any]:
        """The emulator's books (docs/emulate.md)."""
        books: dict[str, Any] = self.get("/_emulator/report")
        return books


@contextmanager
def emulator(*flags: str, **options: Any) -> Iterator[RunningEmulator]:
    """Start ``sluicegate emulate`` as a process of its own.

    Args:
        flags, options: Its flags: ``"--fail-fast"`` or ``validating="4s"``; underscores stand for dashes.

    Raises:
        RuntimeError: it did not start; the message has what it said.
    """
    named = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "sluicegate", "emulate", "--port", "0", *flags, *named]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        if "ready at " not in ready:
            raise RuntimeError(f"the emulator did not start: {ready}{process.stdout.read()}")
        yield RunningEmulator(url=ready.rpartition("ready at ")[2].strip())
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
