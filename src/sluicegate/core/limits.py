"""The providers' limits as data, each with source and date, and the numbers as people write them.

Sources (F§n is the project's sheet of facts about the providers, compiled 2026-11-23):
AZ: Azure OpenAI, "Batch quota and limits" and "How to use global batch". OA: OpenAI, "Batch API guide" and API reference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from sluicegate.core.types import Dialect

_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_NUMBER: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMB]?)", re.IGNORECASE)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.IGNORECASE)


def parse_tokens(text: str) -> int:
    """Tokens as people and providers write them: ``30K``, ``1.5M``, ``5B``, ``90,000``, ``90_000``.

    Raises:
        ValueError: it is not such a number.
    """
    match = _NUMBER.fullmatch(text.strip().replace(",", "").replace("_", ""))
    if match is None:
        raise ValueError(f"{text!r} is not a number of tokens; write 90000, 30K, 1.5M or 5B")
    return round(float(match[1]) * _UNITS[match[2].upper()])


def format_tokens(tokens: int) -> str:
    """The shortest exact way to write a number of tokens: 30000 → ``30K``, 30500 → ``30.5K``, 30550 → ``30,550``."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if tokens >= size and tokens % (size // 10) == 0:
            whole, rest = divmod(tokens, size)
            return f"{whole}.{rest * 10 // size}{unit}" if rest else f"{whole}{unit}"
    return f"{tokens:,}"


def parse_duration(text: str) -> float:
    """Seconds from ``500ms``, ``60s``, ``2m``, ``24h``, ``7d``, or a bare number of seconds.

    Raises:
        ValueError: it is not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write 500ms, 60s, 2m, 24h or 7d")
    return float(match[1]) * _SECONDS[(match[2] or "s").lower()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one provider allows (F§3.1).

    Attributes:
        requests_per_batch, file_bytes: Of one input file.
        files: Input files kept at once without expiry, or None where only storage bounds them.
        creates_per_hour: Batch creations, or None where no limit is documented.
        urls: What the batch API serves (F§1.6, F§1.7).
        images_per_request, messages, tools: Of one request, or None.
    """

    requests_per_batch: int
    file_bytes: int
    files: int | None
    creates_per_hour: int | None
    urls: frozenset[str]
    images_per_request: int | None = None
    messages: int | None = None
    tools: int | None = None


AZURE: Final = Limits(
    requests_per_batch=100_000,  # AZ limits, 2026
    file_bytes=200_000_000,  # AZ limits: 200 MB by upload
    files=500,  # AZ limits: without expiry
    creates_per_hour=None,
    # AZ: chat and responses only; the older surface names them without /v1 (F§1.7).
    urls=frozenset({"/chat/completions", "/v1/chat/completions", "/responses", "/v1/responses"}),
    images_per_request=50,
    messages=2_048,
    tools=128,
)

OPENAI: Final = Limits(
    requests_per_batch=50_000,  # OA guide, 2026
    file_bytes=200_000_000,  # OA guide: 200 MB; 209,715,200 seen in an error text
    files=None,
    creates_per_hour=2_000,  # OA guide, 2026
    # OA reference @f85dbe22, 2026-08-21.
    urls=frozenset(
        {
            "/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/v1/completions", "/v1/moderations",
            "/v1/images/generations", "/v1/images/edits", "/v1/videos",
        }
    ),
)  # fmt: skip

UPLOAD_BYTES_MAX: Final = 209_715_200
"""Of one batch input file: Azure refuses the upload of a larger one, OpenAI the batch (F§3.1, F§5.3)."""

ENQUEUED_REQUESTS_MAX: Final = 1_000_000
"""OpenAI's limit of enqueued requests for embeddings, per model (its error text, F§5.3)."""

EMBEDDING_INPUTS_MAX, EMBEDDING_INPUT_TOKENS_MAX, EMBEDDING_REQUEST_TOKENS_MAX = 2_048, 8_192, 300_000
"""Of one embeddings request: array items, tokens of an item, tokens in all (F§8.3)."""


def limits_of(dialect: Dialect) -> Limits:
    """The limits of a provider."""
    return AZURE if dialect is Dialect.AZURE else OPENAI


