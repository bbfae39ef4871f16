"""The cut (D8): as much as fits, in input order, never over any bound."""

from hypothesis import given
from hypothesis import strategies as st

from sluicegate.core.cut import Bounds, Columns, cut
from sluicegate.core.waiting import Spans


def charge(tokens: int, quarters: int) -> int:
    return max(1, tokens, quarters)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 300), st.integers(1, 400)), min_size=1, max_size=40),
    st.integers(1, 200), st.integers(1, 10), st.integers(1, 3000),
)  # fmt: skip
def test_a_part_stays_within_every_bound_and_is_maximal(
    sizes: list[tuple[int, int, int]], tokens: int, requests: int, size: int
) -> None:
    """No bound is exceeded, and no waiting request that still fits is left out."""
    columns = Columns(tokens=[s[0] for s in sizes], chars=[s[1] for s in sizes], length=[s[2] for s in sizes])
    waiting = Spans(((0, len(sizes)),))

    part = cut(waiting, columns, Bounds(charge=tokens, requests=requests, bytes=size), charge)

    chosen = set(part.requests) if part else set()
    total = sum(sizes[i][0] for i in chosen), sum(sizes[i][1] // 4 for i in chosen)
    total_bytes = sum(sizes[i][2] + 1 for i in chosen)
    assert len(chosen) <= requests and total_bytes <= size
    assert not chosen or charge(*total) <= tokens
    if part:
        assert (part.tokens, part.quarter_chars) == total
        assert part.count == len(chosen) and part.bytes == total_bytes and part.charge == charge(*total)
    if len(chosen) < requests:
        for i in set(waiting) - chosen:
            fits = charge(total[0] + sizes[i][0], total[1] + sizes[i][1] // 4) <= tokens
            assert not (fits and total_bytes + sizes[i][2] + 1 <= size)


def test_the_earliest_requests_go_first() -> None:
    """Results become complete in order, so the file can be read while it grows."""
    columns = Columns(tokens=[5, 50, 5, 5], chars=[0] * 4, length=[1] * 4)

    part = cut(Spans(((0, 4),)), columns, Bounds(charge=12, requests=9, bytes=99), charge)

    assert part is not None
    assert list(part.requests) == [0, 2]
