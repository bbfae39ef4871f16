"""Match the provider's result lines with the requests that they answer, each exactly once (D5).

A *sidecar* says for each settled request of a part where its line is: in the output file (``OUT``), in the error file
(``ERR``) or in a file of ours (``OWN``), and whether it goes to the client's output or error file.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_intdigest

from sluicegate.core.types import Usage

OUT, ERR, OWN = 0, 1, 2

PASSING_STATUS: Final = frozenset({0, 408, 409, 429})
"""HTTP statuses of a line that a later attempt may not get; all 5xx as well (F§2.4, F§5.3)."""

PASSING_CODES: Final = frozenset(
    {
        "batch_expired", "batch_cancelled", "rate_limit_exceeded", "too_many_requests", "server_error",
        "internal_error", "internal_server_error", "internalfailure", "serviceunavailable", "service_unavailable",
        "timeout", "request_timeout", "toomanyrequests",
    }
)  # fmt: skip

MISSING: Final = "missing_result"
"""The error code of ours for a request that the provider returned no line for."""

MAGIC: Final = b"SGSC1\n"


class _Body(msgspec.Struct):
    usage: Any = None


class _Error(msgspec.Struct):
    code: str | int | None = None
    message: str | None = None


_NULL: Final = msgspec.Raw(b"null")


class _Line(msgspec.Struct):
    custom_id: str | None = None
    response: msgspec.Raw = _NULL
    error: _Error | str | None = None


class _ResponseHead(msgspec.Struct):
    status_code: int | str | None = None
    body: msgspec.Raw = _NULL


_line = msgspec.json.Decoder(_Line)
_head = msgspec.json.Decoder(_ResponseHead | None)
_body = msgspec.json.Decoder(_Body | None)


@dataclass(slots=True)
class Settled:
    """The sidecar's columns: one entry per request that is done for good, in the order of settling."""

    position: array[int] = field(default_factory=lambda: array("I"))
    source: array[int] = field(default_factory=lambda: array("B"))
    failed: array[int] = field(default_factory=lambda: array("B"))
    offset: array[int] = field(default_factory=lambda: array("Q"))
    length: array[int] = field(default_factory=lambda: array("I"))

    def __len__(self) -> int:
        return len(self.position)

    def add(self, position: int, source: int, failed: bool, offset: int, length: int) -> None:
        """Append one entry."""
        self.position.append(position)
        self.source.append(source)
        self.failed.append(failed)
        self.offset.append(offset)
        self.length.append(length)

    def put(self, entry: int, source: int, failed: bool, offset: int, length: int) -> None:
        """Let entry number ``entry`` have another line."""
        self.source[entry], self.failed[entry] = source, failed
        self.offset[entry], self.length[entry] = offset, length

    def to_bytes(self) -> bytes:
        """The sidecar's content."""
        columns = (self.position, self.source, self.failed, self.offset, self.length)
        return b"".join((MAGIC, len(self).to_bytes(8, "little"), *(column.tobytes() for column in columns)))

    @classmethod
    def from_bytes(cls, data: bytes) -> Settled:
        """The columns of :meth:`to_bytes`. Raises ValueError if it is cut short."""
        if data[: len(MAGIC)] != MAGIC:
            raise ValueError("not a sidecar")
        count = int.from_bytes(data[len(MAGIC) : len(MAGIC) + 8], "little")
        settled, at = cls(), len(MAGIC) + 8
        for column in (settled.position, settled.source, settled.failed, settled.offset, settled.length):
            size = count * column.itemsize
            if at + size > len(data):
                raise ValueError("the sidecar is cut short")
            column.frombytes(data[at : at + size])
            at += size
        return settled


@dataclass(slots=True)
class Outcome:
    """What a part brought home.

    Attributes:
        settled: Requests that are done for good, so far those with a line of the provider.
        passing: Positions whose line says that a later attempt may do better, with (source, offset, length) of it.
        usage, counted, estimated: Tokens as the provider counts them; for the requests with usage, its count of the
            input and ours, to calibrate by.
        executed: Requests whose line says what came of them, not that the batch's end left them undone.
        doubled, unknown: Findings, counted.
        failures: Position → its number in ``settled``, of those that failed for good.
    """

    settled: Settled = field(default_factory=Settled)
    passing: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    answered: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)
    counted: int = 0
    estimated: int = 0
    executed: int = 0
    doubled: int = 0
    unknown: int = 0
    unreadable: int = 0
    failures: dict[int, int] = field(default_factory=dict)