def counts_requests(dialect: Dialect, url: str) -> bool:
    """True where the provider also limits enqueued *requests*: OpenAI's embeddings (F§3.1)."""
    return dialect is Dialect.OPENAI and url.endswith("/embeddings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What is known of a model family.

    Attributes:
        encoding: tiktoken's name (F§8.1, tiktoken @4e71bbe, 2026-08-16).
        context: Tokens of input and output together, or None if not known.
        output: Most output tokens, or None.
        known: False for a name that no family fits: counted with o200k_base, and marked as an estimate.
        called: The given name from the family's on: its image rule goes by it (a family's mini and nano differ).
    """

    name: str
    encoding: str
    context: int | None = None
    output: int | None = None
    known: bool = True
    called: str = ""


# Context windows and outputs: OA model pages, as of 2026-08; of the gpt-5 families: AZ, MicrosoftDocs/azure-ai-docs
# articles/foundry/openai/includes/models-azure-direct-openai.md @00bb554, 2026-06-11. Longest prefix wins.
_FAMILIES: Final = (
    Model(name="gpt-4.1", encoding="o200k_base", context=1_047_576, output=32_768),
    Model(name="gpt-4.5", encoding="o200k_base", context=128_000, output=16_384),
    Model(name="gpt-4o", encoding="o200k_base", context=128_000, output=16_384),
    Model(name="chatgpt-4o", encoding="o200k_base", context=128_000, output=16_384),
    Model(name="gpt-4-turbo", encoding="cl100k_base", context=128_000, output=4_096),
    # No numbers for gpt-4: on Azure the name covers versions of 8,192, 32,768 and 128,000 tokens.
    Model(name="gpt-4", encoding="cl100k_base"),
    Model(name="gpt-3.5-turbo", encoding="cl100k_base", context=16_385, output=4_096),
    Model(name="gpt-35-turbo", encoding="cl100k_base", context=16_385, output=4_096),
    Model(name="gpt-5", encoding="o200k_base", context=400_000, output=128_000),
    Model(name="gpt-5-chat", encoding="o200k_base", context=128_000, output=16_384),
    Model(name="gpt-5-pro", encoding="o200k_base", context=400_000),  # providers differ in its output
    Model(name="gpt-5.", encoding="o200k_base"),  # versions that no page was read of
    Model(name="gpt-5.1", encoding="o200k_base", context=400_000, output=128_000),
    Model(name="gpt-5.1-chat", encoding="o200k_base", context=128_000, output=16_384),
    Model(name="gpt-5.2", encoding="o200k_base", context=400_000, output=128_000),
    Model(name="gpt-5.2-chat", encoding="o200k_base", context=128_000, output=16_384),
    Model(name="gpt-5.4", encoding="o200k_base", context=1_050_000, output=128_000),
    Model(name="gpt-5.4-mini", encoding="o200k_base", context=400_000, output=128_000),
    Model(name="gpt-5.4-nano", encoding="o200k_base", context=400_000, output=128_000),
    Model(name="gpt-5.5", encoding="o200k_base", context=1_050_000, output=128_000),
    Model(name="gpt-5.5-pro", encoding="o200k_base"),
    Model(name="o1", encoding="o200k_base", context=200_000, output=100_000),
    Model(name="o3", encoding="o200k_base", context=200_000, output=100_000),
    Model(name="o4-mini", encoding="o200k_base", context=200_000, output=100_000),
    Model(name="text-embedding-ada-002", encoding="cl100k_base", context=8_192),
    Model(name="text-embedding-3-small", encoding="cl100k_base", context=8_192),
    Model(name="text-embedding-3-large", encoding="cl100k_base", context=8_192),
)


def model_of(name: str, models: dict[str, str]) -> Model:
    """The family of a model or deployment name.

    A deployment's name is arbitrary: ``models`` (deployment → model, from the settings) comes first; else the longest
    family name that the name begins with or contains, since people call deployments ``gpt-4.1-batch``.
    """
    wanted = models.get(name, name).lower().removeprefix("ft:")
    starts = [model for model in _FAMILIES if wanted.startswith(model.name)]
    inside = starts or [model for model in _FAMILIES if re.search(rf"(^|[^a-z0-9]){re.escape(model.name)}", wanted)]
    if not inside:
        return Model(name=wanted, encoding="o200k_base", known=False, called=wanted)
    family = max(inside, key=lambda model: len(model.name))
    return replace(family, called=wanted[wanted.rindex(family.name) :])
