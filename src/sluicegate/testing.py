"""For tests of programs that use the Batch API: an emulator of one's own, on a free port, gone at the end.

In pytest, the fixture ``batch_emulator`` (``pip install "sluicegate[testing]"``, docs/emulate.md). In any runner:

>>> from sluicegate.testing import local_emulator
>>> with local_emulator(limit="30K", clock="hand") as provider:
...     client = openai.OpenAI(base_url=provider.openai_url, api_key="any")  # doctest: +SKIP
...     provider.advance("24h")  # doctest: +SKIP
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RunningEmulator:
    """An emulator that accepts connections at ``url``, which is the ``azure_endpoint`` of ``AzureOpenAI``."""

    url: str

    @property
    def openai_url(self) -> str:
        """The ``base_url`` of ``OpenAI``."""
        return f"{self.url}/v1"

    @property
    def azure_v1_url(self) -> str:
        """The ``base_url`` of ``OpenAI`` for Azure's v1 surface."""
        return f"{self.url}/openai/v1"

    def get(self, path: str) -> Any:
        """The JSON at a path of the emulator's own, for instance ``/_emulator/held``."""
        return self._call("GET", path, None)

    def post(self, path: str, **body: Any) -> Any:
        """Send JSON to a path of the emulator's own, for instance ``/_emulator/limit``."""
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode("utf-8", "replace")
            raise ValueError(f"{method} {path}: {said}") from None

    def advance(self, time: str | float) -> float:
        """Let time pass on the emulated clock, all at once: ``"24h"`` or seconds; returns the new Unix time."""
        return float(self.post("/_emulator/clock", advance=time)["now"])

    def until_idle(self, *, at_most: int = 10_000) -> float:
        """Go from event to event until nothing happens by itself any more; returns the Unix time.

        Raises:
            RuntimeError: more than ``at_most`` events.
        """
        for _ in range(at_most):
            clock = self.get("/_emulator/clock")
            if clock["next_event_at"] is None:
                return float(clock["now"])
            self.post("/_emulator/clock", to="next")
        raise RuntimeError(f"the emulator is not idle after {at_most} events")

    def fault(self, on: str, kind: str, **rule: Any) -> None:
        """Order a fault, counted from now: ``fault("create", "lost")``, ``fault("line", "500", nth=3)`` (docs/emulate.md).

        Raises:
            ValueError: there is no such fault.
        """
        self.post("/_emulator/fault", on=on, kind=kind, **rule)

    def clear_faults(self) -> None:
        """No fault any more."""
        self._call("DELETE", "/_emulator/fault", None)

    def limit(self, tokens: str | int | None, deployment: str | None = None) -> None:
        """Set the enqueued-token limit, of a deployment or of all."""
        self.post("/_emulator/limit", limit=tokens, deployment=deployment)

    def others_hold(self, tokens: str | int, time: str | float = "1h", *, listed: bool = True, **more: Any) -> None:
        """Somebody else's load from now on, in the list of batches or not."""
        self.post("/_emulator/foreign", tokens=tokens, seconds=time, listed=listed, **more)

    def held(self) -> dict[str, Any]:
        """``{deployment: {held, limit, foreign}}`` now."""
        books: dict[str, Any] = self.get("/_emulator/held")
        return books

    def report(self) -> dict[str, Any]:
        """The emulator's books (docs/emulate.md)."""
        books: dict[str, Any] = self.get("/_emulator/report")
        return books

    def token(self, **claims: Any) -> str:
        """A Bearer token as Entra's, signed with the account's ``entra_key``: ``audience=``, ``expires_in="1h"``."""
        return str(self.post("/_emulator/token", **claims)["token"])


@contextmanager
def local_emulator(
    *, preset: str | tuple[str, ...] = (), answers: str | Callable[[dict[str, Any]], Any] | None = None, **fields: Any
) -> Iterator[RunningEmulator]:
    """An emulator in a thread of this process: up in milliseconds, a port and a state of its own.

    Args:
        preset: Names of presets (docs/emulate.md).
        answers: A function of the line (``{"custom_id", "method", "url", "body"}``) that returns a text, a whole response
            body, or (status, body); or what ``--answers`` takes.
        fields: What ``emulator.toml`` may say: ``limit="30K"``, ``validating="2m"``, ``clock="hand"``,
            ``fault=[{"on": "create", "kind": "lost"}]`` …

    Raises:
        UsageError: no such preset or setting.
    """
    from sluicegate.emulator.config import build, fields_of
    from sluicegate.emulator.run import in_thread

    function = answers if callable(answers) else None
    words = fields if callable(answers) or answers is None else fields | {"answers": answers}
    account = build(presets=(preset,) if isinstance(preset, str) else preset, given=fields_of(words))
    with in_thread(account, function) as url:
        yield RunningEmulator(url=url)


@contextmanager
def emulator(*flags: str, **options: Any) -> Iterator[RunningEmulator]:
    """Start ``sluicegate emulate`` as a process of its own.

    Args:
        flags, options: Its flags: ``"--fail-fast"`` or ``validating="4s"``; underscores stand for dashes.

    Raises:
        RuntimeError: it did not start; the message has what it said.
    """
    options = {"port": 0} | options
    named = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "sluicegate", "emulate", *flags, *named]
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
