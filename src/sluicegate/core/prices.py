"""Prices of the batch API, USD per million tokens, as published; replaceable in the settings (``[prices]``).

OpenAI's batch prices, pages of mid-2026 (F§9, collected 2026-11-23). Azure publishes none that can be read offline; half
of Global Standard is the rule there, which for these models comes to the same figures: verify before you rely on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

BATCH_PRICES: Final[dict[str, tuple[float, float]]] = {
    "gpt-5.6-sol": (2.00, 10.00),
    "gpt-5.6-terra": (1.00, 6.00),
    "gpt-5.6-luna": (0.10, 0.60),
    "gpt-5.5-pro": (15.0, 90.0),
    "gpt-5.5": (2.50, 15.00),
    "gpt-5.4-pro": (15.0, 90.0),
    "gpt-5.4-mini": (0.375, 2.25),
    "gpt-5.4-nano": (0.10, 0.625),
    "gpt-5.4": (1.25, 7.50),
    "gpt-5.2": (0.875, 7.00),
    "gpt-5.1": (0.625, 5.00),
    "gpt-5-mini": (0.125, 1.00),
    "gpt-5-nano": (0.025, 0.20),
    "gpt-5": (0.625, 5.00),
    "gpt-4.1-mini": (0.20, 0.80),
    "gpt-4.1-nano": (0.05, 0.20),
    "gpt-4.1": (1.00, 4.00),
    "gpt-4o-mini": (0.075, 0.30),
    "gpt-4o": (1.25, 5.00),
    "o3-deep-research": (5.00, 20.00),
    "o3": (1.00, 4.00),
    "o4-mini": (0.55, 2.20),
}
"""Model → (input, output)."""


def cost(
    model: str, input_tokens: float, output_tokens: float, *, prices: Mapping[str, tuple[float, float]] | None = None
) -> float | None:
    """USD for tokens through the batch API, or None if the model's price is not known.

    Args:
        model: A model's name; a dated version or a deployment called after its model is recognised by its beginning.
        prices: Model → (input, output) per million tokens; looked at first.
    """
    for table in (prices or {}, BATCH_PRICES):
        fitting = [name for name in table if model == name or model.startswith(f"{name}-")]
        if fitting:
            per_input, per_output = table[max(fitting, key=len)]
            return (input_tokens * per_input + output_tokens * per_output) / 1e6
    return None
