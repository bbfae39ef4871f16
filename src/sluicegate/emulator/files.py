"""Reading input files as the provider does, and writing answers: blocking functions over files on disk."""

from __future__ import annotations

import hashlib
import json
import os
import random
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_intdigest

from sluicegate import vocabulary
from sluicegate.emulator.config import Account
from sluicegate.emulator.model import Batch, InputFacts, Model

PIECE: Final = 100_000
BATCH_LINES: Final = 500
PROBLEMS_MOST: Final = 100

_ANSWER: Final = (
    "This is an emulated answer: no model was asked. "
    "The emulator of Sluicegate counted your request and let it through."
)


class _Line(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


_decode_line = msgspec.json.Decoder(_Line).decode
_decode = msgspec.json.Decoder().decode


def _encoding(model: str) -> str:
    """tiktoken's encoding for a model's name (its ``model.py``, 2026-08); o200k_base for any other name."""
    if model.startswith(("gpt-4o", "gpt-4.1", "gpt-4.5")):
        return "o200k_base"
    old = model.startswith(("gpt-3.5", "gpt-35", "text-embedding", "gpt-4"))
    return "cl100k_base" if old else "o200k_base"


def count(text: str, encoding: str) -> int:
    """Tokens of a text by tiktoken; very long ones in pieces."""
    coder = vocabulary.encoding(encoding)
    return sum(len(coder.encode_ordinary(text[i : i + PIECE])) for i in range(0, len(text), PIECE))


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
    encoding = "o200k_base"
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
                encoding = _encoding(facts.deployment)
                _count(waiting, facts, encoding)
    _count(waiting, facts, _encoding(facts.deployment))
    if not facts.tokens and not facts.problems:
        return _failed(facts, "empty_file", "The input file is empty. Please ensure that the batch contains at least one "
                       "request.")  # fmt: skip
    most = account.requests_max
    if most is not None and len(facts.tokens) > most:
        return _failed(facts, "too_many_tasks", f"The input file has more than {most} lines.")
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
        if name and "missing" in str(error):
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
        return _problem("model_mismatch", "All requests of a file must name the same model.", number, "body.model")
    if request.url != facts.url:
        code = "url_mismatch" if account.dialect == "azure" else "invalid_url"
        text = "The URL provided for this request does not match the batch endpoint."
        return _problem(code, text, number, "url")
    if body.get("stream"):
        text = "Chat Completions: Streaming is not supported in the Batch API."
        return _problem("streaming_unsupported", text, number, "body.stream")
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


# -- answers -----------------------------------------------------------------------------------------------------------


def write_results(model: Model, batch: Batch, source: Path, output: Path, errors: Path) -> None:
    """Write a batch's output and error file, as far as it was executed, in a shuffled order."""
    offsets = array("Q")
    with source.open("rb", buffering=1 << 20) as file:
        at = 0
        for line in file:
            if line.strip():
                offsets.append(at)
            at += len(line)
    dice = random.Random(f"{model.account.seed}:{batch.id}:ids")
    answer_tokens = count(_ANSWER, "o200k_base")
    with source.open("rb", buffering=0) as file, output.open("wb", 1 << 20) as good, errors.open("wb", 1 << 18) as bad:
        ends = [*offsets[1:], at]
        for i in model.shuffled(batch):
            request = _decode_line(os.pread(file.fileno(), ends[i] - offsets[i], offsets[i]))
            for text, failed in _result_lines(model, batch, i, request, dice, answer_tokens):
                (bad if failed else good).write(text + b"\n")
        if batch.ends_as == "expired":
            for i in range(batch.executed, len(batch.facts.tokens)):
                request = _decode_line(os.pread(file.fileno(), ends[i] - offsets[i], offsets[i]))
                message = "This request could not be executed before the completion window expired."
                bad.write(_error_line(request.custom_id, dice, {"code": "batch_expired", "message": message}) + b"\n")


def _result_lines(
    model: Model, batch: Batch, i: int, request: _Line, dice: random.Random, answer_tokens: int
) -> Iterator[tuple[bytes, bool]]:
    fate = model.line_fate(batch, i)
    if fate == "missing":
        return
    if fate in ("0", "429", "500"):
        body = {"error": {"message": f"emulated status {fate}", "type": "server_error", "param": None, "code": None}}
        yield _line(request.custom_id, dice, int(fate), body, model.account), True
        return
    if fate == "content_filter":
        inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}}
        error = {
            "message": "The response was filtered due to the prompt triggering content management policy.",
            "type": None, "param": "prompt", "code": "content_filter", "status": 400, "innererror": inner,
        }  # fmt: skip
        yield _line(request.custom_id, dice, 400, {"error": error}, model.account), True
        return
    used = round(batch.facts.tokens[i] * model.account.count_factor)
    text = _line(request.custom_id, dice, 200, _answer(request, batch, dice, used, answer_tokens), model.account)
    yield text, False
    if fate == "doubled":
        yield text, False
    if fate == "unknown":
        yield _line("nobody-sent-this", dice, 200, {}, model.account), False


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


