"""The scripted server as a fixture."""

from collections.abc import AsyncIterator

import pytest

from tests.adapters.scripted import Server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server that listens; the test gives it its script."""
    async with Server().listening() as scripted:
        yield scripted
