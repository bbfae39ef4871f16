"""The work that the benchmarks send: chat requests of log-normal size, the same for the same seed."""

from __future__ import annotations

import json
import random
from pathlib import Path

# Short common words: about one token and three to four characters each, so that a provider's two ways of counting
# (characters ÷ 4, tokens) come out close together and the token limit is what binds.
_COMMON = (
    "the and for you not are but had was all any can her one our out day get has him his how man new now old see two "
    "way who boy did its let put say she too use we go to it as he is no so up us an at be by do if in me my of on or"
)
WORDS = _COMMON.split()


REQUESTS, TOKENS, LARGEST, SEED = 600, 285_000, 3_200, 7
"""The usual work."""


def sizes(requests: int = REQUESTS, tokens: int = TOKENS, largest: int = LARGEST, seed: int = SEED) -> list[int]:
    """Log-normal sizes that add up to about ``tokens``, none above ``largest``."""
    dice = random.Random(seed)
    raw = [dice.lognormvariate(0.0, 0.75) for _ in range(requests)]
    scale = tokens / sum(raw)
    return [max(20, min(largest, round(size * scale))) for size in raw]


def write(
    path: Path, *, requests: int = REQUESTS, tokens: int = TOKENS, largest: int = LARGEST, seed: int = SEED,
    model: str = "gpt-4.1-batch", url: str = "/v1/chat/completions", prefix: str = "request",
) -> int:  # fmt: skip
    """Write a batch input file; returns the bytes. A prompt of n words has about n + 8 tokens."""
    dice = random.Random(seed + 1)
    with path.open("w", encoding="utf-8") as out:
        for i, size in enumerate(sizes(requests, tokens, largest, seed)):
            text = " ".join(dice.choices(WORDS, k=max(1, size - 8)))
            body = {"model": model, "messages": [{"role": "user", "content": text}]}
            line = {"custom_id": f"{prefix}-{i}", "method": "POST", "url": url, "body": body}
            out.write(json.dumps(line, separators=(",", ":")) + "\n")
    return path.stat().st_size


def ideal_s(
    total: float, *, rate: float, fixed_s: float, limit: list[tuple[float, float]],
    foreign: list[tuple[float, float, float]] | None = None,
) -> float:  # fmt: skip
    """The fluid bound: work served at min(rate, (limit − foreign) ÷ fixed delays) at each moment, plus the delays once.

    Args:
        total: Tokens. ``rate``: tokens per second. ``fixed_s``: validating + start + finalizing.
        limit: (from second, tokens), in order. ``foreign``: (from, to, tokens).
    """
    done = at = 0.0
    step = 0.01
    while done < total:
        held = sum(tokens for start, stop, tokens in foreign or [] if start <= at < stop)
        now = [tokens for start, tokens in limit if start <= at][-1]
        done += min(rate, max(0.0, now - held) / fixed_s) * step
        at += step
    return at + fixed_s
