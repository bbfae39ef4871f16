"""Every rule of the pre-submission check, over one byte range of an input: lines → index columns and problems.

The code of a problem is the provider's own where it has one (F§5.2, F§5.3), so that people find it again.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

import msgspec
from xxhash import xxh3_64_intdigest

from sluicegate.core import limits as facts
from sluicegate.core.estimate import Tally, tally
from sluicegate.core.index import Flag, Group, Index
from sluicegate.core.jsonl import BOM, lines_in
from sluicegate.core.limits import Model, format_tokens, limits_of, model_of
from sluicegate.core.types import Dialect

LISTED_MOST: Final = 1_000
"""Problems of each code that are listed; all are counted."""

CACHE_TEXTS: Final = 4_096
"""Shared texts (system prompts, roles, tools) whose counts a scan remembers."""

BATCH_CHARS: Final = 1 << 20
"""Characters that are counted in one call, so that memory stays bounded."""

Count = Callable[[list[str], str], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong with a line, or with a file (line 0)."""

    file: str
    line: int
    custom_id: str | None
    code: str
    severity: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRules:
    """What the check goes by.

    Attributes:
        limit: The configured enqueued-token limit; a larger request is an error. None: not known.
        models: Deployment → model. ``redirect``: the deployment that every line goes to, so that ``model`` may be absent.
        lenient: Only index and count (others' files, which have been accepted already).
    """

    dialect: Dialect
    limit: int | None = None
    line_bytes_max: int = 64 * 1024 * 1024
    models: Mapping[str, str] = field(default_factory=dict)
    redirect: str | None = None
    lenient: bool = False


@dataclass(slots=True)
class Scan:
    """What one byte range brought. Line numbers and ordinals are relative to its start.

    Attributes:
        bad: (ordinal, custom_id, code, message) of each request with an error.
        counts: How many problems of each (code, severity); ``problems`` lists the first of them.
    """

    index: Index
    lines: int = 0
    problems: list[Problem] = field(default_factory=list)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    bad: list[tuple[int, str | None, str, str]] = field(default_factory=list)


class _Line(msgspec.Struct):
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
_decode_line = msgspec.json.Decoder(_Line).decode
_decode = msgspec.json.Decoder().decode
_MODEL: Final = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Bad(Exception):
    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code, self.message, self.remedy = code, message, remedy


@dataclass(slots=True)
class _Request:
    custom_id: str
    url: str
    model: str
    body: dict[str, Any]
    raw_body: bytes
    body_at: int


