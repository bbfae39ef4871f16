"""Lines that the gateway logs, as text or as JSON, on standard error.

Never in them: keys, bodies, query strings (signed addresses stand there), texts of clients.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

FIELDS: Final = "sluicegate"
"""The attribute of a log record that carries its fields."""

FIELD_CHARS_MAX: Final = 200
MESSAGE_CHARS_MAX: Final = 2_000
"""Of one field, and of a message; the rest is left out."""

OURS: Final = ("sluicegate", "uvicorn", "asyncio")
"""Loggers whose lines look alike: ours, and those of what serves us."""

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SPACE: Final = re.compile(r'[\s"]')


def _one_line(text: str, most: int) -> str:
    """A text that neither begins a line of its own nor moves a terminal's cursor: parts of it may be a client's."""
    shown = text if len(text) <= most else f"{text[:most]}…"
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", shown)


def _message(record: logging.LogRecord) -> str:
    return _one_line(record.getMessage(), MESSAGE_CHARS_MAX)


def _word(value: object) -> str:
    """A field's value in a line of text: quoted where it could be taken for another field."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if _SPACE.search(text) else text


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given = getattr(record, FIELDS, {})
    return {
        name: _one_line(value, FIELD_CHARS_MAX) if isinstance(value, str) else value
        for name, value in given.items() if value is not None
    }  # fmt: skip


class _Json(logging.Formatter):
    """One object a line: ``time``, ``level``, ``logger``, ``message``, and the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(), "logger": record.name, "message": _message(record),
        }  # fmt: skip
        line |= _fields(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={_word(value)}" for name, value in _fields(record).items())
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        text = f"{at} {record.levelname.lower():<7} {_message(record)} {fields}".rstrip()
        # Indented, so that no line of an exception's text looks like one of ours.
        lines = self.formatException(record.exc_info).splitlines() if record.exc_info else []
        return "\n    ".join([text, *lines])


def configure(kind: str) -> None:
    """Log everything of ours from ``info`` on to standard error, and warnings of what serves us: ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if kind == "json" else _Text())
    for name in OURS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO if name == "sluicegate" else logging.WARNING)
        logger.propagate = False
