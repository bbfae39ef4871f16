"""Fixtures of the contract: the surfaces of the server under test, and emulators made to order.

A test that takes ``surface`` (or ``openai_surface``, ``azure_surface``, ``dated_surface``) runs against any server. One
that has to order a limit, a failure or the time takes ``ordered``, is marked ``emulator_only`` and skipped elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from sluicegate.testing import RunningEmulator, local_emulator
from tests.contract.target import OTHER_MODEL, Surface, Target, given_target, may_pay, surfaces_of

GIVEN = given_target()
QUICK: dict[str, Any] = {"validating": 0.02, "start": 0.01, "finalizing": 0.01}
UNHURRIED: dict[str, Any] = {"uploads_per_minute": 1_000_000}
"""The server that all tests share; the rate has tests of its own."""

DEPLOYMENTS: dict[str, Any] = {
    "gpt-4.1": {}, OTHER_MODEL: {}, "standard-4.1": {"model": "gpt-4.1", "type": "Standard"},
    "gpt-4.1-nano": {}, "text-embedding-3-small": {}, "gpt-3.5-turbo-instruct": {},
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what only the emulator can be told to do, where it is not the emulator, and what costs money, unless told."""
    if GIVEN is None:
        return
    for item in items:
        if item.get_closest_marker("emulator_only"):
            item.add_marker(pytest.mark.skip(reason="the server under test takes no orders"))
        if item.get_closest_marker("costly") and not may_pay():
            item.add_marker(pytest.mark.skip(reason="it may cost money; PAY=1 runs it"))


def _names(dialects: tuple[str, ...] = ("openai", "azure")) -> list[str]:
    chosen = [one for one in dialects if GIVEN is None or one == GIVEN.dialect]
    return [name for dialect in chosen for name in surfaces_of(dialect)]


@pytest.fixture(scope="session")
def targets() -> Iterator[Callable[[str], Target]]:
    """The server of a dialect: the given one, or an emulator that is started when it is first asked for."""
    made: dict[str, Target] = {}
    with ExitStack() as stack:

        def target(dialect: str) -> Target:
            if GIVEN is not None:
                return GIVEN
            if dialect not in made:
                fields = {"dialect": dialect, "deployments": DEPLOYMENTS, "keys": ["any"], **UNHURRIED, **QUICK}
                provider = stack.enter_context(local_emulator(**fields))
                made[dialect] = Target(url=provider.url, dialect=dialect)
            return made[dialect]

        yield target


def _surface(name: str, targets: Callable[[str], Target]) -> Iterator[Surface]:
    surface = Surface(name=name, target=targets("openai" if name == "openai" else "azure"))
    with surface.client:
        yield surface


@pytest.fixture(params=_names())
def surface(request: pytest.FixtureRequest, targets: Callable[[str], Target]) -> Iterator[Surface]:
    """Each URL family."""
    yield from _surface(request.param, targets)


@pytest.fixture(params=_names(("openai",)))
def openai_surface(request: pytest.FixtureRequest, targets: Callable[[str], Target]) -> Iterator[Surface]:
    """OpenAI's."""
    yield from _surface(request.param, targets)


@pytest.fixture(params=_names(("azure",)))
def azure_surface(request: pytest.FixtureRequest, targets: Callable[[str], Target]) -> Iterator[Surface]:
    """Azure's two."""
    yield from _surface(request.param, targets)


@pytest.fixture(params=[name for name in _names() if name == "azure"])
def dated_surface(request: pytest.FixtureRequest, targets: Callable[[str], Target]) -> Iterator[Surface]:
    """Azure's with an ``api-version``."""
    yield from _surface(request.param, targets)


@dataclass(frozen=True)
class Ordered:
    """An emulator made to order, seen through one surface."""

    surface: Surface
    provider: RunningEmulator


@pytest.fixture
def ordered() -> Iterator[Callable[..., Ordered]]:
    """``ordered("azure", limit="30K")``: a new emulator with what emulator.toml may say, and a surface of it."""
    with ExitStack() as stack:

        def make(name: str, **fields: Any) -> Ordered:
            dialect = "openai" if name == "openai" else "azure"
            times = {} if "preset" in fields else QUICK
            provider = stack.enter_context(local_emulator(**({"dialect": dialect, **times} | fields)))
            surface = Surface(name=name, target=Target(url=provider.url, dialect=dialect))
            stack.enter_context(surface.client)
            return Ordered(surface, provider)

        yield make
