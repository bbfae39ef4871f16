"""Lines that the gateway logs, as text or as JSON, on standard error.

Never in them: keys, bodies, query strings (signed addresses stand there), texts of clients.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

FIELDS: Final = "sluicegate"
"""The attribute of a log record that carries its fields."""


class _Json(logging.Formatter):
    """One object a line: ``time``, ``level``, ``logger``, ``message``, and the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(),
        }  # fmt: skip
        line |= {name: value for name, value in getattr(record, FIELDS, {}).items() if value is not None}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        given = getattr(record, FIELDS, {})
        fields = " ".join(f"{name}={value}" for name, value in given.items() if value is not None)
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        text = f"{at} {record.levelname.lower():<7} {record.getMessage()} {fields}".rstrip()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure(kind: str) -> None:
    """Log everything of ours from ``info`` on to standard error: ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if kind == "json" else _Text())
    ours = logging.getLogger("sluicegate")
    ours.handlers = [handler]
    ours.setLevel(logging.INFO)
    ours.propagate = False
