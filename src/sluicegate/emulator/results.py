"""Writing what a batch leaves behind, and the input files of others: blocking functions over files on disk."""

from __future__ import annotations

import json
import os
import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from sluicegate.emulator.answers import Answers, Asked, FixedAnswers, LineRequest, Reply
from sluicegate.emulator.batch import Batch
from sluicegate.emulator.config import Account
from sluicegate.emulator.faults import FAILED_LINES, SILENT_LINES
from sluicegate.emulator.model import Model

ANSWERED_AT_ONCE: Final = 500

_decode_line = msgspec.json.Decoder(LineRequest).decode


@dataclass(frozen=True, slots=True)
class Written:
    """What writing a batch's results showed.

    Attributes:
        failed: Lines that the answers failed. ``input_tokens``, ``output_tokens``: sums over the requests that succeeded,
            each once, of what the ``usage`` of its line says.
    """

    failed: int
    input_tokens: int
    output_tokens: int


def write_results(
    model: Model, batch: Batch, source: Path, output: Path, errors: Path, answers: Answers | None = None
) -> Written:
    """Write a batch's output and error file, as far as it was executed, in a shuffled order.

    Args:
        answers: Who answers; None: the fixed text.
    """
    answers = answers or FixedAnswers()
    starts = _line_starts(source)
    dice = random.Random(f"{model.account.seed}:{batch.key}:ids")
    others = swapped(batch)
    failed = input_tokens = output_tokens = 0
    with source.open("rb", buffering=0) as file, output.open("wb", 1 << 20) as good, errors.open("wb", 1 << 18) as bad:

        def line(i: int) -> LineRequest:
            return _decode_line(os.pread(file.fileno(), starts[i + 1] - starts[i], starts[i]))

        order = model.shuffled(batch)
        for begin in range(0, len(order), ANSWERED_AT_ONCE):
            chosen = [i for i in order[begin : begin + ANSWERED_AT_ONCE] if batch.fates.get(i) not in SILENT_LINES]
            requests = [Asked(line(i), batch.tokens_of(i)) for i in chosen]
            replies = {
                i: filtered(reply, batch.fates.get(i), model.account)
                for i, reply in zip(chosen, answers.answer(requests, batch.deployment, dice), strict=True)
            }
            for i in order[begin : begin + ANSWERED_AT_ONCE]:
                custom_id = line(others.get(i, i)).custom_id
                reply = replies.get(i)
                for text, is_failed in _result_lines(batch.fates.get(i), custom_id, reply, dice, model.account):
                    (bad if is_failed else good).write(text + b"\n")
                if reply is not None:
                    failed += reply.status != 200
                    input_tokens += reply.input_tokens
                    output_tokens += reply.output_tokens
        if batch.ends_as == "expired":
            for i in range(batch.executed, len(batch.facts.tokens)):
                message = "This request could not be executed before the completion window expired."
                bad.write(_error_line(line(i).custom_id, dice, {"code": "batch_expired", "message": message}) + b"\n")
    return Written(failed, input_tokens, output_tokens)


def _line_starts(source: Path) -> array[int]:
    """Where each line that is not blank begins, and where the last one ends."""
    starts, at = array("Q"), 0
    with source.open("rb", buffering=1 << 20) as file:
        for line in file:
            if line.strip():
                starts.append(at)
            at += len(line)
    starts.append(at)
    return starts


def swapped(batch: Batch) -> dict[int, int]:
    """For lines whose answers are swapped with their neighbour's: under which line's id each goes."""
    found: dict[int, int] = {}
    for i in sorted(line for line, kind in batch.fates.items() if kind == "swapped"):
        other = i + 1 if i + 1 < batch.executed else i - 1
        if other >= 0 and i not in found and other not in found:
            found[i], found[other] = other, i
    return found


