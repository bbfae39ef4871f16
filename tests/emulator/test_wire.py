"""Pages, filters and ranges over any list and any bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.emulator.wire import Problem, byte_range, filtered, page


def ask(items: list[dict[str, Any]], **query: str) -> tuple[list[str], bool]:
    found = json.loads(bytes(page(query, items, default=20, most=100).body))
    assert found["first_id"] == (found["data"][0]["id"] if found["data"] else None)
    assert found["last_id"] == (found["data"][-1]["id"] if found["data"] else None)
    return [item["id"] for item in found["data"]], found["has_more"]


@given(st.integers(0, 60), st.integers(1, 25), st.sampled_from(["asc", "desc"]))
def test_going_on_page_by_page_shows_every_item_once(many: int, limit: int, order: str) -> None:
    """In order, and ``has_more`` is false on the last page only."""
    items = [{"id": str(i)} for i in range(many)]
    seen: list[str] = []
    query = {"limit": str(limit), "order": order}
    while True:
        ids, more = ask(items, **query)
        seen += ids
        if not more:
            break
        assert len(ids) == limit
        query["after"] = ids[-1]
    assert seen == [str(i) for i in (range(many) if order == "desc" else reversed(range(many)))]


@given(st.integers(1, 60), st.integers(1, 25))
def test_going_back_shows_what_came_before(many: int, limit: int) -> None:
    """From the last item to the first."""
    items = [{"id": str(i)} for i in range(many)]
    seen, at, more = [str(many - 1)], str(many - 1), many > 1
    while more:
        ids, more = ask(items, limit=str(limit), before=at)
        seen = ids + seen
        at = seen[0]
    assert seen == [str(i) for i in range(many)]


@given(
    st.binary(min_size=1, max_size=50),
    st.integers(0, 60),
    st.integers(0, 60),
    st.sampled_from(["both", "from", "last"]),
)
def test_a_range_is_what_the_header_says_or_416(data: bytes, first: int, last: int, form: str) -> None:
    """Against a slice of the bytes."""
    header, wanted = {
        "both": (f"bytes={first}-{last}", data[first : last + 1]), "from": (f"bytes={first}-", data[first:]),
        "last": (f"bytes=-{last}", data[-last:] if last else b""),
    }[form]  # fmt: skip
    if not wanted:
        with pytest.raises(Problem) as refused:
            byte_range(header, len(data))
        assert (refused.value.status, refused.value.headers) == (416, {"content-range": f"bytes */{len(data)}"})
    else:
        start, stop, status = byte_range(header, len(data))
        assert (data[start:stop], status) == (wanted, 206)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["completed", "failed", None]))), st.integers(0, 9))
def test_a_filter_keeps_what_it_says(rows: list[tuple[int, str | None]], than: int) -> None:
    """``and`` binds tighter than ``or``; what an item does not have fits nothing."""
    items = [{"id": str(i), "created_at": at, "status": status} for i, (at, status) in enumerate(rows)]
    where = f"created_at gt {than} and status eq 'Completed' or status ne 'completed' AND created_at le {than}"
    wanted = [
        item["id"] for item in items
        if (item["created_at"] > than and item["status"] == "completed")
        or (item["status"] == "failed" and item["created_at"] <= than)
    ]  # fmt: skip
    assert [item["id"] for item in filtered(items, where, None)] == wanted
    assert [item["created_at"] for item in filtered(items, None, "created_at desc")] == sorted(
        (at for at, _ in rows), reverse=True
    )
