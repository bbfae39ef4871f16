"""The books at the end: as JSON, as text, as a picture."""

import itertools
import json
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from sluicegate.emulator.picture import report_page, report_svg, report_text
from sluicegate.testing import RunningEmulator
from tests.emulator.clients import azure, call, create, line, upload
from tests.emulator.support import NOON, Bench

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def used() -> Bench:
    """Two deployments, one refusal, one cancelled batch, a change of the limit."""
    bench = Bench(limit=1_000)
    bench.create(0, [300, 300])
    bench.create(1, [600], first=2)
    dropped = bench.create(2, [100], first=3)
    bench.create(3, [50], first=4, deployment="other")
    bench.model.cancel(NOON + 15, dropped.id)
    bench.model.set_limit(NOON + 20, 2_000)
    bench.at(100)
    return bench


def test_the_report_has_use_over_time_and_a_timeline_per_batch(used: Bench) -> None:
    """Seconds since the first create; every sample is a change of what was held or of the limit."""
    report = used.model.report(NOON + 100)
    samples = report["deployments"]["gpt-4.1"]["samples"]

    assert samples[0] == [0.0, 600, 1_000]
    assert samples[-1][1:] == [0, 2_000]
    assert all(a[1:] != b[1:] and a[0] <= b[0] for a, b in itertools.pairwise(samples))
    assert report["refusals"] == {"at_create": 0, "late": 1}
    assert 0 < report["utilisation"] < 1
    assert [row["status"] for row in report["timeline"]] == ["completed", "failed", "cancelled", "completed"]
    assert report["timeline"][0]["executed"] == 2
    assert json.loads(json.dumps(report)) == report


def test_the_picture_draws_each_deployment_and_each_batch(used: Bench) -> None:
    """Well-formed; bars within the frame, from create to end; the limit as a dashed line."""
    root = ET.fromstring(report_svg(used.model.report(NOON + 100)))
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]

    assert any("gpt-4.1: enqueued tokens" in text for text in texts)
    assert any("other: enqueued tokens" in text for text in texts)
    assert len(list(root.iter(f"{SVG}circle"))) == 4
    assert len([p for p in root.iter(f"{SVG}path") if p.get("class") == "limit"]) == 2
    width = float(root.get("width", "0"))
    for bar in [r for r in root.iter(f"{SVG}rect") if r.get("x")]:
        assert 0 <= float(bar.get("x", "")) <= float(bar.get("x", "")) + float(bar.get("width", "")) <= width


def test_an_emulator_that_was_never_used_has_an_empty_report() -> None:
    """No division by zero."""
    report = Bench().model.report(NOON)
    assert (report["batches"], report["utilisation"], report["samples"]) == (0, None, [])
    ET.fromstring(report_svg(report))
    assert report_text(report | {"lines_never_fetched": 0}).startswith("batches           0")


def test_report_and_timelines_are_served(batch_emulator: RunningEmulator) -> None:
    """``/_emulator/report``, ``report.svg``, a batch's own as JSON and SVG."""
    with azure(batch_emulator) as client:
        batch = create(client, upload(client, line("a")))
    batch_emulator.until_idle()
    assert batch_emulator.report()["lines_never_fetched"] == 1
    row = batch_emulator.get(f"/_emulator/batches/{batch.id}")
    assert (row["id"], row["status"], row["completed"]) == (batch.id, "completed", 2.5)
    for path in ("report.svg", f"batches/{batch.id}.svg"):
        status, headers, body = call(f"{batch_emulator.url}/_emulator/{path}")
        assert (status, headers["content-type"]) == (200, "image/svg+xml")
        assert batch.id in body.decode()
    status, headers, body = call(f"{batch_emulator.url}/_emulator")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"batches           1" in body
    assert batch.id.encode() in body
    assert call(f"{batch_emulator.url}/_emulator/batches/none")[0] == 404


def test_names_in_the_page_cannot_become_markup() -> None:
    """A deployment's name is the caller's."""
    bench = Bench()
    bench.create(0, [10], deployment="<script>alert(1)</script>")
    page = report_page(bench.model.report(NOON) | {"lines_never_fetched": 0})
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_command_prints_its_books_when_it_stops(tmp_path: Path, stop: signal.Signals) -> None:
    """``--report`` for people, ``--report-to`` for programs; exit 0, and no temporary folder stays."""
    command = [
        sys.executable,
        "-m",
        "sluicegate",
        "emulate",
        "--port",
        "0",
        "--limit",
        "30K",
        "--report",
        "--report-to",
    ]
    process = subprocess.Popen(
        [*command, str(tmp_path / "books.svg")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert process.stdout is not None
    url = re.sub(r".* at ", "", process.stdout.readline().strip())
    with azure(RunningEmulator(url)) as client:
        create(client, upload(client, line("a")))
    process.send_signal(stop)
    said, _ = process.communicate(timeout=20)

    assert process.returncode == 0, said
    assert "batches           1" in said
    assert "gpt-4.1: most held" in said
    ET.parse(tmp_path / "books.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["books.svg"]