class Scanner:
    """Scans one byte range.

    Args:
        count: (texts, encoding) → tokens of each.
        name: The file's name as the person gave it.
    """

    def __init__(self, rules: CheckRules, count: Count, name: str) -> None:
        self._rules = rules
        self._count = count
        self._name = name
        self._limits = limits_of(rules.dialect)
        self._models: dict[str, Model] = {}
        self._groups: dict[tuple[str, str], int] = {}
        self._shared: dict[tuple[str, str], int] = {}
        self._pending: list[tuple[int, Tally, Model]] = []
        self._pending_chars = 0
        self._meta: dict[int, tuple[str, int | None]] = {}
        self.scan = Scan(index=Index.empty())

    def run(self, file: BinaryIO, start: int, stop: int) -> Scan:
        """Scan the lines that begin in ``[start, stop)``."""
        for offset, line, size in lines_in(file, start, stop, longest=self._rules.line_bytes_max):
            self.scan.lines += 1
            self._one(offset, line, size)
            if self._pending_chars > BATCH_CHARS:
                self._count_pending()
        self._count_pending()
        self.scan.index.groups = [Group(url, model) for url, model in self._groups]
        return self.scan

    def _one(self, offset: int, line: bytes | None, size: int) -> None:
        if line is None:
            bound = self._rules.line_bytes_max
            self._reject(offset, 0, None, _Bad(
                "line_too_long", f"The line has {size:,} bytes, more than the {bound:,} that are read.",
                "Send large content by URL or file id, or raise line_bytes_max.",
            ))  # fmt: skip
            return
        if offset == 0 and line.startswith(BOM):
            self._problem(None, "byte_order_mark", "warning", "The file begins with a byte order mark.",
                          "The provider alone would refuse it; `run` sends the lines without it.")  # fmt: skip
            line, offset, size = line[3:], 3, size - 3
        if not line.strip():
            self._problem(None, "blank_line", "warning", "The line is blank.", "It is left out; remove it.")
            return
        try:
            request = self._parse(line)
        except _Bad as bad:
            self._reject(offset, len(line), custom_id_of(line), bad)
            return
        self._accept(offset, line, request)

    # -- one line -------------------------------------------------------------------------------------------------------

    def _parse(self, line: bytes) -> _Request:
        try:
            usual = _decode_usual(line)
            raw = bytes(usual.body)
            body = _decode(raw)
        except UNREADABLE:
            usual, raw, body = self._unusual(line)
        if not line.isascii():
            _check_utf8(line)
        if not self._rules.lenient:
            if _SURROGATE.search(line):
                _check_surrogates(line)
            count = line.count
            if (
                count(b'"custom_id"') > 1 or count(b'"method"') > 1 or count(b'"url"') > 1 or count(b'"body"') > 1
                or count(b'"model"') > 1 or count(b'"messages"') > 1 or count(b'"input"') > 1
            ):  # fmt: skip
                _check_repeated(line)
            for name, value in (("custom_id", usual.custom_id), ("method", usual.method), ("url", usual.url)):
                if not value:
                    raise _Bad("invalid_request", f"{name} is empty.", f"Give {name} a value.")
        custom_id, method, url = usual.custom_id, usual.method, usual.url
        if method != "POST" and method.upper() != "POST" and not self._rules.lenient:
            raise _Bad("invalid_request", f"The method is {method!r}; the Batch API knows POST only.",
                       'Write "method": "POST".')  # fmt: skip
        if not isinstance(body, dict):
            raise _Bad("invalid_type", "The body is not a JSON object.", 'Write "body": {"model": …}.')
        model = body.get("model")
        if not isinstance(model, str) or not model.strip():
            if model is None and self._rules.redirect is None and not self._rules.lenient:
                raise _Bad("invalid_request", "Model parameter is required.",
                           "Name the deployment in the body's model, or give --deployment.")  # fmt: skip
            if model is not None and not self._rules.lenient:
                raise _Bad("invalid_type", "The body's model is not a name.", 'Write "model": "NAME".')
            model = ""
        return _Request(custom_id=custom_id, url=url, model=model, body=body, raw_body=raw, body_at=line.find(raw))

    def _unusual(self, line: bytes) -> tuple[_Usual, bytes, Any]:
        """A line that is not as it should be: find out why, or read it another way."""
        try:
            parts = _decode_line(line)
            body = _decode(parts.body) if bytes(parts.body) else None
        except UNREADABLE as error:
            raise _bad_json(line, error) from None
        if not line.isascii():
            _check_utf8(line)
        texts = [
            _text(raw, name)
            for raw, name in ((parts.custom_id, "custom_id"), (parts.method, "method"), (parts.url, "url"))
        ]
        if not bytes(parts.body):
            raise _missing("body")
        return _Usual(texts[0], texts[1], texts[2], parts.body), bytes(parts.body), body

    def _accept(self, offset: int, line: bytes, request: _Request) -> None:
        model = self._model(self._rules.redirect or request.model)
        if not self._rules.lenient:
            try:
                self._check_request(request, model)
            except _Bad as bad:
                self._reject(offset, len(line), request.custom_id, bad)
                return
        span = _model_span(request)
        flags = 0
        if self._rules.redirect is not None and span is None:
            self._reject(offset, len(line), request.custom_id, _Bad(
                "invalid_request", "Model parameter is required.",
                'Write "model": "…" into the body; with --deployment any name will do.',
            ))  # fmt: skip
            return
        at, size = span or (0, 0)
        if size > 0xFFFF:
            self._reject(offset, len(line), request.custom_id, _Bad(
                "invalid_request", "The model's name is longer than any name.", "Write the deployment's name."))  # fmt: skip
            return
        ordinal = self._append(
            offset, len(line), xxh3_64_intdigest(request.custom_id.encode("utf-8", "surrogatepass")),
            chars=_characters(request.raw_body), model_at=at, model_length=size,
            group=self._groups.setdefault((request.url, request.model), len(self._groups)), flags=flags,
        )  # fmt: skip
        counted = tally(request.url, request.body, model)
        self._pending.append((ordinal, counted, model))
        self._pending_chars += len(request.raw_body)
        wanted = request.body.get("max_completion_tokens") or request.body.get("max_tokens")
        self._meta[ordinal] = (request.custom_id, wanted if isinstance(wanted, int) else None)

    def _check_request(self, request: _Request, model: Model) -> None:
        body, dialect = request.body, self._rules.dialect
        if request.url not in self._limits.urls:
            served = ", ".join(sorted(self._limits.urls))
            raise _Bad(
                "invalid_url", f"The provider's Batch API does not serve {request.url!r}.", f"It serves {served}."
            )
        if body.get("stream") is True:
            raise _Bad("streaming_unsupported", "Streaming is not supported in the Batch API.", 'Leave out "stream".')
        kind = request.url.rpartition("/v1")[2].lstrip("/")
        needed = {"chat/completions": "messages", "responses": "input", "embeddings": "input"}.get(kind)
        if needed and not body.get(needed) and not (kind == "responses" and body.get("prompt")):
            raise _Bad("invalid_request", f"{needed.capitalize()} parameter is required.", f'Give "{needed}" a value.')
        if needed == "messages" and not isinstance(body["messages"], list):
            raise _Bad("invalid_type", "messages is not a list.", 'Write "messages": [{"role": …, "content": …}].')
        target = self._rules.models.get(request.model, request.model)
        if dialect is Dialect.AZURE and (target.startswith("ft:") or ".ft-" in target):
            raise _Bad("model_not_found", "Fine-tuned models cannot be used with Azure's Batch API.",
                       "Use a Global Batch or Data Zone Batch deployment of a base model.")  # fmt: skip
        self._check_sizes(body, kind, model)

    def _check_sizes(self, body: dict[str, Any], kind: str, model: Model) -> None:
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
            wanted = body.get(name)
            if wanted is None:
                continue
            if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
                raise _Bad("invalid_request", f"{name} is not a positive whole number.", f'Write "{name}": 1000.')
            if model.known and model.output is not None and wanted > model.output:
                raise _Bad("invalid_request", f"{name} is {wanted:,}; {model.name} gives at most {model.output:,} tokens.",
                           f"Write at most {model.output}.")  # fmt: skip
        for name, most in (("messages", self._limits.messages), ("tools", self._limits.tools)):
            given = body.get(name)
            if most is not None and isinstance(given, list) and len(given) > most:
                raise _Bad("invalid_request", f"The request has {len(given):,} {name}; {most:,} are allowed.",
                           f"Send fewer {name} in one request.")  # fmt: skip
        given = body.get("input")
        if kind == "embeddings" and isinstance(given, list) and len(given) > facts.EMBEDDING_INPUTS_MAX:
            most = facts.EMBEDDING_INPUTS_MAX
            if not all(isinstance(item, int) for item in given):
                raise _Bad("invalid_request", f"The request has {len(given):,} inputs; {most:,} are allowed.",
                           "Spread them over several requests.")  # fmt: skip

    def _model(self, name: str) -> Model:
        known = self._models.get(name)
        if known is None:
            known = self._models[name] = model_of(name, dict(self._rules.models))
        return known

    # -- counting -------------------------------------------------------------------------------------------------------

    def _count_pending(self) -> None:
        by_encoding: dict[str, list[tuple[int, str]]] = {}
        for ordinal, counted, model in self._pending:
            tokens = counted.fixed
            for text in counted.shared:
                key = (model.encoding, text)
                known = self._shared.get(key)
                if known is None:
                    known = self._count([text], model.encoding)[0]
                    if len(self._shared) < CACHE_TEXTS:
                        self._shared[key] = known
                tokens += known
            self._add(ordinal, tokens)
            by_encoding.setdefault(model.encoding, []).extend((ordinal, text) for text in counted.texts)
        for encoding, owned in by_encoding.items():
            for (ordinal, _), tokens in zip(owned, self._count([text for _, text in owned], encoding), strict=True):
                self._add(ordinal, tokens)
        for ordinal, counted, model in self._pending:
            if counted.reasons:
                self.scan.index.flags[ordinal] |= Flag.ESTIMATED
            if not self._rules.lenient:
                self._check_tokens(ordinal, model)
        self._pending.clear()
        self._meta.clear()
        self._pending_chars = 0

    def _add(self, ordinal: int, tokens: int) -> None:
        column = self.scan.index.tokens
        column[ordinal] = min(0xFFFF_FFFF, column[ordinal] + tokens)

    def _check_tokens(self, ordinal: int, model: Model) -> None:
        tokens = self.scan.index.tokens[ordinal]
        custom_id, wanted = self._meta[ordinal]
        limit = self._rules.limit
        line = self.scan.index.line[ordinal]
        if limit is not None and tokens > limit:
            self._spoil(ordinal, line, custom_id, _Bad(
                "token_limit_exceeded",
                f"The request alone has {tokens:,} tokens, more than the enqueued-token limit of {format_tokens(limit)}.",
                "Shorten it, or raise the deployment's limit (Azure: sku.capacity).",
            ))  # fmt: skip
        elif model.context is not None and tokens + (wanted or 0) > model.context:
            what = f"{tokens:,} tokens" + (f" and max_tokens of {wanted:,}" if wanted else "")
            self._spoil(ordinal, line, custom_id, _Bad(
                "context_length_exceeded",
                f"The request has {what}; {model.name}'s context window is {model.context:,}.",
                "Shorten the request or ask for a shorter answer.",
            ))  # fmt: skip

    # -- results --------------------------------------------------------------------------------------------------------

    def _append(
        self, offset: int, length: int, hashed: int, *, chars: int = 0, model_at: int = 0, model_length: int = 0,
        group: int = 0, flags: int = 0,
    ) -> int:  # fmt: skip
        index = self.scan.index
        for column, value in (
            (index.offset, offset), (index.length, length), (index.line, self.scan.lines), (index.tokens, 0),
            (index.chars, chars), (index.custom_id_hash, hashed), (index.model_at, model_at),
            (index.model_length, model_length), (index.group, group), (index.flags, flags),
        ):  # fmt: skip
            column.append(value)  # type: ignore[union-attr]
        return len(index) - 1

    def _reject(self, offset: int, length: int, custom_id: str | None, bad: _Bad) -> None:
        hashed = xxh3_64_intdigest(custom_id.encode("utf-8", "surrogatepass")) if custom_id is not None else 0
        ordinal = self._append(offset, length, hashed)
        self._spoil(ordinal, self.scan.lines, custom_id, bad)

    def _spoil(self, ordinal: int, line: int, custom_id: str | None, bad: _Bad) -> None:
        self.scan.index.flags[ordinal] |= Flag.BAD
        self.scan.bad.append((ordinal, custom_id, bad.code, bad.message))
        self._problem(custom_id, bad.code, "error", bad.message, bad.remedy, line=line)

    def _problem(
        self, custom_id: str | None, code: str, severity: str, message: str, remedy: str, *, line: int | None = None
    ) -> None:
        key = (code, severity)
        self.scan.counts[key] = seen = self.scan.counts.get(key, 0) + 1
        if seen <= LISTED_MOST:
            at = self.scan.lines if line is None else line
            self.scan.problems.append(
                Problem(file=self._name, line=at, custom_id=custom_id, code=code, severity=severity, message=message,
                        remedy=remedy)
            )  # fmt: skip


