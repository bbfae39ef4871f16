"""The pre-submission check over one byte range of an input: lines → index columns and problems.

The code of a problem is the provider's own where it has one (F§5.2, F§5.3), so that people find it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat
from typing import BinaryIO, Final

from xxhash import xxh3_64_intdigest

from sluicegate.core import line as lines
from sluicegate.core import plain
from sluicegate.core.estimate import PER_MESSAGE, PER_REQUEST, Tally, tally
from sluicegate.core.index import Flag, Group, Index
from sluicegate.core.jsonl import BOM, blocks_in
from sluicegate.core.limits import Model, model_of
from sluicegate.core.line import Fault, Request
from sluicegate.core.rules import CheckRules, check_request, check_tokens

LISTED_MOST: Final = 1_000
"""Problems of each code that are listed; all are counted."""

CACHE_TEXTS: Final = 4_096
"""Shared texts (system prompts, roles, tools) whose counts a scan remembers."""

BATCH_CHARS: Final = 1 << 19
"""Characters that are counted in one call, so that memory stays bounded."""

TOKENS_MOST: Final = 0xFFFF_FFFF
"""What the index can hold; no request that a provider takes comes near."""

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


@dataclass(slots=True)
class _Texts:
    """Texts of one encoding that wait to be counted, and the request that each belongs to."""

    owners: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Kind:
    """Requests of one url and model, opened by the first that passed every rule.

    Attributes:
        bound: Tokens up to which a request is surely within the limit and the context window.
        flags: Of a plain request.
    """

    group: int
    model: Model
    bound: float
    flags: int


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
        self._models: dict[str, Model] = {}
        self._groups: dict[tuple[str, str], int] = {}
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._shared: dict[str, dict[str, int]] = {}
        self._waiting: dict[str, _Texts] = {}
        self._waiting_chars = 0
        self._sized: list[tuple[int, str, int, _Kind]] = []
        self._messages_most = rules.limits.messages or 1 << 32
        self.scan = Scan(index=Index.empty())
        self._append = self.scan.index.appender()

    def run(self, file: BinaryIO, start: int, stop: int) -> Scan:
        """Scan the lines that begin in ``[start, stop)``."""
        for offset, block in blocks_in(file, start, stop, longest=self._rules.line_bytes_max):
            if isinstance(block, int):
                self.scan.lines += 1
                self._too_long(offset, block)
            else:
                self._block(offset, block)
            if self._waiting_chars > BATCH_CHARS:
                self._count_waiting()
        self._count_waiting()
        self.scan.index.groups = [Group(url, model) for url, model in self._groups]
        return self.scan

    def _block(self, offset: int, block: bytes) -> None:
        found = block.split(b"\n")
        if not found[-1]:
            del found[-1]  # what the last line's end leaves behind
        most = self._rules.line_bytes_max
        maybe_plain = not self._rules.lenient and len(block) <= most
        for line, request in zip(found, plain.read(block, found) if maybe_plain else repeat(None), strict=False):
            self.scan.lines += 1
            kind = self._kinds.get((request.url, request.model)) if request is not None else None
            bare = line.removesuffix(b"\r")
            if request is None or kind is None or not self._plain(offset, bare, request, kind):
                self._one(offset, bare)
            offset += len(line) + 1

    def _plain(self, offset: int, line: bytes, request: plain.Plain, kind: _Kind) -> bool:
        """Take a plain request of a known kind; False leaves it to the rules."""
        model, messages = kind.model, request.messages
        if not 0 < len(messages) <= self._messages_most or (request.wanted and request.wanted > (model.output or 0)):
            return False
        shared = self._shared[model.encoding]
        waiting = self._waiting[model.encoding]
        tokens = PER_REQUEST + PER_MESSAGE * len(messages)
        ordinal = len(self.scan.index.offset)
        for message in messages:
            role = message.role
            known = shared.get(role)
            tokens += self._known(role, model.encoding) if known is None else known
            if role in ("system", "developer"):
                known = shared.get(message.content)
                tokens += self._known(message.content, model.encoding) if known is None else known
            else:
                waiting.owners.append(ordinal)
                waiting.texts.append(message.content)
        self._append(
            offset, len(line), self.scan.lines, tokens, request.chars, xxh3_64_intdigest(request.custom_id.encode()),
            request.model_at, request.model_length, kind.group, kind.flags,
        )  # fmt: skip
        self._waiting_chars += request.chars
        self._sized.append((ordinal, request.custom_id, request.wanted, kind))
        return True

    def _too_long(self, offset: int, size: int) -> None:
        self._reject(offset, 0, None, Fault(
            "line_too_long", f"The line has {size:,} bytes, more than the {self._rules.line_bytes_max:,} that are read.",
            "Send large content by URL or file id, or raise line_bytes_max.",
        ))  # fmt: skip

    def _one(self, offset: int, line: bytes) -> None:
        if len(line) > self._rules.line_bytes_max:
            self._too_long(offset, len(line))
            return
        if offset == 0 and line.startswith(BOM):
            self._problem(None, "byte_order_mark", "warning", "The file begins with a byte order mark.",
                          "The provider alone would refuse it; `run` sends the lines without it.")  # fmt: skip
            line, offset = line[3:], 3
        if not line.strip():
            self._problem(None, "blank_line", "warning", "The line is blank.", "It is left out; remove it.")
            return
        rules = self._rules
        try:
            request = lines.read(line, lenient=rules.lenient, needs_model=rules.redirect is None)
        except Fault as fault:
            self._reject(offset, len(line), lines.custom_id_of(line), fault)
            return
        try:
            self._accept(offset, line, request)
        except Fault as fault:
            self._reject(offset, len(line), request.custom_id, fault)

    def _accept(self, offset: int, line: bytes, request: Request) -> None:
        rules = self._rules
        model = self._model(rules.redirect or self._deployment(request.model))
        if not rules.lenient:
            check_request(request, model, rules)
        span = lines.model_span(request)
        if rules.redirect is not None and span is None:
            raise Fault("invalid_request", "Model parameter is required.",
                        'Write "model": "…" into the body; with --deployment any name will do.')  # fmt: skip
        at, size = span or (0, 0)
        if size > 0xFFFF:
            raise Fault("invalid_request", "The model's name is longer than any name.", "Write the deployment's name.")
        counted = _tally(request, model)
        kind = self._kind(request, model)
        ordinal = len(self.scan.index)
        self._append(
            offset, len(line), self.scan.lines, 0, request.chars, _hash(request.custom_id), at, size, kind.group,
            Flag.ESTIMATED if counted.reasons else 0,
        )  # fmt: skip
        self._enqueue(ordinal, counted, model.encoding)
        self._waiting_chars += len(request.raw_body)
        self._sized.append((ordinal, request.custom_id, request.wanted, kind))

    def _deployment(self, name: str) -> str:
        names = self._rules.names
        if names and name not in names:
            raise Fault("model_not_found", f"No deployment serves {name!r} here.", f"Name one of {', '.join(names)}.")
        return names.get(name, name)

    def _model(self, name: str) -> Model:
        known = self._models.get(name)
        if known is None:
            known = self._models[name] = model_of(name, dict(self._rules.models))
        return known

    def _kind(self, request: Request, model: Model) -> _Kind:
        key = request.url, request.model
        known = self._kinds.get(key)
        if known is None:
            bounds = [bound for bound in (self._rules.limit, model.context) if bound is not None]
            known = _Kind(
                self._groups.setdefault(key, len(self._groups)), model, min(bounds, default=float("inf")),
                0 if model.known else Flag.ESTIMATED,
            )  # fmt: skip
            if request.url.endswith("/chat/completions"):
                self._kinds[key] = known
            self._shared.setdefault(model.encoding, {})
            self._waiting.setdefault(model.encoding, _Texts())
        return known

    # -- counting -------------------------------------------------------------------------------------------------------

    def _enqueue(self, ordinal: int, counted: Tally, encoding: str) -> None:
        shared, waiting = self._shared[encoding], self._waiting[encoding]
        tokens = counted.fixed
        for text in counted.shared:
            known = shared.get(text)
            tokens += self._known(text, encoding) if known is None else known
        self.scan.index.tokens[ordinal] = min(TOKENS_MOST, tokens)
        for text in counted.texts:
            waiting.owners.append(ordinal)
            waiting.texts.append(text)

    def _known(self, text: str, encoding: str) -> int:
        tokens = self._count([text], encoding)[0]
        if len(self._shared[encoding]) < CACHE_TEXTS:
            self._shared[encoding][text] = tokens
        return tokens

    def _count_waiting(self) -> None:
        column = self.scan.index.tokens
        for encoding, waiting in self._waiting.items():
            for ordinal, tokens in zip(waiting.owners, self._count(waiting.texts, encoding), strict=True):
                column[ordinal] = min(TOKENS_MOST, column[ordinal] + tokens)
            waiting.owners.clear()
            waiting.texts.clear()
        if not self._rules.lenient:
            for ordinal, custom_id, wanted, kind in self._sized:
                if column[ordinal] + wanted > kind.bound:
                    try:
                        check_tokens(column[ordinal], wanted, kind.model, self._rules.limit)
                    except Fault as fault:
                        self._spoil(ordinal, self.scan.index.line[ordinal], custom_id, fault)
        self._sized.clear()
        self._waiting_chars = 0

    # -- results --------------------------------------------------------------------------------------------------------

    def _reject(self, offset: int, length: int, custom_id: str | None, fault: Fault) -> None:
        ordinal = len(self.scan.index)
        hashed = _hash(custom_id) if custom_id is not None else 0
        self._append(offset, length, self.scan.lines, 0, 0, hashed, 0, 0, 0, 0)
        self._spoil(ordinal, self.scan.lines, custom_id, fault)

    def _spoil(self, ordinal: int, line: int, custom_id: str | None, fault: Fault) -> None:
        self.scan.index.flags[ordinal] |= Flag.BAD
        self.scan.bad.append((ordinal, custom_id, fault.code, fault.message))
        self._problem(custom_id, fault.code, "error", fault.message, fault.remedy, line=line)

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


def _tally(request: Request, model: Model) -> Tally:
    try:
        return tally(request.url, request.body, model)
    except Exception as error:  # noqa: BLE001 whatever one line is, also one of another client's batch, all others are counted
        reason = f"its body is not as any rule expects ({type(error).__name__}): characters ÷ 4 are taken"
        return Tally(fixed=-(-request.chars // 4), reasons=[reason])


def _hash(custom_id: str) -> int:
    return xxh3_64_intdigest(custom_id.encode("utf-8", "surrogatepass"))
