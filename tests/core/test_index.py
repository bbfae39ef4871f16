"""The index's columns, and repeated ids among many."""

from array import array
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.core import index


@given(st.lists(st.lists(st.integers(0, 60)), max_size=3), st.integers(1, 40))
def test_repeated_hashes_are_those_that_occur_twice(columns: list[list[int]], bucket: int) -> None:
    """In however many buckets they are sought; 0 stands for an id that could not be read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "BUCKET", bucket)
        found = index.repeated_hashes([array("Q", column) for column in columns])
    counts = Counter(value for column in columns for value in column)
    assert found == {value for value, count in counts.items() if count > 1 and value}
