"""The fast way through the check and the thorough one must not differ, whatever the lines are."""

import io
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluicegate.adapters.counters import default_counter
from sluicegate.core import plain
from sluicegate.core.check import Scan, Scanner
from sluicegate.core.rules import CheckRules
from sluicegate.core.types import Dialect

TEXT = st.text(max_size=40)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "developer", "model"]), "content": TEXT}
    ),
    max_size=3,
)
BODIES = st.fixed_dictionaries(
    {"model": st.sampled_from(["gpt-4.1", "gpt-4o", "mine", "", "messages", 'a"b', "a\nb"]), "messages": MESSAGES},
    optional={
        "max_tokens": st.sampled_from([0, 1, 100, 99_999, None, True, 2.5]), "temperature": st.sampled_from([0, 0.5, "x"]),
        "max_completion_tokens": st.sampled_from([5, 2_000_000]), "user": TEXT, "stream": st.booleans(),
        "tools": st.just([]), "body": st.just({"model": "x"}), "seed": st.integers(),
    },
)  # fmt: skip
LINES = st.fixed_dictionaries(
    {
        "custom_id": st.one_of(TEXT, st.sampled_from(["body", '"body": {', "a"])),
        "method": st.sampled_from(["POST", "POST", "post", "GET"]),
        "url": st.sampled_from(["/v1/chat/completions", "/v1/chat/completions", "/v1/responses", "/v1/nothing"]),
        "body": BODIES,
    },
    optional={"extra": TEXT},
)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """A line as some program might write it."""
    value: dict[str, Any] = draw(LINES)
    keys = draw(st.permutations(list(value)))
    spaces = draw(st.sampled_from([(", ", ": "), (",", ":"), (" , ", " : ")]))
    text = json.dumps({k: value[k] for k in keys}, ensure_ascii=draw(st.booleans()), separators=spaces)
    line = text.encode("utf-8", "surrogatepass")
    spoil = draw(st.integers(0, 17))
    if spoil == 0:
        line = line.replace(b'"messages"', b'"model": "again", "messages"')
    elif spoil == 1:
        line = line[:-1] + b', "url": "/v1/twice"}'
    elif spoil == 2:
        line = line[:-1] + b', "body": {"model": "gpt-4o", "messages": []}}'
    elif spoil == 3:
        line = line[: len(line) // 2]
    elif spoil == 4 and draw(st.booleans()):
        line = line.replace(b"messages", rb"m\u0065ssages")
    elif spoil == 4:
        line = line.replace(b"model", rb"mod\u0065l")
    elif spoil == 5:
        line += b"\r"
    elif spoil == 6:
        line = b" " + line + b" "
    elif spoil == 7:
        line = b""
    elif spoil == 9:
        line += line  # two on one line
    elif spoil == 10:
        line = line.replace(b", ", b",\n", 1)  # one on two lines
    elif spoil == 11:
        key = draw(st.sampled_from(["max_tokens", "max_completion_tokens", "stream", "user", "messages", "body"]))
        value = draw(st.sampled_from(["5", "999999", "null", "[]", "true"]))
        line = line.replace(b'"model"', f'"{key}": {value}, "{key}": {value}, "model"'.encode(), 1)
    elif spoil == 12:
        key = draw(
            st.sampled_from([r"mod\u0065l", r"\u006dodel", r"m\u0061x_tokens", r"max\u005Ftokens", r"\u0062ody", "é"])
        )
        line = line.replace(b'"messages"', f'"{key}": "gpt-4o", "messages"'.encode(), 1)
    elif spoil == 13:
        line = line[:-1] + rb', "bod\u0079": {"model": "gpt-4o", "messages": []}}'
    elif spoil == 8:
        line = line.replace(b'"content"', b'"content": "before", "content"')
    return line


def scan(content: bytes, rules: CheckRules) -> Scan:
    return Scanner(rules, default_counter().count, "x").run(io.BytesIO(content), 0, len(content))


def nothing_is_plain(block: bytes, lines: Sequence[bytes]) -> Iterator[None]:
    return iter([None] * len(lines))


@given(st.lists(written(), min_size=1, max_size=12), st.sampled_from([None, "mine"]), st.sampled_from([None, 20]))
@settings(max_examples=400, deadline=None)
def test_both_ways_find_the_same(lines: list[bytes], redirect: str | None, limit: int | None) -> None:
    """The same columns, the same problems, in the same order."""
    content = b"\n".join(lines)
    rules = CheckRules(dialect=Dialect.OPENAI, redirect=redirect, limit=limit)
    fast = scan(content, rules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "read", nothing_is_plain)
        thorough = scan(content, rules)
    assert fast == thorough


def test_the_usual_lines_are_plain() -> None:
    """Or the fast way would be there for nothing."""
    dice = random.Random(1)
    lines = []
    for number in range(100):
        messages = [{"role": "user", "content": "ü" * dice.randrange(9) + '"model"'}]
        body = {"model": "gpt-4.1", "messages": messages, "max_tokens": 100, "temperature": 0.2}
        line = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.append(json.dumps(line, ensure_ascii=number % 2 == 0).encode())
    found = list(plain.read(b"\n".join(lines), lines))
    assert all(found)
    for line, request in zip(lines, found, strict=True):
        assert request is not None
        assert line[request.model_at :][: request.model_length] == b'"gpt-4.1"'
