"""A gateway that dies, however it dies, goes on where it was."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sluicegate.testing import emulator
from tests.web.conftest import Served, until_ended


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_batches_survive_restarts(how: signal.Signals, tmp_path: Path, requests_file: Callable[..., Path]) -> None:
    """Killed several times on the way: every request is answered once, none is paid twice, the limit holds."""
    with emulator(limit="30K", rate=20_000, validating="0.1s", start="0.1s", finalizing="0.1s") as provider:
        served = Served(provider.url, tmp_path / "state", ("--limit", "30K")).start()
        try:
            client = served.client()
            file = client.files.create(file=requests_file(500, words=220), purpose="batch")
            batch = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            for pause in (0.05, 1.5, 2.0):
                time.sleep(pause)
                served.end(how)
                served.start()
            client = served.client()
            ended, _ = until_ended(client, batch)

            lines = [json.loads(line) for line in client.files.content(ended.output_file_id).text.splitlines()]
            assert [line["custom_id"] for line in lines] == [f"ask/{i} ä" for i in range(500)]
            report = provider.report()
            assert report["refusals"] == {"at_create": 0, "late": 0} and report["executed_again"] == 0
            assert report["held_max_ratio"] <= 1
        finally:
            served.end()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(how: signal.Signals, tmp_path: Path) -> None:
    """Exit code 0, with a sentence and without a complaint."""
    with emulator() as provider:
        served = Served(provider.url, tmp_path / "state").start()
        served.client().files.list()
        served.end(how)

    assert served.process.returncode == 0
    assert "stopped; what the provider holds goes on there" in served.said[-1]
    assert not [line for line in served.said if "Unclosed" in line or "Traceback" in line]
