"""Who answers the requests of a batch: a fixed text, a Python function, or any OpenAI-compatible server."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from sluicegate import vocabulary
from sluicegate.errors import UsageError

PIECE: Final = 100_000
TEXT: Final = (
    "This is an emulated answer: no model was asked. "
    "The emulator of Sluicegate counted your request and let it through."
)
FORWARDED_AT_ONCE: Final = 4
FORWARD_TIMEOUT_S: Final = 600.0


class LineRequest(msgspec.Struct):
    """A line of an input file; ``body`` is kept as it came."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw

    @property
    def kind(self) -> str:
        """What is asked for: ``chat/completions``, ``responses``, ``completions``, ``embeddings`` …"""
        return self.url.removeprefix("/v1").lstrip("/")


class Asked(NamedTuple):
    """A request and its tokens as the provider counts them."""

    line: LineRequest
    tokens: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes into a line of the results: HTTP status, body, and the tokens that its ``usage`` says."""

    status: int
    body: dict[str, Any]
    input_tokens: int = 0
    output_tokens: int = 0


class Answers(Protocol):
    """Answers requests, many at once, in their order."""

    def answer(self, asked: Sequence[Asked], model: str, dice: random.Random) -> list[Reply]:
        """One reply for each; called in a thread."""


class FixedAnswers:
    """A text that says what it is; vectors that depend on the input alone."""

    def answer(self, asked: Sequence[Asked], model: str, dice: random.Random) -> list[Reply]:
        """The same for every request, but for ids and vectors."""
        return [shaped(one, model, dice, TEXT, fixed_tokens()) for one in asked]


class FunctionAnswers:
    """A Python function of the line: ``{"custom_id", "method", "url", "body"}``.

    It returns a text, or a whole response body (dict), or (HTTP status, body). What it raises, and what is none of these,
    becomes a line of status 500.
    """

    def __init__(self, function: Callable[[dict[str, Any]], Any]) -> None:
        self._function = function

    def answer(self, asked: Sequence[Asked], model: str, dice: random.Random) -> list[Reply]:
        """Call the function for one after the other."""
        return [self._one(one, model, dice) for one in asked]

    def _one(self, one: Asked, model: str, dice: random.Random) -> Reply:
        line = {"custom_id": one.line.custom_id, "method": one.line.method, "url": one.line.url}
        try:
            said = self._function(line | {"body": msgspec.json.decode(one.line.body)})
            if isinstance(said, str):
                return writable(shaped(one, model, dice, said, count(said, "o200k_base")))
            status, body = said if isinstance(said, tuple) else (200, said)
            return replied(int(status), body, one)
        except Exception as error:  # noqa: BLE001  (the function is somebody else's; the line says what it did)
            return failure(500, f"{type(error).__name__}: {error}")


class ForwardedAnswers:
    """Another server's answers: each request is sent there as it is, a few at once.

    Args:
        url: Its base, with the ``/v1``. The environment's ``OPENAI_API_KEY`` is sent along, if there is one.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def answer(self, asked: Sequence[Asked], model: str, dice: random.Random) -> list[Reply]:
        """Send them and wait for all; who cannot be reached, or answers what is no answer, is a line of status 503."""
        import httpx2

        headers = {"content-type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["authorization"] = f"Bearer {key}"
        with (
            httpx2.Client(headers=headers, timeout=FORWARD_TIMEOUT_S) as client,
            ThreadPoolExecutor(FORWARDED_AT_ONCE, "emulator-answers") as pool,
        ):

            def send(one: Asked) -> Reply:
                try:
                    answer = client.post(f"{self._url}/{one.line.kind}", content=bytes(one.line.body))
                    return replied(answer.status_code, answer.json(), one)
                except Exception as error:  # noqa: BLE001  (the server is somebody else's; the line says what it did)
                    return failure(503, f"{self._url} gave no answer: {type(error).__name__}: {error}")

            return list(pool.map(send, asked))


def answers_of(name: str | None) -> Answers:
    """Who answers, from the setting.

    Raises:
        UsageError: there is no such function.
    """
    if name is None:
        return FixedAnswers()
    if name.startswith(("http://", "https://")):
        return ForwardedAnswers(name)
    place, _, attribute = name.rpartition(":")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            if spec is None or spec.loader is None:
                raise ImportError(f"{place} is no Python file")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
        function = getattr(module, attribute)
    except (ImportError, AttributeError, ValueError, OSError, SyntaxError) as error:
        raise UsageError(
            f"answers: {name!r} is neither a URL nor module:function nor file.py:function ({error})"
        ) from error
    return FunctionAnswers(function)


def count(text: str, encoding: str) -> int:
    """Tokens of a text by tiktoken; very long ones in pieces."""
    coder = vocabulary.encoding(encoding)
    return sum(len(coder.encode_ordinary(text[i : i + PIECE])) for i in range(0, len(text), PIECE))


@cache
def fixed_tokens() -> int:
    """Tokens of the fixed text."""
    return count(TEXT, "o200k_base")


def says_text(url: str) -> bool:
    """Whether the fixed answer to a request of this URL is the text."""
    return url.endswith(("chat/completions", "responses", "completions"))


def failure(status: int, message: str) -> Reply:
    """An answer that is an error."""
    message = message.encode("utf-8", "replace").decode()
    return Reply(status, {"error": {"message": message, "type": "server_error", "param": None, "code": None}})


def replied(status: int, body: Any, one: Asked) -> Reply:
    """Somebody's body; where it succeeded and says nothing of usage, what we counted is put in.

    Raises:
        Exception: it is no body of an answer, or cannot be written as JSON.
    """
    if status != 200:
        return writable(Reply(status, body))
    if not isinstance(body, dict):
        raise TypeError(f"the body of an answer is an object, not {type(body).__name__}")
    usage = body.get("usage")
    if not isinstance(usage, dict):
        output = sum(count(text, "o200k_base") for text in _texts(body))
        usage = _usage(one.line.kind, one.tokens, output)
        # A copy: a function may give the same body to every line, and each has a usage of its own.
        body = body | {"usage": usage}
    return writable(Reply(status, body, *_tokens_said(usage)))


def _tokens_said(usage: dict[str, Any]) -> tuple[int, int]:
    """(input, output) of a usage, as either kind of answer names them."""
    given = usage.get("prompt_tokens") or usage.get("input_tokens") or 0
    return int(given), int(usage.get("completion_tokens") or usage.get("output_tokens") or 0)


def writable(reply: Reply) -> Reply:
    """The reply itself, if it can be written.

    Raises:
        Exception: there is something in it that JSON does not have.
    """
    msgspec.json.encode(reply.body)
    return reply


def _texts(body: dict[str, Any]) -> list[str]:
    """What an answer of any kind says."""
    found = []
    for choice in body.get("choices") or []:
        found += [str(choice.get("text") or (choice.get("message") or {}).get("content") or "")]
    for item in body.get("output") or []:
        found += [str(part.get("text") or "") for part in item.get("content") or []]
    return found


def _usage(kind: str, used: int, output: int) -> dict[str, int]:
    if kind == "embeddings":
        return {"prompt_tokens": used, "total_tokens": used}
    if kind == "responses":
        return {"input_tokens": used, "output_tokens": output, "total_tokens": used + output}
    return {"prompt_tokens": used, "completion_tokens": output, "total_tokens": used + output}


def shaped(one: Asked, model: str, dice: random.Random, text: str, output: int) -> Reply:
    """A text as the body that was asked for."""
    kind, answer_id = one.line.kind, f"{dice.getrandbits(96):024x}"
    usage = _usage(kind, one.tokens, output)
    if kind == "embeddings":
        body: dict[str, Any] = {"object": "list", "data": _vectors(one.line), "model": model, "usage": usage}
        return Reply(200, body, one.tokens)
    if kind == "moderations":
        result = {"flagged": False, "categories": {}, "category_scores": {}}
        return Reply(200, {"id": f"modr-{answer_id}", "model": model, "results": [result]}, one.tokens)
    if kind.startswith("images/"):
        return Reply(200, {"created": CREATED, "data": [{"b64_json": PIXEL}]}, one.tokens)
    if kind == "videos":
        body = {"id": f"video_{answer_id}", "object": "video", "created_at": CREATED, "model": model}
        return Reply(200, body | {"status": "completed", "progress": 100}, one.tokens)
    if kind == "responses":
        content = [{"type": "output_text", "text": text, "annotations": []}]
        item = {
            "type": "message", "id": f"msg_{answer_id}", "role": "assistant", "status": "completed", "content": content
        }  # fmt: skip
        body = {
            "id": f"resp_{answer_id}", "object": "response", "created_at": CREATED, "model": model,
            "status": "completed", "output": [item], "usage": usage,
        }  # fmt: skip
        return Reply(200, body, one.tokens, output)
    if kind == "completions":
        choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
        body = {
            "id": f"cmpl-{answer_id}", "object": "text_completion", "created": CREATED, "model": model,
            "choices": [choice], "usage": usage,
        }  # fmt: skip
        return Reply(200, body, one.tokens, output)
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    body = {
        "id": f"chatcmpl-{answer_id}", "object": "chat.completion", "created": CREATED, "model": model,
        "choices": [choice], "usage": usage, "system_fingerprint": "fp_emulated",
    }  # fmt: skip
    return Reply(200, body, one.tokens, output)


CREATED: Final = 1_700_000_000
"""When answers say that they were made: the same in every run, so that files compare."""


PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
"""A PNG of one grey pixel."""


def _vectors(line: LineRequest) -> list[dict[str, Any]]:
    given = msgspec.json.decode(line.body).get("input")
    inputs = given if isinstance(given, list) and not all(isinstance(x, int) for x in given) else [given]
    return [{"object": "embedding", "index": n, "embedding": _vector(str(item))} for n, item in enumerate(inputs)]


def _vector(text: str) -> list[float]:
    """Eight numbers of unit length that depend on the text alone."""
    raw = [byte - 127.5 for byte in hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]]
    length = sum(x * x for x in raw) ** 0.5
    return [round(x / length, 6) for x in raw]
