"""Tells after the tests what the seeds among them showed together: a hash over their traces, and what they covered."""

from __future__ import annotations

import pytest

from tests.simulation.__main__ import Brief, totals

PLAYED: dict[int, Brief] = {}
"""By seed, of the seeds that were played as tests."""


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print it."""
    if PLAYED:
        crashes = sum(sum(brief.deaths.values()) for brief in PLAYED.values())
        terminalreporter.section("simulation")
        terminalreporter.write_line(f"{len(PLAYED)} seeds, {crashes} crashes")
        for line in totals([PLAYED[seed] for seed in sorted(PLAYED)])[0]:
            terminalreporter.write_line(line)
