"""Byte ranges that touch cover each line once, wherever they are cut."""

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.core import jsonl


@given(st.lists(st.binary(max_size=30).filter(lambda b: b"\n" not in b), max_size=12), st.booleans(), st.data())
def test_ranges_that_touch_cover_each_line_once(lines: list[bytes], ends: bool, data: st.DataObject) -> None:
    """Offsets and bytes are those of the file; a line is in the range where it begins."""
    content = b"\n".join(lines) + (b"\n" if ends else b"")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=4)))
    edges = [0, *cuts, len(content)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "WINDOW", data.draw(st.integers(1, 40)))
        found = [
            block for a, b in pairwise(edges)
            for block in jsonl.blocks_in(io.BytesIO(content), a, b, longest=1_000)
        ]  # fmt: skip
    assert b"".join(block for _, block in found if isinstance(block, bytes)) == content
    assert [offset for offset, _ in found] == sorted({offset for offset, _ in found})
    for offset, block in found:
        assert isinstance(block, bytes)
        assert content[offset : offset + len(block)] == block
        assert offset == 0 or content[offset - 1 : offset] == b"\n"


def test_a_line_that_is_too_long_comes_as_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays bounded: its bytes are never held."""
    monkeypatch.setattr(jsonl, "WINDOW", 64)
    content = b"a\n" + b"x" * 5_000 + b"\nb\n"
    assert list(jsonl.blocks_in(io.BytesIO(content), 0, len(content), longest=1_000)) == [
        (0, b"a\n"), (2, 5_001), (5_003, b"b\n"),
    ]  # fmt: skip
