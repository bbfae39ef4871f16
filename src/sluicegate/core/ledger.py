"""The two-phase ledger (D2): entries are appended, a balance is their sum, each reservation is closed exactly once.

Two-phase transfers as in TigerBeetle: ``reserve`` puts an amount aside before a submit, ``hold`` turns it into what the
provider holds, ``release`` (it ended) or ``void`` (it was refused or never sent) takes it away. ``adjust`` corrects
what is reserved or held when the calibration moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verb(StrEnum):
    """The ledger's verbs."""

    RESERVE = "reserve"
    HOLD = "hold"
    RELEASE = "release"
    VOID = "void"
    ADJUST = "adjust"


class Dimension(StrEnum):
    """What is counted."""

    TOKENS = "tokens"  # enqueued tokens of a deployment
    REQUESTS = "requests"  # enqueued requests (OpenAI's embeddings: 1,000,000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the ledger: how it changed what a part has reserved and held in one scope and dimension."""

    scope: str
    dimension: Dimension
    part: str
    verb: Verb
    reserved: int
    held: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Sums over entries; both are ≥ 0 in every history that :func:`post` allows."""

    reserved: int = 0
    held: int = 0

    @property
    def total(self) -> int:
        """What counts against the limit."""
        return self.reserved + self.held

    def __add__(self, entry: Entry) -> Balance:
        return Balance(reserved=self.reserved + entry.reserved, held=self.held + entry.held)


def balance(entries: Iterable[Entry]) -> Balance:
    """The sum of ``entries``."""
    total = Balance()
    for entry in entries:
        total = total + entry
    return total


def post(
    verb: Verb, *, scope: str, dimension: Dimension, part: str, before: Balance, at: float, amount: int = 0
) -> Entry:
    """The entry for ``verb`` on a part whose balance is ``before``.

    Args:
        before: The part's own balance in this scope and dimension.
        amount: For ``reserve`` the tokens (or requests) to reserve; for ``adjust`` the new total; else unused.

    Raises:
        AssertionError: the verb is not allowed now (a second reserve, a hold without one, a second release).
    """
    reserved, held = _delta(verb, before, amount)
    after = Balance(reserved=before.reserved + reserved, held=before.held + held)
    assert after.reserved >= 0, f"{verb} of {part} would make its reservation negative"
    assert after.held >= 0, f"{verb} of {part} would make its hold negative"
    return Entry(scope=scope, dimension=dimension, part=part, verb=verb, reserved=reserved, held=held, at=at)


def _delta(verb: Verb, before: Balance, amount: int) -> tuple[int, int]:
    match verb:
        case Verb.RESERVE:
            assert amount > 0, "a reservation is more than nothing"
            assert before.total == 0, "a part reserves once"
            return amount, 0
        case Verb.HOLD:
            assert before.reserved > 0, "only what is reserved can be held"
            assert before.held == 0, "a part is held once"
            return -before.reserved, before.reserved
        case Verb.RELEASE:
            assert before.held > 0, "only what is held can be released"
            assert before.reserved == 0, "a held part has no reservation left"
            return 0, -before.held
        case Verb.VOID:
            assert before.total > 0, "only what counts can be voided"
            return -before.reserved, -before.held
        case Verb.ADJUST:
            assert amount > 0, "an adjusted part still counts"
            assert before.total > 0, "only what counts can be adjusted"
            return (amount - before.reserved, 0) if before.reserved else (0, amount - before.held)
