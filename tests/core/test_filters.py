"""Azure's list filters."""

from __future__ import annotations

import pytest

from sluicegate.core.filters import filtered

ITEMS = [
    {"id": "a", "created_at": 10, "status": "completed"}, {"id": "b", "created_at": 30, "status": "failed"},
    {"id": "c", "created_at": 20, "status": "completed", "ended": None},
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "order", "ids"),
    [
        (None, None, "abc"), ("", " ", "abc"), ("status eq 'Completed'", None, "ac"), ("created_at gt 10", None, "bc"),
        ("created_at ge 10 and status ne 'failed'", "created_at desc", "ca"),
        ("status eq 'failed' or created_at lt 15", "created_at asc", "ab"), (None, "created_at", "acb"),
        ("nothing eq 'x'", None, ""), ("status gt 5", None, ""),
    ],
)  # fmt: skip
def test_what_is_let_through_and_in_which_order(where: str | None, order: str | None, ids: str) -> None:
    """Texts without regard to case; numbers as numbers; other types never match."""
    assert "".join(str(item["id"]) for item in filtered(ITEMS, where, order)) == ids


@pytest.mark.parametrize(("where", "order"), [("status is 'x'", None), ("a eq 1 and", None), (None, "a b c")])
def test_words_without_sense_are_named(where: str | None, order: str | None) -> None:
    """The message has them."""
    with pytest.raises(ValueError, match="not understood"):
        filtered(ITEMS, where, order)
