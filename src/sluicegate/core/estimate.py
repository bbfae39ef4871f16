"""Input tokens of one request, before the provider has counted it.

Text is counted exactly, by a Counter that is given the texts of many requests at once; what surrounds it follows the
published rules. Sources: OpenAI cookbook, "How to count tokens with tiktoken" (messages, tools; F§8.2, 2026-08); vision
guide (images; F§8.4); API reference (embeddings; F§8.3). What no rule is published for is an estimate and says why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sluicegate.core import images
from sluicegate.core.limits import Model

PER_MESSAGE, PER_NAME, PER_REQUEST = 3, 1, 3
"""Tokens around each message, for a ``name``, and to begin the answer (cookbook)."""

FUNCTION_INIT, FUNCTION_INIT_BEFORE_4O, FUNCTION_END = 7, 10, 12
PROPERTIES_INIT, PROPERTY_KEY = 3, 3
ENUM_INIT, ENUM_ITEM = -3, 3
"""Tokens around tools' functions (cookbook, ``num_tokens_for_tools``); gpt-3.5 and gpt-4 take more at the beginning."""

AUDIO_PER_KB: Final = 4.0
"""Tokens per kilobyte of base64 audio: about 10 tokens a second at 16 kHz mono; an upper guess, no rule is published."""


@dataclass(slots=True)
class Tally:
    """What one request adds up to: tokens that need no counting, texts that do, and why it is not exact, if so."""

    fixed: int = 0
    texts: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def tally(url: str, body: dict[str, Any], model: Model) -> Tally:
    """Collect what counts in a request's body."""
    counted = Tally()
    if not model.known:
        counted.reasons.append(f"no public vocabulary is known for {model.name!r}: counted with {model.encoding}")
    kind = url.rstrip("/").rpartition("/v1/")[2].lstrip("/")
    rule = _RULES.get(kind, _anything)
    rule(body, counted, model)
    return counted


def _chat(body: dict[str, Any], out: Tally, model: Model) -> None:
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else []:
        if isinstance(message, dict):
            _message(message, out, model)
    out.fixed += PER_REQUEST
    _tools(body.get("tools"), out, model)
    functions = body.get("functions")
    for function in functions if isinstance(functions, list) else []:
        _function(function, out, model)
    _schema(body.get("response_format"), out)


def _message(message: dict[str, Any], out: Tally, model: Model) -> None:
    out.fixed += PER_MESSAGE
    role = message.get("role")
    content = message.get("content")
    for key, value in message.items():
        if key == "content":
            continue
        if isinstance(value, str):
            out.shared.append(value)
            out.fixed += PER_NAME if key == "name" else 0
        elif value is not None:
            out.texts.extend(_strings(value))
    if isinstance(content, str):
        (out.shared if role in ("system", "developer") else out.texts).append(content)
    elif isinstance(content, list):
        for part in content:
            _part(part, out, model)


def _part(part: Any, out: Tally, model: Model) -> None:
    if isinstance(part, str):
        out.texts.append(part)
        return
    if not isinstance(part, dict):
        return
    kind = part.get("type")
    if kind in ("image_url", "input_image"):
        _image(part, out, model)
    elif kind == "input_audio":
        audio = part.get("input_audio")
        data = audio.get("data") if isinstance(audio, dict) else audio
        size = len(data) if isinstance(data, str) else 0
        out.fixed += round(size / 1024 * AUDIO_PER_KB)
        out.reasons.append("audio: no counting rule is published")
    elif kind in ("file", "input_file"):
        out.texts.extend(text for text in _strings(part.get("file") or part) if not text.startswith("data:"))
        out.reasons.append("a file's content is counted by the provider only")
    elif isinstance(part.get("text"), str):
        out.texts.append(part["text"])
    else:
        out.texts.extend(_strings({key: value for key, value in part.items() if key != "type"}))


def _image(part: dict[str, Any], out: Tally, model: Model) -> None:
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else given
    detail = (given.get("detail") if isinstance(given, dict) else part.get("detail")) or "auto"
    size = images.size_of(url) if isinstance(url, str) else None
    if size is None:
        size = images.USUAL_SIZE
        out.reasons.append("an image's size is not known (given by URL, or no known format): taken as 1024 × 1024")
    out.fixed += images.tokens(model.called, *size, str(detail))


