"""Prices of the batch API, USD per million tokens, as published; replaceable in the settings (``[prices]``).

OpenAI's batch prices, pages of mid-2026 (F§9, collected 2026-11-23). Azure publishes none that can be read offline; half
of Global Standard is the rule there, which for these models comes to the same figures: verify before you rely on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Prices = tuple[float, float | None, float]
"""Of input, of cached input (None: as other input) and of output, USD per million tokens."""

BATCH_PRICES: Final[dict[str, Prices]] = {
    "gpt-5.6-sol": (2.00, None, 10.00),
    "gpt-5.6-terra": (1.00, None, 6.00),
    "gpt-5.6-luna": (0.10, None, 0.60),
    "gpt-5.5-pro": (15.0, None, 90.0),
    "gpt-5.5": (2.50, 0.25, 15.00),
    "gpt-5.4-pro": (15.0, None, 90.0),
    "gpt-5.4-mini": (0.375, 0.0375, 2.25),
    "gpt-5.4-nano": (0.10, 0.01, 0.625),
    "gpt-5.4": (1.25, 0.13, 7.50),
    "gpt-5.2": (0.875, 0.0875, 7.00),
    "gpt-5.1": (0.625, 0.0625, 5.00),
    "gpt-5-mini": (0.125, 0.0125, 1.00),
    "gpt-5-nano": (0.025, 0.0025, 0.20),
    "gpt-5": (0.625, 0.0625, 5.00),
    "gpt-4.1-mini": (0.20, None, 0.80),
    "gpt-4.1-nano": (0.05, None, 0.20),
    "gpt-4.1": (1.00, None, 4.00),
    "gpt-4o-mini": (0.075, None, 0.30),
    "gpt-4o": (1.25, None, 5.00),
    "o3-deep-research": (5.00, None, 20.00),
    "o3": (1.00, 0.25, 4.00),
    "o4-mini": (0.55, 0.138, 2.20),
}


def cost(
    model: str, input_tokens: float, output_tokens: float, *, cached_tokens: float = 0.0,
    prices: Mapping[str, Prices] | None = None,
) -> float | None:  # fmt: skip
    """USD for tokens through the batch API, or None if the model's price is not known.

    Args:
        model: A model's name; a dated version or a deployment called after its model is recognised by its beginning.
        cached_tokens: Those of the input that came from the provider's cache.
        prices: Looked at first.
    """
    for table in (prices or {}, BATCH_PRICES):
        fitting = [name for name in table if model == name or model.startswith(f"{name}-")]
        if fitting:
            per_input, per_cached, per_output = table[max(fitting, key=len)]
            saved = 0.0 if per_cached is None else cached_tokens * (per_input - per_cached)
            return (input_tokens * per_input - saved + output_tokens * per_output) / 1e6
    return None
