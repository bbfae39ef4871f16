"""One line of an input → a request, whatever is wrong with the line."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Fault(Exception):
    """What is wrong with a line: a code (the provider's own where it has one), a sentence, and a remedy."""

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code, self.message, self.remedy = code, message, remedy


@dataclass(slots=True)
class Request:
    """A line that is a request.

    Attributes:
        model: Empty if the body names none and need not.
        raw_body: The body's JSON as it stands in the line, from byte ``body_at`` on.
    """

    custom_id: str
    url: str
    model: str
    body: dict[str, Any]
    raw_body: bytes
    body_at: int

    @property
    def chars(self) -> int:
        """Characters of the body's JSON."""
        return len(self.raw_body) if self.raw_body.isascii() else len(self.raw_body.decode("utf-8", "replace"))

    @property
    def wanted(self) -> int:
        """The longest answer that it asks for, in tokens, or 0."""
        given = [self.body.get(name) for name in ("max_tokens", "max_completion_tokens", "max_output_tokens")]
        return max((value for value in given if isinstance(value, int)), default=0)


class _Parts(msgspec.Struct):
    custom_id: msgspec.Raw = msgspec.Raw()
    method: msgspec.Raw = msgspec.Raw()
    url: msgspec.Raw = msgspec.Raw()
    body: msgspec.Raw = msgspec.Raw()


class _Usual(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


_decode_usual = msgspec.json.Decoder(_Usual).decode
_decode_parts = msgspec.json.Decoder(_Parts).decode
_decode = msgspec.json.Decoder().decode
_MODEL: Final = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""In no name, and in a log or on a screen they would be lines and commands."""

ACTED_ON: Final = (
    "custom_id", "method", "url", "body", "model", "messages", "input", "prompt", "instructions", "suffix", "tools",
    "functions", "response_format", "stream", "max_tokens", "max_completion_tokens", "max_output_tokens",
)  # fmt: skip
"""Keys that decide what is sent, counted or refused: none may stand twice in one object."""

_ACTED_ON: Final = re.compile(rb'"(?:%b)"' % "|".join(ACTED_ON).encode())
_ESCAPED_KEY: Final = re.compile(rb'"[a-z_]*+\\u00[567]')
"""How a key that may be one of those begins if a letter of it is written as an escape."""


def read(line: bytes, *, lenient: bool = False, needs_model: bool = True) -> Request:
    """Read a line.

    Args:
        lenient: The provider has accepted the line already: only what makes it unreadable is a fault.
        needs_model: False where every request goes to a deployment that is given elsewhere.

    Raises:
        Fault: it is not a request that can be sent.
    """
    try:
        usual = _decode_usual(line)
        raw = bytes(usual.body)
        body = _decode(raw)
    except UNREADABLE:
        usual, raw, body = _unusual(line)
    if not line.isascii():
        _check_utf8(line)
    if not lenient:
        _check_strictly(line, usual)
    if not isinstance(body, dict):
        raise Fault("invalid_type", "The body is not a JSON object.", 'Write "body": {"model": …}.')
    model = body.get("model")
    if not isinstance(model, str) or not model.strip():
        if model is None and needs_model and not lenient:
            raise Fault("invalid_request", "Model parameter is required.",
                        "Name the deployment in the body's model, or give --deployment.")  # fmt: skip
        if model is not None and not lenient:
            raise Fault("invalid_type", "The body's model is not a name.", 'Write "model": "NAME".')
        model = ""
    if not lenient and _CONTROL.search(model):
        raise Fault("invalid_request", "The body's model has a control character.",
                    "Write the name of the deployment alone.")  # fmt: skip
    return Request(usual.custom_id, usual.url, model, body, raw, line.find(raw))


def _unusual(line: bytes) -> tuple[_Usual, bytes, Any]:
    """A line that is not as it should be: find out why, or read it another way."""
    try:
        parts = _decode_parts(line)
        body = _decode(parts.body) if bytes(parts.body) else None
    except UNREADABLE as error:
        if not line.isascii():
            _check_utf8(line)  # the decoder's offset is one within a field
        if _SURROGATE.search(line):
            _check_surrogates(line)
        raise _bad_json(line, error) from None
    if not line.isascii():
        _check_utf8(line)
    texts = [
        _text(raw, name) for raw, name in ((parts.custom_id, "custom_id"), (parts.method, "method"), (parts.url, "url"))
    ]
    if not bytes(parts.body):
        raise _missing("body")
    return _Usual(texts[0], texts[1], texts[2], parts.body), bytes(parts.body), body


def _check_strictly(line: bytes, usual: _Usual) -> None:
    if _SURROGATE.search(line):
        _check_surrogates(line)
    names = _ACTED_ON.findall(line)
    if len(names) != len(set(names)) or _ESCAPED_KEY.search(line):
        _check_repeated(line)
    for name, value in (("custom_id", usual.custom_id), ("method", usual.method), ("url", usual.url)):
        if not value:
            raise Fault("invalid_request", f"{name} is empty.", f"Give {name} a value.")
    if usual.method != "POST":  # the provider refuses other spellings too, and the whole batch with them (F§1.7)
        raise Fault("invalid_request", f"The method is {usual.method!r}; the Batch API knows POST only.",
                    'Write "method": "POST".')  # fmt: skip


def _text(raw: msgspec.Raw, name: str) -> str:
    if not bytes(raw):
        raise _missing(name)
    value = _decode(raw)
    if not isinstance(value, str):
        raise Fault("invalid_type", f"{name} is not a string.", f'Write "{name}": "…".')
    return value


def _check_utf8(line: bytes) -> None:
    """msgspec does not look at fields that it skips."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise Fault(
            "invalid_json_line", f"The line is not valid UTF-8 at byte {error.start + 1}.", "Write the file as UTF-8."
        ) from None


def _missing(name: str) -> Fault:
    return Fault("missing_required_parameter", f"Missing required parameter: '{name}'.", f'Add "{name}" to the line.')


def _bad_json(line: bytes, error: Exception) -> Fault:
    why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    if re.search(rb"\b(NaN|-?Infinity)\b", line):
        why += " (NaN and Infinity are not JSON)"
    return Fault(
        "invalid_json_line", f"This line is not parseable as valid JSON: {why}.", "Write one JSON object a line."
    )


def _check_surrogates(line: bytes) -> None:
    try:
        json.dumps(json.loads(line), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Fault("invalid_json_line", "The line has half of a surrogate pair (\\ud800 … \\udfff).",
                    "Write the character whole, or leave it out.") from None  # fmt: skip
    except (ValueError, RecursionError):
        return  # no JSON, or numbers and depths beyond Python's: not for this reason


def _check_repeated(line: bytes) -> None:
    """A key that stands twice on one level among those we act on: readers differ in which one they take."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [key for key, _ in items]
        repeated.extend(key for key in ACTED_ON if names.count(key) > 1)
        return dict(items)

    repeated: list[str] = []
    with suppress(ValueError, RecursionError):  # in fields that nobody reads: numbers and depths beyond Python's
        json.loads(line, object_pairs_hook=pairs)
    if repeated:
        raise Fault("invalid_json_line", f"The key {repeated[0]!r} stands twice in one object.", "Write it once.")


def model_span(request: Request) -> tuple[int, int] | None:
    """Where the body's model stands within the line: (start, bytes), quotes included; None if there is none."""
    raw = request.raw_body
    found = [(m.start(1), m.end(1)) for m in _MODEL.finditer(raw)]
    if len(found) > 1:
        found = [(a, b) for a, b in found if _is_models_place(raw, a, b)]
    if not found:
        return None
    start, stop = found[0]
    return request.body_at + start, stop - start


def _is_models_place(raw: bytes, start: int, stop: int) -> bool:
    changed = raw[:start] + b'"\\u0001"' + raw[stop:]
    try:
        return bool(_decode(changed).get("model") == "\x01")
    except UNREADABLE:
        return False


class _HasId(msgspec.Struct):
    custom_id: str


def custom_id_of(line: bytes) -> str | None:
    """The custom_id of a line, or None if it has no readable one."""
    try:
        return msgspec.json.decode(line, type=_HasId).custom_id
    except UNREADABLE:
        return None
