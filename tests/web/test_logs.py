"""Log lines: one for each thing that happened, whatever clients write."""

from __future__ import annotations

import json
import logging

import pytest

from sluicegate.web import logs

FORGED = "x\n00:00:00 info    GET /v1/files 200 key=key_forged\x1b[2J\u2028z"


def lines(kind: str, capsys: pytest.CaptureFixture[str], **fields: object) -> list[str]:
    """What a message with an exception, and one with fields, become."""
    loggers = [logging.getLogger(name) for name in (*logs.OURS, "uvicorn.error")]
    before = [(one.handlers, one.level, one.propagate) for one in loggers]
    try:
        logs.configure(kind)
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # as uvicorn does, whatever it did in other tests
        try:
            raise ValueError(FORGED)
        except ValueError:
            logging.getLogger("sluicegate.x").exception("failed: %s", FORGED)
        logging.getLogger("sluicegate.x").info("done", extra={logs.FIELDS: fields})
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    finally:
        for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
            one.handlers, one.level, one.propagate = handlers, level, propagate
    return capsys.readouterr().err.removesuffix("\n").split("\n")


def test_text_of_clients_makes_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are written out, an exception's lines are indented, a field with spaces is quoted and cut."""
    said = lines("text", capsys, deployment=FORGED, batch="y" * 1_000, ms=1.5)

    begun = [line for line in said if not line.startswith("    ")]
    assert [line.split()[1] for line in begun] == ["error", "info", "warning"]
    assert "failed: x\\x0a00:00:00 info" in begun[0] and "\x1b" not in begun[0] and "\u2028" not in begun[0]
    assert begun[1].split("done ")[1].startswith('deployment="x\\\\x0a00:00:00 info')
    assert len(begun[1]) < 600 and begun[1].endswith("… ms=1.5")
    assert begun[2].endswith("Invalid HTTP request received.")
    assert all("key_forged" not in line or line.startswith("    ") for line in said if line not in begun)


def test_every_line_of_a_json_log_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    """uvicorn's too."""
    said = [json.loads(line) for line in lines("json", capsys, deployment=FORGED)]

    assert [one["message"] for one in said][1:] == ["done", "Invalid HTTP request received."]
    assert said[0]["traceback"] and said[1]["deployment"].startswith("x\\x0a") and said[2]["logger"] == "uvicorn.error"
