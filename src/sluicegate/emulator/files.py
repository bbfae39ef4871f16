"""Reading input files as the provider does, and writing answers: blocking functions over files on disk."""

from __future__ import annotations

import json
import os
import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_intdigest

from sluicegate import vocabulary
from sluicegate.core.limits import AZURE
from sluicegate.emulator.answers import PIECE, Answers, Asked, FixedAnswers, LineRequest, Reply, count
from sluicegate.emulator.batch import Batch, InputFacts
from sluicegate.emulator.config import Account
from sluicegate.emulator.faults import FAILED_LINES
from sluicegate.emulator.model import Model

ANSWERED_AT_ONCE: Final = 500
BATCH_LINES: Final = 500
PROBLEMS_MOST: Final = 100
EMBEDDINGS_MOST: Final = 50_000
"""Inputs of all lines of an embeddings batch (OpenAI's guide, F§3.1); the code of the error is a choice."""

_decode_line = msgspec.json.Decoder(LineRequest).decode
_decode = msgspec.json.Decoder().decode


def _encoding(model: str) -> str:
    """tiktoken's encoding for a model's name (its ``model.py``, 2026-08); o200k_base for any other name."""
    if model.startswith(("gpt-4o", "gpt-4.1", "gpt-4.5")):
        return "o200k_base"
    old = model.startswith(("gpt-3.5", "gpt-35", "text-embedding", "gpt-4"))
    return "cl100k_base" if old else "o200k_base"


def texts_of(body: dict[str, Any]) -> tuple[list[str], int]:
    """(texts, tokens around them) of a request, by the cookbook's rule for chat and its obvious like for the rest."""
    texts: list[str] = []
    around = 3
    for message in body.get("messages") or []:
        around += 3 + ("name" in message)
        texts += _strings(message)
    for key, value in body.items():
        if key not in ("messages", "model"):
            texts += _strings(value) if key in ("input", "prompt", "instructions", "tools", "response_format") else []
            if key in ("input", "prompt") and isinstance(value, list):
                around += sum(len(v) if isinstance(v, list) else isinstance(v, int) for v in value)
    return texts, around


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if not value.startswith("data:") else []
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    return []


def read(path: Path, account: Account) -> InputFacts:
    """Validate and count an input file, in the order of a choice: UTF-8, empty, JSON, fields, ids, url, model."""
    facts = InputFacts(tokens=array("I"), identity=array("Q"), quarter_chars=0, deployment="", url="")
    seen: set[int] = set()
    waiting: list[tuple[list[str], int]] = []
    with path.open("rb", buffering=1 << 20) as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith(b"\xef\xbb\xbf"):
                return _failed(
                    facts, "invalid_json_line" if account.dialect == "openai" else "invalid_request", _NO_MODEL
                )
            if not line.strip():
                continue
            problem = _read_line(line, number, facts, seen, waiting, account)
            if problem is not None and len(facts.problems) < PROBLEMS_MOST:
                facts.problems.append(problem)
            if len(waiting) >= BATCH_LINES:
                _count(waiting, facts, _encoding(account.model_of(facts.deployment)))
    _count(waiting, facts, _encoding(account.model_of(facts.deployment)))
    if not facts.tokens and not facts.problems:
        return _failed(facts, "empty_file", "The input file is empty. Please ensure that the batch contains at least one "
                       "request.")  # fmt: skip
    most = account.requests_max
    if most is not None and len(facts.tokens) > most:
        return _failed(facts, "too_many_tasks", f"The input file has more than {most} lines.")
    if account.dialect == "openai" and facts.url.endswith("/embeddings") and facts.inputs > EMBEDDINGS_MOST:
        return _failed(facts, "too_many_tasks", f"The input file has more than {EMBEDDINGS_MOST} embedding inputs.")
    return facts


_NO_MODEL: Final = (
    "Validation failed: A valid model deployment name couldn't be extracted from the input file. Please ensure that each "
    "row in the input file has a valid deployment name specified in the 'model' field, and that the deployment name is "
    "consistent across all rows."
)


def _failed(facts: InputFacts, code: str, message: str) -> InputFacts:
    facts.problems.insert(0, {"code": code, "message": message, "param": None, "line": None})
    return facts


def _problem(code: str, message: str, line: int, param: str | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "line": line}


