"""What a request must be, for the provider to take it. Sources: F§3 (limits), F§5.2 and F§5.3 (the provider's codes)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sluicegate.core import limits as facts
from sluicegate.core.limits import Limits, Model, format_tokens, limits_of
from sluicegate.core.line import Fault, Request
from sluicegate.core.types import Dialect

NEEDED: Final = {"chat/completions": "messages", "responses": "input", "embeddings": "input"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRules:
    """What the check goes by.

    Attributes:
        limit: The configured enqueued-token limit; a larger request is an error. None: not known.
        models: Deployment → model. ``redirect``: the deployment that every line goes to, so that ``model`` may be absent.
        names: Name that clients use → deployment; if there are any, other names are errors.
        models_most: How many different models a file may name, where neither of the two says which; None: any number.
        endpoint: Of a batch that is given: a line whose url differs is an error. With or without ``/v1`` is the same
            unless ``endpoint_exactly``.
        lenient: Only index and count (others' files, which have been accepted already).
    """

    dialect: Dialect
    limit: int | None = None
    line_bytes_max: int = 64 * 1024 * 1024
    models: Mapping[str, str] = field(default_factory=dict)
    redirect: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    models_most: int | None = None
    endpoint: str | None = None
    endpoint_exactly: bool = False
    lenient: bool = False

    @property
    def limits(self) -> Limits:
        """The provider's documented limits."""
        return limits_of(self.dialect)


def check_request(request: Request, model: Model, rules: CheckRules) -> None:
    """Every rule that needs no token count.

    Raises:
        Fault: the provider would refuse the request, or its whole batch.
    """
    body, limits = request.body, rules.limits
    if rules.endpoint is not None and not _same_endpoint(request.url, rules.endpoint, exactly=rules.endpoint_exactly):
        text = f"The URL provided for this request does not match the batch endpoint {rules.endpoint}."
        raise Fault("invalid_url", text, f'Write "url": "{rules.endpoint}".')
    if request.url not in limits.urls:
        served = ", ".join(sorted(limits.urls))
        code = "invalid_url" if rules.dialect is Dialect.OPENAI else "invalid_request"
        raise Fault(code, f"The provider's Batch API does not serve {request.url!r}.", f"It serves {served}.")
    if body.get("stream") is True:
        raise Fault("streaming_unsupported", "Streaming is not supported in the Batch API.", 'Leave out "stream".')
    kind = request.url.rpartition("/v1")[2].lstrip("/")
    needed = NEEDED.get(kind)
    if needed and not body.get(needed) and not (kind == "responses" and body.get("prompt")):
        raise Fault("invalid_request", f"{needed.capitalize()} parameter is required.", f'Give "{needed}" a value.')
    if needed == "messages" and not isinstance(body["messages"], list):
        raise Fault("invalid_type", "messages is not a list.", 'Write "messages": [{"role": …, "content": …}].')
    name = rules.redirect or rules.names.get(request.model, request.model)
    target = rules.models.get(name, name)
    if rules.dialect is Dialect.AZURE and (target.startswith("ft:") or ".ft-" in target):
        raise Fault("model_not_found", "Fine-tuned models cannot be used with Azure's Batch API.",
                    "Use a Global Batch or Data Zone Batch deployment of a base model.")  # fmt: skip
    _check_sizes(body, kind, model, limits)


def _check_sizes(body: dict[str, Any], kind: str, model: Model, limits: Limits) -> None:
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        wanted = body.get(name)
        if wanted is None:
            continue
        if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
            raise Fault("invalid_request", f"{name} is not a positive whole number.", f'Write "{name}": 1000.')
        if model.known and model.output is not None and wanted > model.output:
            raise Fault("invalid_request", f"{name} is {wanted:,}; {model.name} gives at most {model.output:,} tokens.",
                        f"Write at most {model.output}.")  # fmt: skip
    for name, most in (("messages", limits.messages), ("tools", limits.tools)):
        given = body.get(name)
        if most is not None and isinstance(given, list) and len(given) > most:
            raise Fault("invalid_request", f"The request has {len(given)} {name}; {most} are allowed.",
                        f"Send fewer {name} in one request.")  # fmt: skip
    pictures = _images(body.get("messages") or body.get("input"))
    if limits.images_per_request is not None and pictures > limits.images_per_request:
        raise Fault("invalid_request", f"The request has {pictures} images; {limits.images_per_request} are allowed.",
                    "Spread them over several requests.")  # fmt: skip
    given = body.get("input")
    if kind == "embeddings" and isinstance(given, list) and len(given) > facts.EMBEDDING_INPUTS_MAX:
        most = facts.EMBEDDING_INPUTS_MAX
        if not all(isinstance(item, int) for item in given):
            raise Fault("invalid_request", f"The request has {len(given):,} inputs; {most:,} are allowed.",
                        "Spread them over several requests.")  # fmt: skip


def _same_endpoint(url: str, endpoint: str, *, exactly: bool) -> bool:
    return url == endpoint or (not exactly and url.removeprefix("/v1") == endpoint.removeprefix("/v1"))


def _images(turns: object) -> int:
    """Images in a request's messages or input items."""
    contents = [turn.get("content") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    pieces = [piece for content in contents if isinstance(content, list) for piece in content]
    return sum(isinstance(piece, dict) and piece.get("type") in ("image_url", "input_image") for piece in pieces)


def check_tokens(tokens: int, wanted: int, model: Model, limit: int | None) -> None:
    """The rules about a request's size in tokens.

    Raises:
        Fault: it alone exceeds the enqueued-token limit, or the model's context window.
    """
    if limit is not None and tokens > limit:
        raise Fault(
            "token_limit_exceeded",
            f"The request alone has {tokens:,} tokens, more than the enqueued-token limit of {format_tokens(limit)}.",
            "Shorten it, or raise the deployment's limit (Azure: sku.capacity).",
        )
    if model.context is not None and tokens + wanted > model.context:
        what = f"{tokens:,} tokens" + (f" and max_tokens of {wanted:,}" if wanted else "")
        raise Fault(
            "context_length_exceeded",
            f"The request has {what}; {model.name}'s context window is {model.context:,}.",
            "Shorten the request or ask for a shorter answer.",
        )
