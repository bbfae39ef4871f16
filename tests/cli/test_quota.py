"""The quota table."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from sluicegate.cli.quota import moment, show
from tests.cli.scripted import START, quota_row

NOW = START + 252.0


def drawn(width: int, *rows: object) -> list[str]:
    console = Console(file=io.StringIO(), width=width, record=True, no_color=True, highlight=False, markup=False)
    console.print(show(rows, now=NOW, width=width))  # type: ignore[arg-type]
    return console.export_text(styles=False).splitlines()


@pytest.mark.parametrize("width", [60, 120, 140, 200])
def test_every_number_is_shown_at_any_width(width: int) -> None:
    """A table where it fits, a block for each deployment where it does not."""
    text = "\n".join(drawn(width, quota_row(), quota_row(deployment="other", limit=None, headroom=None)))

    for said in ("gpt-4.1-batch", "other", "30,000", "configured", "330,000"):
        assert said in text
    assert ("18,300" in text) or ("18.3K" in text)
    assert "read 12 s ago" in text
    assert all(len(line.rstrip()) <= width for line in text.splitlines())


def test_the_table_has_a_column_for_everything() -> None:
    """One line a deployment."""
    header, row, _ = drawn(200, quota_row(paused=True))

    assert header.split("  ")[0] == "deployment"
    for name in ("limit", "known from", "reserved", "held", "foreign", "headroom", "waiting", "batches", "idle"):
        assert name in header
    assert "gpt-4.1-batch (paused)" in row
    assert "(in 48 s)" in row


def test_no_deployment_is_said() -> None:
    """An empty table would leave the person guessing."""
    assert "no deployment is known yet" in "\n".join(drawn(100))


def test_moments() -> None:
    """Unknown, over, or how far off."""
    assert moment(None, NOW) == "–"
    assert moment(NOW - 5, NOW) == "now"
    assert moment(NOW + 90, NOW).endswith("(in 1 min 30 s)")


def test_no_network_is_said_with_what_to_do_and_an_exit_code_of_its_own(tmp_path: Path) -> None:
    """4: nothing is wrong with the command, so the same again may do."""
    done = subprocess.run(
        [sys.executable, "-m", "sluicegate", "quota", "--base-url", "http://127.0.0.1:9/v1", "--state", str(tmp_path)],
        env=os.environ | {"OPENAI_API_KEY": "any"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 4, done.stderr
    assert "try again" in done.stderr


def test_a_watch_survives_a_first_look_that_fails(tmp_path: Path) -> None:
    """It says so, and looks again."""
    watch = subprocess.Popen(
        [sys.executable, "-m", "sluicegate", "quota", "--watch", "--poll", "0.1s", "--base-url", "http://127.0.0.1:9/v1",
         "--state", str(tmp_path)],
        env=os.environ | {"OPENAI_API_KEY": "any"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert watch.stdout is not None
    said = [watch.stdout.readline(), watch.stdout.readline()]
    watch.terminate()
    watch.communicate()

    assert all("trying again" in line for line in said)