def _read_line(
    line: bytes, number: int, facts: InputFacts, seen: set[int], waiting: list[tuple[list[str], int]], account: Account
) -> dict[str, Any] | None:
    try:
        request = _decode_line(line)
        body = _decode(request.body)
        line.decode()
    except msgspec.ValidationError as error:
        name = next((n for n in ("custom_id", "method", "url", "body") if f"`{n}`" in str(error)), None)
        # Azure's table has one code for every bad schema (F§5.2), OpenAI names the parameter (F§5.3).
        if name and "missing" in str(error) and account.dialect == "openai":
            return _problem("missing_required_parameter", f"Missing required parameter: '{name}'.", number, name)
        return _problem("invalid_request", str(error), number)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _problem("invalid_json_line", "This line is not parseable as valid JSON.", number)
    hashed = xxh3_64_intdigest(request.custom_id.encode("utf-8", "replace"))
    if hashed in seen:
        text = f"The custom_id '{request.custom_id}' is not unique within this file."
        return _problem("duplicate_custom_id", text, number, "custom_id")
    seen.add(hashed)
    model = body.get("model") if isinstance(body, dict) else None
    if not isinstance(model, str) or not model:
        if account.dialect == "azure":
            return _problem("model_not_found", _NO_MODEL, number, "body.model")
        return _problem("invalid_request", "Model parameter is required.", number, "body.model")
    if not facts.deployment:
        facts.deployment, facts.url = model, request.url
    if model != facts.deployment:
        code = "model_mismatch" if account.dialect == "azure" else "mismatched_model"
        return _problem(code, "All requests of a file must name the same model.", number, "body.model")
    if request.url != facts.url:
        code = "url_mismatch" if account.dialect == "azure" else "invalid_url"
        text = "The URL provided for this request does not match the batch endpoint."
        return _problem(code, text, number, "url")
    if account.dialect == "azure" and request.url not in AZURE.urls:
        text = f"The URL '{request.url}' is not supported by the Batch API."
        return _problem("invalid_request", text, number, "url")
    if body.get("stream"):
        text = "Chat Completions: Streaming is not supported in the Batch API."
        code = "invalid_request" if account.dialect == "azure" else "streaming_unsupported"
        return _problem(code, text, number, "body.stream")
    if request.method != "POST":
        return _problem("invalid_request", f"The method '{request.method}' is not supported.", number, "method")
    if account.dialect == "openai" and request.url.endswith("/chat/completions") and not body.get("messages"):
        return _problem("invalid_request", "Messages parameter is required.", number, "body.messages")
    given = body.get("input")
    facts.inputs += len(given) if isinstance(given, list) and not all(isinstance(x, int) for x in given) else 1
    raw = bytes(request.body)
    facts.quarter_chars += (len(raw) if raw.isascii() else len(raw.decode())) // 4
    without_model = {key: value for key, value in body.items() if key != "model"}
    text = request.custom_id + json.dumps(without_model, sort_keys=True)
    facts.identity.append(xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")))
    waiting.append(texts_of(body))
    return None


def _count(waiting: list[tuple[list[str], int]], facts: InputFacts, encoding: str) -> None:
    coder = vocabulary.encoding(encoding)
    texts = [text for some, _ in waiting for text in some]
    if all(len(text) <= PIECE for text in texts):
        counts = [len(tokens) for tokens in coder.encode_ordinary_batch(texts, num_threads=2)]
    else:
        counts = [count(text, encoding) for text in texts]
    at = 0
    for some, around in waiting:
        facts.tokens.append(around + sum(counts[at : at + len(some)]))
        at += len(some)
    waiting.clear()


# -- results -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Written:
    """What writing a batch's results showed: lines that the answers failed, tokens of the answers."""

    failed: int
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
    dice = random.Random(f"{model.account.seed}:{batch.id}:ids")
    swapped = _swapped(batch)
    failed = output_tokens = 0
    with source.open("rb", buffering=0) as file, output.open("wb", 1 << 20) as good, errors.open("wb", 1 << 18) as bad:

        def line(i: int) -> LineRequest:
            return _decode_line(os.pread(file.fileno(), starts[i + 1] - starts[i], starts[i]))

        order = model.shuffled(batch)
        for begin in range(0, len(order), ANSWERED_AT_ONCE):
            chosen = [i for i in order[begin : begin + ANSWERED_AT_ONCE] if batch.fates.get(i) not in SILENT]
            requests = [Asked(line(i), batch.tokens_of(i)) for i in chosen]
            replies = dict(zip(chosen, answers.answer(requests, batch.deployment, dice), strict=True))
            for i in order[begin : begin + ANSWERED_AT_ONCE]:
                custom_id = line(swapped.get(i, i)).custom_id
                reply = replies.get(i)
                for text, is_failed in _result_lines(batch.fates.get(i), custom_id, reply, dice, model.account):
                    (bad if is_failed else good).write(text + b"\n")
                if reply is not None:
                    failed += reply.status != 200
                    output_tokens += reply.output_tokens
        if batch.ends_as == "expired":
            for i in range(batch.executed, len(batch.facts.tokens)):
                message = "This request could not be executed before the completion window expired."
                bad.write(_error_line(line(i).custom_id, dice, {"code": "batch_expired", "message": message}) + b"\n")
    return Written(failed, output_tokens)


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


def _swapped(batch: Batch) -> dict[int, int]:
    """For lines whose answers are swapped with their neighbour's: under which line's id each goes."""
    found: dict[int, int] = {}
    for i in sorted(line for line, kind in batch.fates.items() if kind == "swapped"):
        other = i + 1 if i + 1 < batch.executed else i - 1
        if other >= 0 and i not in found and other not in found:
            found[i], found[other] = other, i
    return found


SILENT: Final = FAILED_LINES | {"missing"}
"""Fates of lines to which nobody answers."""


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


CONTENT_FILTERED: Final[dict[str, Any]] = {
    "message": "The response was filtered due to the prompt triggering content management policy.", "type": None,
    "param": "prompt", "code": "content_filter", "status": 400,
    "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
}  # fmt: skip
"""A filtered prompt as the synchronous call words it (F§2.5)."""


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
    "we",
    "go",
    "to",
    "it",
    "as",
    "he",
    "is",
    "no",
    "so",
    "up",
    "us",
    "an",
    "the",
    "and",
    "for",
    "you",
    "not",
    "are",
)
"""Each is one token."""


def write_foreign(path: Path, batch: Batch, seed: int) -> None:
    """The input file of somebody else's batch: as many lines as the model says, each of about as many tokens."""
    dice = random.Random(f"{seed}:{batch.id}")
    with path.open("w", encoding="utf-8") as out:
        for number, tokens in enumerate(batch.facts.tokens):
            text = " ".join(dice.choices(WORDS, k=max(1, tokens - 8)))
            body = {"model": batch.deployment, "messages": [{"role": "user", "content": text}]}
            line = {"custom_id": f"other-{number}", "method": "POST", "url": batch.endpoint, "body": body}
            out.write(json.dumps(line) + "\n")