def _tools(tools: Any, out: Tally, model: Model) -> None:
    if not isinstance(tools, list) or not tools:
        return
    for tool in tools:
        if not isinstance(tool, dict):
            continue
        inner = tool.get("function") if isinstance(tool.get("function"), dict) else tool
        if tool.get("type", "function") == "function":
            _function(inner, out, model)
        else:
            out.texts.extend(_strings(tool))
            out.reasons.append(f"a tool of type {tool.get('type')!r}: no counting rule is published")
    out.fixed += FUNCTION_END


def _function(function: Any, out: Tally, model: Model) -> None:
    if not isinstance(function, dict):
        return
    # The families before 4o are those of cl100k_base (F§8.1).
    out.fixed += FUNCTION_INIT_BEFORE_4O if model.encoding == "cl100k_base" else FUNCTION_INIT
    description = str(function.get("description") or "").removesuffix(".")
    out.shared.append(f"{function.get('name', '')}:{description}")
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    if not isinstance(properties, dict) or not properties:
        return
    out.fixed += PROPERTIES_INIT
    for name, rule in properties.items():
        out.fixed += PROPERTY_KEY
        rule = rule if isinstance(rule, dict) else {}
        choices = rule.get("enum")
        if isinstance(choices, list):
            out.fixed += ENUM_INIT + ENUM_ITEM * len(choices)
            out.shared.extend(str(choice) for choice in choices)
        described = str(rule.get("description") or "").removesuffix(".")
        out.shared.append(f"{name}:{rule.get('type', '')}:{described}")
        nested = {
            key: value for key, value in rule.items() if key in ("properties", "items", "anyOf", "oneOf", "allOf")
        }
        if nested:
            out.shared.append(_compact(nested))
            out.reasons.append("a tool with nested parameters: the rule covers flat ones")


def _schema(response_format: Any, out: Tally) -> None:
    if isinstance(response_format, dict) and response_format.get("type") == "json_schema":
        out.shared.append(_compact(response_format))
        out.reasons.append("a JSON schema for the answer: how it is counted is not published")


def _responses(body: dict[str, Any], out: Tally, model: Model) -> None:
    given = body.get("input")
    out.fixed += PER_REQUEST
    if isinstance(given, str):
        out.fixed += PER_MESSAGE + 1
        out.texts.append(given)
    for item in given if isinstance(given, list) else []:
        if isinstance(item, dict) and ("role" in item or "content" in item):
            _message({key: value for key, value in item.items() if key not in ("type", "id", "status")}, out, model)
        else:
            out.fixed += PER_MESSAGE
            out.texts.extend(_strings(item))
    if isinstance(body.get("instructions"), str):
        out.fixed += PER_MESSAGE + 1
        out.shared.append(body["instructions"])
    _tools(body.get("tools"), out, model)
    text = body.get("text")
    _schema(text.get("format") if isinstance(text, dict) else None, out)
    if body.get("previous_response_id") or body.get("prompt") or body.get("conversation"):
        out.reasons.append(
            "a stored conversation or prompt counts as input, and only the provider knows how long it is"
        )


def _embeddings(body: dict[str, Any], out: Tally, model: Model) -> None:
    _text_or_tokens(body.get("input"), out)


def _completions(body: dict[str, Any], out: Tally, model: Model) -> None:
    _text_or_tokens(body.get("prompt"), out)
    if isinstance(body.get("suffix"), str):
        out.texts.append(body["suffix"])


def _text_or_tokens(given: Any, out: Tally) -> None:
    """A text, texts, tokens, or lists of tokens."""
    if isinstance(given, str):
        out.texts.append(given)
    elif isinstance(given, list):
        for item in given:
            if isinstance(item, str):
                out.texts.append(item)
            elif isinstance(item, list):
                out.fixed += len(item)
            else:
                out.fixed += 1


def _anything(body: dict[str, Any], out: Tally, model: Model) -> None:
    out.texts.extend(text for key, value in body.items() if key != "model" for text in _strings(value))
    out.reasons.append("no counting rule is published for this url: all its text is counted")


_RULES: Final[dict[str, Callable[[dict[str, Any], Tally, Model], None]]] = {
    "chat/completions": _chat,
    "responses": _responses,
    "embeddings": _embeddings,
    "completions": _completions,
}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif value is not None:
        yield str(value)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