def _text(raw: msgspec.Raw, name: str) -> str:
    if not bytes(raw):
        raise _missing(name)
    value = _decode(raw)
    if not isinstance(value, str):
        raise _Bad("invalid_type", f"{name} is not a string.", f'Write "{name}": "…".')
    return value


def _check_utf8(line: bytes) -> None:
    """msgspec does not look at fields that it skips."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise _Bad(
            "invalid_json_line", f"The line is not valid UTF-8 at byte {error.start + 1}.", "Write the file as UTF-8."
        ) from None


def _missing(name: str) -> _Bad:
    return _Bad("missing_required_parameter", f"Missing required parameter: '{name}'.", f'Add "{name}" to the line.')


def _bad_json(line: bytes, error: Exception) -> _Bad:
    why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    if isinstance(error, UnicodeDecodeError):
        why = f"it is not valid UTF-8 at byte {error.start + 1}"
    elif re.search(rb"\b(NaN|-?Infinity)\b", line):
        why += " (NaN and Infinity are not JSON)"
    elif _SURROGATE.search(line):
        why += " (half of a surrogate pair)"
    return _Bad(
        "invalid_json_line", f"This line is not parseable as valid JSON: {why}.", "Write one JSON object a line."
    )


def _check_surrogates(line: bytes) -> None:
    try:
        json.dumps(json.loads(line), ensure_ascii=False).encode()
    except (UnicodeEncodeError, ValueError):
        raise _Bad("invalid_json_line", "The line has half of a surrogate pair (\\ud800 … \\udfff).",
                   "Write the character whole, or leave it out.") from None  # fmt: skip


def _check_repeated(line: bytes) -> None:
    """A key that stands twice on one level among those we act on: readers differ in which one they take."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [key for key, _ in items]
        for key in ("custom_id", "method", "url", "body", "model", "messages", "input"):
            if names.count(key) > 1:
                repeated.append(key)
        return dict(items)

    repeated: list[str] = []
    json.loads(line, object_pairs_hook=pairs)
    if repeated:
        raise _Bad("invalid_json_line", f"The key {repeated[0]!r} stands twice in one object.", "Write it once.")


