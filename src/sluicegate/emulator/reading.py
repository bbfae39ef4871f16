"""Reading input files as the provider does: blocking functions over files on disk.

Two passes, as the provider takes two: :func:`scan` finds what is wrong and what a create needs, and is done before a file is
``processed``; :func:`count` runs tiktoken over every line, and is done before a batch leaves ``validating``.
"""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_intdigest

from sluicegate import vocabulary
from sluicegate.core.limits import AZURE
from sluicegate.emulator.answers import PIECE, LineRequest
from sluicegate.emulator.answers import count as count_text
from sluicegate.emulator.batch import InputFacts
from sluicegate.emulator.config import Account

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


@dataclass(frozen=True, slots=True)
class Counted:
    """Of each line: tokens by tiktoken, and a hash of custom_id and body."""

    tokens: array[int]
    identity: array[int]


def read(path: Path, account: Account) -> InputFacts:
    """Both passes over an input file."""
    facts = scan(path, account)
    if not facts.counted:
        counted = count(path, account, facts.deployment)
        facts.tokens, facts.identity, facts.counted = counted.tokens, counted.identity, True
    return facts


def scan(path: Path, account: Account) -> InputFacts:
    """Validate an input file, in the order of a choice: UTF-8, empty, JSON, fields, ids, url, model.

    Returns:
        Facts with as many zeros as lines in place of the tokens, to be counted later where nothing is wrong.
    """
    facts = InputFacts(tokens=array("I"), identity=array("Q"), quarter_chars=0, deployment="", url="", counted=False)
    seen: set[int] = set()
    lines = 0
    with path.open("rb", buffering=1 << 20) as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith(b"\xef\xbb\xbf"):
                return _failed(
                    facts, "invalid_json_line" if account.dialect == "openai" else "invalid_request", _NO_MODEL
                )
            if not line.strip():
                continue
            problem = _scan_line(line, number, facts, seen, account)
            lines += problem is None
            if problem is not None and len(facts.problems) < PROBLEMS_MOST:
                facts.problems.append(problem)
    facts.tokens, facts.identity = array("I", bytes(4 * lines)), array("Q", bytes(8 * lines))
    facts.counted = bool(facts.problems)
    if not lines and not facts.problems:
        return _failed(facts, "empty_file", "The input file is empty. Please ensure that the batch contains at least one "
                       "request.")  # fmt: skip
    most = account.requests_max
    if most is not None and lines > most:
        return _failed(facts, "too_many_tasks", f"The input file has more than {most} lines.")
    if account.dialect == "openai" and facts.url.endswith("/embeddings") and facts.inputs > EMBEDDINGS_MOST:
        return _failed(facts, "too_many_tasks", f"The input file has more than {EMBEDDINGS_MOST} embedding inputs.")
    return facts


def count(path: Path, account: Account, deployment: str) -> Counted:
    """Count an input file in which :func:`scan` found nothing wrong."""
    encoding = _encoding(account.model_of(deployment))
    counted = Counted(array("I"), array("Q"))
    waiting: list[tuple[list[str], int]] = []
    with path.open("rb", buffering=1 << 20) as file:
        for line in file:
            if not line.strip():
                continue
            request = _decode_line(line)
            body = _decode(request.body)
            without_model = {key: value for key, value in body.items() if key != "model"}
            text = request.custom_id + json.dumps(without_model, sort_keys=True)
            counted.identity.append(xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")))
            waiting.append(texts_of(body))
            if len(waiting) >= BATCH_LINES:
                counted.tokens.extend(_tokens_of(waiting, encoding))
                waiting.clear()
    counted.tokens.extend(_tokens_of(waiting, encoding))
    return counted


_NO_MODEL: Final = (
    "Validation failed: A valid model deployment name couldn't be extracted from the input file. Please ensure that each "
    "row in the input file has a valid deployment name specified in the 'model' field, and that the deployment name is "
    "consistent across all rows."
)


def _failed(facts: InputFacts, code: str, message: str) -> InputFacts:
    facts.counted = True
    facts.problems.insert(0, {"code": code, "message": message, "param": None, "line": None})
    return facts


def _problem(code: str, message: str, line: int, param: str | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "line": line}


def _scan_line(line: bytes, number: int, facts: InputFacts, seen: set[int], account: Account) -> dict[str, Any] | None:
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
    if account.dialect == "azure" and (excess := _too_many(body)) is not None:
        return _problem("invalid_request", excess, number, "body")
    given = body.get("input")
    facts.inputs += len(given) if isinstance(given, list) and not all(isinstance(x, int) for x in given) else 1
    raw = bytes(request.body)
    facts.quarter_chars += (len(raw) if raw.isascii() else len(raw.decode())) // 4
    return None


def _too_many(body: dict[str, Any]) -> str | None:
    """Azure's limits of one request (F§3.1); the texts are a choice."""
    messages, tools = body.get("messages"), body.get("tools")
    messages, tools = messages if isinstance(messages, list) else [], tools if isinstance(tools, list) else []
    contents = [one["content"] for one in messages if isinstance(one, dict) and isinstance(one.get("content"), list)]
    parts = [part for content in contents for part in content]
    images = sum(1 for part in parts if isinstance(part, dict) and part.get("type") in ("image_url", "input_image"))
    for count, most, what in (
        (len(messages), AZURE.messages, "messages"), (len(tools), AZURE.tools, "tools"),
        (images, AZURE.images_per_request, "images"),
    ):  # fmt: skip
        if most is not None and count > most:
            return f"The request has {count} {what}; at most {most} are allowed."
    return None


def _tokens_of(waiting: list[tuple[list[str], int]], encoding: str) -> list[int]:
    coder = vocabulary.encoding(encoding)
    texts = [text for some, _ in waiting for text in some]
    if all(len(text) <= PIECE for text in texts):
        counts = [len(tokens) for tokens in coder.encode_ordinary_batch(texts, num_threads=2)]
    else:
        counts = [count_text(text, encoding) for text in texts]
    at, found = 0, []
    for some, around in waiting:
        found.append(around + sum(counts[at : at + len(some)]))
        at += len(some)
    return found
