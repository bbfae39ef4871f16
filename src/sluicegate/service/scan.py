"""The work of one worker in the check. It imports little, so that a new process begins at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sluicegate.core.check import Scan, Scanner
from sluicegate.core.rules import CheckRules

if TYPE_CHECKING:
    from sluicegate.ports import Counter

CounterOf = Callable[[], "Counter"]

WINDOW: Final = 1 << 18


def scan_range(path: str, name: str, start: int, stop: int, rules: CheckRules, counter: CounterOf) -> Scan:
    """Scan one byte range of the file at ``path``, which messages call ``name``."""
    with open(path, "rb", buffering=WINDOW) as file:
        return Scanner(rules, counter().count, name).run(file, start, stop)
