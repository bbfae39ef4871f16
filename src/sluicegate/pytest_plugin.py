"""pytest's side of :mod:`sluicegate.testing`: the fixture ``batch_emulator`` and its marker.

Loaded by pytest itself (entry point ``pytest11``), so nothing heavy is imported before a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sluicegate.testing import RunningEmulator


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "batch_emulator(preset=…, answers=…, **fields): the account of the batch_emulator fixture, as emulator.toml has it",
    )


@pytest.fixture
def batch_emulator(request: pytest.FixtureRequest) -> Iterator[RunningEmulator]:
    """An emulated Batch API of the test's own: own port, own state, its clock moved by hand.

    ``@pytest.mark.batch_emulator(limit="30K", dialect="openai")`` says what account it is; the marker nearest to the
    test wins. Safe under pytest-xdist: nothing is shared.

    Raises:
        UsageError: no such preset or setting, or one without a name.
    """
    from sluicegate.errors import UsageError
    from sluicegate.testing import local_emulator

    fields = {"clock": "hand"}
    for marker in reversed(list(request.node.iter_markers("batch_emulator"))):
        if marker.args:
            raise UsageError(f"batch_emulator takes names only, as preset={marker.args[0]!r}")
        fields |= marker.kwargs
    with local_emulator(**fields) as provider:
        yield provider
