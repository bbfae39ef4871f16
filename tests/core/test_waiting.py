"""Sets of waiting requests behave as sets of whole numbers."""

from hypothesis import given
from hypothesis import strategies as st

from sluicegate.core.waiting import Spans

numbers = st.sets(st.integers(0, 60))


@given(numbers, numbers)
def test_set_algebra_equals_that_of_python_sets(a: set[int], b: set[int]) -> None:
    """Union, difference and intersection are those of the numbers they stand for."""
    left, right = Spans.of(a), Spans.of(b)

    assert set(left | right) == a | b
    assert set(left - right) == a - b
    assert set(left & right) == a & b


@given(numbers)
def test_text_brings_the_same_set_back(a: set[int]) -> None:
    """What is written into a row is read back equal, and reads as people write ranges."""
    spans = Spans.of(a)

    assert Spans.parse(str(spans)) == spans
    assert len(spans) == len(a)
    assert list(spans) == sorted(a)


def test_neighbours_are_one_span() -> None:
    """Adjacent spans merge, so that a million waiting requests are one."""
    assert Spans.from_spans([(5, 9), (0, 5), (9, 9)]).spans == ((0, 9),)
    assert str(Spans.of([0, 1, 2, 7])) == "0-2 7"