def _result_lines(
    fate: str | None, custom_id: str, reply: Reply | None, dice: random.Random, account: Account
) -> Iterator[tuple[bytes, bool]]:
    """(line, whether it goes to the error file) for each line that a request leaves behind."""
    if fate == "content_filter":
        yield _line(custom_id, dice, 400, {"error": CONTENT_FILTERED}, account), True
    elif fate in FAILED_LINES:
        kind = "rate_limit_error" if fate == "429" else "server_error"
        body = {"error": {"message": f"emulated status {fate}", "type": kind, "param": None, "code": None}}
        yield _line(custom_id, dice, int(fate or 0), body, account), True
    elif reply is not None:
        text = _line(custom_id, dice, reply.status, reply.body, account)
        yield text, reply.status != 200
        if fate == "doubled":
            yield text, reply.status != 200
        if fate == "unknown":
            yield _line("nobody-sent-this", dice, 200, {}, account), False


HARMLESS: Final[dict[str, Any]] = {
    name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")
}
HARMFUL: Final[dict[str, Any]] = HARMLESS | {"violence": {"filtered": True, "severity": "high"}}
"""What Azure's filter says of a text: the shape of the synchronous call (F§2.5); that it is violence is a choice."""

CONTENT_FILTERED: Final[dict[str, Any]] = {
    "message": "The response was filtered due to the prompt triggering content management policy.", "type": None,
    "param": "prompt", "code": "content_filter", "status": 400,
    "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": HARMFUL},
}  # fmt: skip
"""A filtered prompt as the synchronous call words it (F§2.5)."""


def filtered(reply: Reply, fate: str | None, account: Account) -> Reply:
    """The answer behind the content filter: what Azure adds to every choice, and what a filtered one has left."""
    choices = reply.body.get("choices") if reply.status == 200 else None
    hit, azure = fate == "content_filter_completion", account.dialect == "azure"
    if not (hit or azure) or not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        return reply
    body = reply.body | {"choices": [_filtered_choice(one, hit=hit, azure=azure) for one in choices]}
    if azure:
        body = {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": HARMLESS}]} | body
    return replace(reply, body=body)


def _filtered_choice(choice: dict[str, Any], *, hit: bool, azure: bool) -> dict[str, Any]:
    if hit:
        choice = choice | {"finish_reason": "content_filter"}
        message = choice.get("message")
        choice |= {"message": message | {"content": ""}} if isinstance(message, dict) else {"text": ""}
    return ({"content_filter_results": HARMFUL if hit else HARMLESS} | choice) if azure else choice


def _line(custom_id: str, dice: random.Random, status: int, body: dict[str, Any], account: Account) -> bytes:
    request_id = f"{dice.getrandbits(128):032x}"
    if account.dialect == "azure":
        response = {"body": body, "request_id": request_id, "status_code": status}
        return msgspec.json.encode({"custom_id": custom_id, "response": response, "error": None})
    response = {"status_code": status, "request_id": request_id, "body": body}
    return msgspec.json.encode(
        {"id": f"batch_req_{request_id[:24]}", "custom_id": custom_id, "response": response, "error": None}
    )


def _error_line(custom_id: str, dice: random.Random, error: dict[str, Any]) -> bytes:
    line_id = f"batch_req_{dice.getrandbits(96):024x}"
    return msgspec.json.encode({"id": line_id, "custom_id": custom_id, "response": None, "error": error})


# -- somebody else's work ----------------------------------------------------------------------------------------------

WORDS: Final = (
    "we", "go", "to", "it", "as", "he", "is", "no", "so", "up", "us", "an", "the", "and", "for", "you", "not", "are",
)  # fmt: skip
"""Each is one token."""

AROUND: Final = 7
"""Tokens of a request beside its text: three, three of its one message, one of its role (the cookbook's rule)."""


def write_foreign(path: Path, batch: Batch, seed: int) -> None:
    """The input file of somebody else's batch: as many lines as the model says, each of about as many tokens."""
    dice = random.Random(f"{seed}:{batch.id}")
    with path.open("w", encoding="utf-8") as out:
        for number, tokens in enumerate(batch.facts.tokens):
            text = " ".join(dice.choices(WORDS, k=max(1, tokens - AROUND)))
            body = {"model": batch.deployment, "messages": [{"role": "user", "content": text}]}
            line = {"custom_id": f"other-{number}", "method": "POST", "url": batch.endpoint, "body": body}
            out.write(json.dumps(line) + "\n")