def _answer(request: _Line, batch: Batch, dice: random.Random, used: int, answer_tokens: int) -> dict[str, Any]:
    total = {"prompt_tokens": used, "completion_tokens": answer_tokens, "total_tokens": used + answer_tokens}
    created = int(batch.times.get("in_progress_at", batch.created_at))
    answer_id = f"{dice.getrandbits(96):024x}"
    kind = request.url.rpartition("/v1")[2].lstrip("/")
    if kind == "embeddings":
        given = _decode(request.body).get("input")
        inputs = given if isinstance(given, list) and not all(isinstance(x, int) for x in given) else [given]
        vectors = [
            {"object": "embedding", "index": n, "embedding": _vector(str(item))} for n, item in enumerate(inputs)
        ]
        usage = {"prompt_tokens": used, "total_tokens": used}
        return {"object": "list", "data": vectors, "model": batch.deployment, "usage": usage}
    if kind == "responses":
        content = [{"type": "output_text", "text": _ANSWER, "annotations": []}]
        item = {"type": "message", "id": f"msg_{answer_id}", "role": "assistant", "status": "completed",
                "content": content}  # fmt: skip
        usage = {"input_tokens": used, "output_tokens": answer_tokens, "total_tokens": used + answer_tokens}
        return {"id": f"resp_{answer_id}", "object": "response", "created_at": created, "model": batch.deployment,
                "status": "completed", "output": [item], "usage": usage}  # fmt: skip
    if kind == "completions":
        choice: dict[str, Any] = {"index": 0, "text": _ANSWER, "finish_reason": "stop", "logprobs": None}
        return {"id": f"cmpl-{answer_id}", "object": "text_completion", "created": created, "model": batch.deployment,
                "choices": [choice], "usage": total}  # fmt: skip
    message = {"role": "assistant", "content": _ANSWER, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {"id": f"chatcmpl-{answer_id}", "object": "chat.completion", "created": created, "model": batch.deployment,
            "choices": [choice], "usage": total, "system_fingerprint": "fp_emulated"}  # fmt: skip


def _vector(text: str) -> list[float]:
    """Eight numbers of unit length that depend on the text alone."""
    raw = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:8]]
    length = sum(x * x for x in raw) ** 0.5
    return [round(x / length, 6) for x in raw]


def foreign_lines(deployment: str, tokens: int, url: str, seed: int) -> bytes:
    """A file of somebody else's requests that counts to about ``tokens``."""
    dice = random.Random(seed)
    words = [
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
        "but",
        "had",
        "was",
        "all",
        "any",
        "can",
        "her",
        "one",
        "our",
        "out",
    ]
    lines, left, number = [], tokens, 0
    while left > 0:
        size = min(left, 1_000)
        text = " ".join(dice.choices(words, k=max(1, size - 8)))
        body = {"model": deployment, "messages": [{"role": "user", "content": text}]}
        lines.append(json.dumps({"custom_id": f"other-{number}", "method": "POST", "url": url, "body": body}))
        left -= size
        number += 1
    return "\n".join(lines).encode() + b"\n"
