"""The ledger (D2): reserve, hold, release or void, each at most once; a balance is the sum of what was appended."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sluicegate.core.ledger import Balance, Dimension, Entry, Verb, balance, post


def entry(verb: Verb, before: Balance, amount: int = 0) -> Entry:
    return post(verb, scope="s", dimension=Dimension.TOKENS, part="p", before=before, at=0.0, amount=amount)


def test_a_part_goes_from_reserved_to_held_to_nothing() -> None:
    """The usual life of a reservation ends at zero."""
    entries = [entry(Verb.RESERVE, Balance(), 100)]
    entries.append(entry(Verb.HOLD, balance(entries)))

    assert balance(entries) == Balance(reserved=0, held=100)

    entries.append(entry(Verb.ADJUST, balance(entries), 115))
    entries.append(entry(Verb.RELEASE, balance(entries)))
    assert balance(entries) == Balance()


@pytest.mark.parametrize(
    ("verb", "before", "amount"),
    [
        (Verb.RESERVE, Balance(), 0),
        (Verb.RESERVE, Balance(reserved=1), 5),
        (Verb.HOLD, Balance(), 0),
        (Verb.HOLD, Balance(held=1), 0),
        (Verb.RELEASE, Balance(), 0),
        (Verb.RELEASE, Balance(reserved=3), 0),
        (Verb.VOID, Balance(), 0),
        (Verb.ADJUST, Balance(), 7),
        (Verb.ADJUST, Balance(held=7), 0),
    ],
)
def test_what_is_not_allowed_now_fails_loudly(verb: Verb, before: Balance, amount: int) -> None:
    """A second reserve, hold or release, or a verb without its amount, is an error of ours and never an entry."""
    with pytest.raises(AssertionError):
        entry(verb, before, amount)


class Books(RuleBasedStateMachine):
    """Any order of verbs over several parts keeps every balance at or above zero, and closed parts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.expected: dict[str, tuple[str, int]] = {}

    @rule(part=st.sampled_from("abc"), verb=st.sampled_from(list(Verb)), amount=st.integers(0, 50))
    def post(self, part: str, verb: Verb, amount: int) -> None:
        before = balance(e for e in self.entries if e.part == part)
        state, held = self.expected.get(part, ("new", 0))
        legal = {
            Verb.RESERVE: state == "new" and amount > 0,
            Verb.HOLD: state == "reserved",
            Verb.RELEASE: state == "held",
            Verb.VOID: state in ("reserved", "held"),
            Verb.ADJUST: state in ("reserved", "held") and amount > 0,
        }[verb]
        try:
            new = post(verb, scope="s", dimension=Dimension.TOKENS, part=part, before=before, at=0.0, amount=amount)
        except AssertionError:
            assert not legal
            return
        assert legal
        self.entries.append(new)
        after = {Verb.RESERVE: "reserved", Verb.HOLD: "held", Verb.ADJUST: state}.get(verb, "new")
        if after == "new":
            del self.expected[part]
        else:
            self.expected[part] = (after, amount if verb in (Verb.RESERVE, Verb.ADJUST) else held)

    @invariant()
    def sums_agree(self) -> None:
        total = balance(self.entries)
        assert total.reserved == sum(n for state, n in self.expected.values() if state == "reserved")
        assert total.held == sum(n for state, n in self.expected.values() if state == "held")


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, deadline=None)