def _model_span(request: _Request) -> tuple[int, int] | None:
    """Where the body's model stands within the line: (start, bytes), quotes included."""
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


def _characters(raw: bytes) -> int:
    return len(raw) if raw.isascii() else len(raw.decode("utf-8", "replace"))


class _HasId(msgspec.Struct):
    custom_id: str


def custom_id_of(line: bytes) -> str | None:
    """The custom_id of a line, or None if it has no readable one."""
    try:
        return msgspec.json.decode(line, type=_HasId).custom_id
    except UNREADABLE:
        return None


def hashes_with_lines(index: Index) -> Iterator[tuple[int, int]]:
    """(hash, ordinal) of requests whose custom_id could be read, sorted by hash, then ordinal."""
    hashes = index.custom_id_hash
    for ordinal in sorted(range(len(index)), key=hashes.__getitem__):
        if hashes[ordinal]:
            yield hashes[ordinal], ordinal


def merge(into: Index, part: Index, *, lines_before: int) -> None:
    """Append a range's columns to a file's index; group numbers are translated."""
    numbers = []
    for group in part.groups:
        if group not in into.groups:
            into.groups.append(group)
        numbers.append(into.groups.index(group))
    for name in ("offset", "length", "tokens", "chars", "custom_id_hash", "model_at", "model_length", "flags"):
        getattr(into, name).extend(getattr(part, name))
    into.line.extend(array("I", (line + lines_before for line in part.line)))  # type: ignore[union-attr]
    into.group.extend(  # type: ignore[union-attr]
        array(
            "H",
            (numbers[g] if numbers and not f & Flag.BAD else 0 for g, f in zip(part.group, part.flags, strict=True)),
        )
    )
