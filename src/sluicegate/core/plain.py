"""The usual chat request, many lines at a time: messages of a role and a text, and parameters that are not counted.

Most lines of most inputs are like that, and then Python costs more than JSON and counting together. So those are read
here with as few steps as possible, and everything else by :mod:`sluicegate.core.line`, which knows every rule. Nothing
is guessed: a line that is in any way different, or might be, is *not plain*.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from sluicegate.core.line import UNREADABLE


class _Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: str
    content: str


class _Body(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    model: str
    messages: list[_Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    store: bool | None = None


class _Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    custom_id: str
    method: str
    url: str
    body: _Body


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_lines = msgspec.json.Decoder(_Line).decode_lines
_MODEL: Final = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_BODY: Final = re.compile(rb'"body"\s*:\s*(?={)')
_KEYS: Final = re.compile(
    rb'"(?:body"|m(?:odel"|essages"|ax_(?:completion_)?tokens"|[a-z_]*+\\u00[567])|b[ody]*+\\u00[567]|\\u00[567])'
)
"""Keys that are acted on, and what may be one of them with a letter written as an escape."""

NEEDED: Final = frozenset({b'"model"', b'"messages"'})
ALLOWED: Final = NEEDED | {b'"max_tokens"', b'"max_completion_tokens"'}
KEYS: Final = ([b'"model"', b'"messages"'], [b'"messages"', b'"model"'], [b'"model"', b'"messages"', b'"max_tokens"'])
"""Within the body, as they usually come: each once, and no second body behind it."""

QUOTES_BEFORE: Final = 14
"""Quotes before the body where it comes last: around four keys and three values, none of which stands twice."""


class Plain(msgspec.Struct, gc=False):
    """A plain request.

    Attributes:
        chars: Characters of the body's JSON.
        model_at, model_length: The model's JSON string within the line, quotes included, in bytes.
        wanted: The longest answer that it asks for, in tokens, or 0.
    """

    custom_id: str
    url: str
    model: str
    messages: list[_Message]
    chars: int
    model_at: int
    model_length: int
    wanted: int


def read(block: bytes, lines: Sequence[bytes]) -> Iterator[Plain | None]:
    """Each line's request, or None where the line is not plain; ``lines`` are those of ``block``."""
    spelled: dict[str, tuple[bytes, int]] = {}  # a model → how its key and value were written last, the value's length
    ascii_only = block.isascii()
    for line, decoded in zip(lines, _decoded(block, lines), strict=True):
        if decoded is None:
            yield None
            continue
        body = decoded.body
        found = _BODY.search(line)
        if (
            found is None or not line.endswith(b"}}") or line.count(b'"', 0, start := found.end()) != QUOTES_BEFORE
            or ((keys := _KEYS.findall(line, start)) not in KEYS and not _each_once(keys))
            or decoded.method != "POST" or not decoded.custom_id
        ):  # fmt: skip
            yield None
            continue
        wanted = 0
        if body.max_tokens is not None or body.max_completion_tokens is not None:
            given = [tokens for tokens in (body.max_tokens, body.max_completion_tokens) if tokens is not None]
            wanted = max(given)
            if min(given) < 1:
                yield None
                continue
        name = body.model
        at = line.index(b'"model"', start)
        if name not in spelled or not line.startswith(spelled[name][0], at):
            found = _MODEL.match(line, at)
            if found is None:  # the word is a value here, and the key is written with an escape
                yield None
                continue
            spelled[name] = found[0], len(found[1])
        written, length = spelled[name]
        yield Plain(
            decoded.custom_id, decoded.url, name, body.messages,
            len(line) - start - 1 if ascii_only or line.isascii() else len(line[start:-1].decode()),
            at + len(written) - length, length, wanted,
        )  # fmt: skip


def _each_once(keys: list[bytes]) -> bool:
    once = frozenset(keys)
    return len(once) == len(keys) and NEEDED <= once <= ALLOWED


def _decoded(block: bytes, lines: Sequence[bytes]) -> Iterable[_Line | None]:
    """All lines at once, or where one of them is not plain, one by one.

    The decoder takes objects as they come. If each line begins and ends one, no object spans two lines (between ``}``
    and ``{`` JSON wants a comma), and then as many objects as lines means one on each.
    """
    if block.count(b"}\n{") == len(lines) - 1:
        with suppress(*UNREADABLE):
            decoded = _decode_lines(block)
            if len(decoded) == len(lines):
                return decoded
    return map(_decoded_alone, lines)


def _decoded_alone(line: bytes) -> _Line | None:
    try:
        return _decode_line(line)
    except UNREADABLE:
        return None