class Matcher:
    """Feeds on result lines of one part.

    Args:
        positions, hashes, tokens: The part's requests: position, hash of the custom_id on the wire, our estimate.
    """

    def __init__(self, positions: Sequence[int], hashes: Iterable[int], tokens: Sequence[int]) -> None:
        self._positions, self._tokens = positions, tokens
        self._at = {hashed: i for i, hashed in enumerate(hashes)}
        self._answered = bytearray(len(positions))
        self._executed = bytearray(len(positions))
        self._input = self._cached = self._output = self._reasoning = 0
        self.outcome = Outcome()

    def feed(self, line: bytes | memoryview, source: int, offset: int) -> None:
        """Take one line (without its newline) that stands at ``offset`` of file ``source``."""
        out = self.outcome
        try:
            parsed = _line.decode(line)
            str(line, "utf-8")  # the decoder looks only at the fields that it wants
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            out.unreadable += 1
            return
        if parsed.custom_id is None:
            out.unknown += 1
            return
        at = self._at.get(xxh3_64_intdigest(parsed.custom_id.encode("utf-8", "surrogatepass")))
        if at is None:
            out.unknown += 1
            return
        position = self._positions[at]
        status, usage = _read_response(parsed.response)
        code = parsed.error.code if isinstance(parsed.error, _Error) else parsed.error
        self._executed[at] |= status is not None or not _passing(status, code)
        good = not _says_error(parsed.error) and status is not None and 200 <= status < 300
        if self._answered[at]:
            out.doubled += 1
            if good and position in out.failures:
                # An answer beats any failure of the same request, whichever comes first.
                out.settled.put(out.failures.pop(position), source, False, offset, len(line))
                out.answered, out.failed = out.answered + 1, out.failed - 1
                if usage is not None:
                    self._count(usage, self._tokens[at])
            return
        if not good and _passing(status, code):
            out.passing[position] = (source, offset, len(line))
            return
        # What is final beats a passing failure of the same request, whichever comes first.
        out.passing.pop(position, None)
        self._answered[at] = True
        if not good:
            out.failures[position] = len(out.settled)
        out.settled.add(position, source, not good, offset, len(line))
        if good:
            out.answered += 1
        else:
            out.failed += 1
        if usage is not None:
            self._count(usage, self._tokens[at] if good else 0)

    def _count(self, usage: dict[str, Any], estimate: int) -> None:
        counted = _number(usage, "prompt_tokens", "input_tokens")
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        self._input += counted
        self._output += _number(usage, "completion_tokens", "output_tokens")
        self._cached += _number(details, "cached_tokens") if isinstance(details, dict) else 0
        details = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
        self._reasoning += _number(details, "reasoning_tokens") if isinstance(details, dict) else 0
        if estimate and counted:
            self.outcome.counted += counted
            self.outcome.estimated += estimate

    def finish(self) -> tuple[Outcome, list[int]]:
        """The outcome, and the positions that no line was found for."""
        self.outcome.usage = Usage(
            input_tokens=self._input, cached_tokens=self._cached, output_tokens=self._output,
            reasoning_tokens=self._reasoning,
        )  # fmt: skip
        self.outcome.executed = sum(self._executed)
        passing = self.outcome.passing
        open_still = (p for p, answered in zip(self._positions, self._answered, strict=True) if not answered)
        missing = [p for p in open_still if p not in passing]
        return self.outcome, missing


def is_passing(line: bytes) -> bool:
    """True if a failed result line says that a later attempt may do better, or if it is our own for a missing one."""
    try:
        parsed = _line.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    status, _ = _read_response(parsed.response)
    code = parsed.error.code if isinstance(parsed.error, _Error) else parsed.error
    return code == MISSING or _passing(status, code)


def _says_error(error: _Error | str | None) -> bool:
    """An error without a code and a message is none, as null is."""
    return bool(error.code is not None or error.message) if isinstance(error, _Error) else bool(error)


def _status(given: int | str | None) -> int | None:
    """A line's status, also where it is written as a text."""
    if isinstance(given, str):
        return int(given) if given.isascii() and given.isdigit() and len(given) <= 3 else None
    return given


def _read_response(raw: msgspec.Raw) -> tuple[int | None, dict[str, Any] | None]:
    try:
        head = _head.decode(raw)
    except msgspec.DecodeError:
        head = None
    if head is None:
        return None, None
    try:
        body = _body.decode(head.body)
    except msgspec.DecodeError:  # a body that is no object: an answer all the same
        body = None
    usage = body.usage if body is not None else None
    return _status(head.status_code), usage if isinstance(usage, dict) else None


def _passing(status: int | None, code: str | int | None) -> bool:
    if status is not None and (status in PASSING_STATUS or status >= 500):
        return True
    if status is None or 200 <= status < 300:
        return code is None or str(code).lower() in PASSING_CODES
    return False


def _number(values: dict[str, Any], *names: str) -> int:
    for name in names:
        value = values.get(name)
        if isinstance(value, int):
            return value
    return 0


def error_line(custom_id: str | None, code: str, message: str) -> bytes:
    """A line of ours for the error file, in the provider's shape (F§2.5), without a newline."""
    return msgspec.json.encode(
        {"id": None, "custom_id": custom_id, "response": None, "error": {"code": code, "message": message}}
    )
