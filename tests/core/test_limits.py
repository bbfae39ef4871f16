"""Numbers as people write them, models by their names, prices, images."""

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.core import images
from sluicegate.core.limits import format_tokens, model_of, parse_duration, parse_tokens
from sluicegate.core.prices import cost


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("30K", 30_000), ("1.5M", 1_500_000), ("5B", 5_000_000_000), ("90,000", 90_000), ("90_000", 90_000), ("7", 7)],
)
def test_token_numbers(text: str, tokens: int) -> None:
    """As in refusal texts and on command lines."""
    assert parse_tokens(text) == tokens


@given(st.integers(0, 10**12))
def test_formatted_numbers_are_exact(tokens: int) -> None:
    """What is shown is what is meant."""
    assert format_tokens(30_000) == "30K" and format_tokens(1_500_000) == "1.5M" and format_tokens(30_500) == "30.5K"
    assert parse_tokens(format_tokens(tokens)) == tokens


def test_what_is_no_number_says_what_would_be_one() -> None:
    """The remedy is in the sentence."""
    for parse in (parse_tokens, parse_duration):
        with pytest.raises(ValueError, match="write"):
            parse("soon")
    assert [parse_duration(text) for text in ("500ms", "60s", "2m", "24h", "7d", "3")] == [
        0.5, 60, 120, 86_400, 604_800, 3,
    ]  # fmt: skip


def test_deployments_are_recognised_by_the_model_in_their_name() -> None:
    """A deployment's name is arbitrary; the settings' table comes first."""
    assert model_of("gpt-4.1-mini-batch", {}).name == "gpt-4.1"
    assert model_of("my-gpt-4-batch", {}).encoding == "cl100k_base"
    assert model_of("prod", {"prod": "gpt-4o"}).name == "gpt-4o"
    assert not model_of("prod", {}).known


@pytest.mark.parametrize(
    ("name", "context", "output"),
    [
        ("gpt-5", 400_000, 128_000), ("gpt-5-2025-08-07", 400_000, 128_000), ("gpt-5-mini", 400_000, 128_000),
        ("gpt-5-chat-latest", 128_000, 16_384), ("gpt-5.4", 1_050_000, 128_000), ("gpt-5.4-nano-batch", 400_000, 128_000),
        ("gpt-5.6-sol", None, None), ("gpt-5.9", None, None), ("gpt-4", None, None),
    ],
)  # fmt: skip
def test_a_model_has_the_numbers_of_its_own_page_or_none(name: str, context: int | None, output: int | None) -> None:
    """A request is refused by a number that was published for this very model, never by a relative's."""
    model = model_of(name, {})

    assert (model.context, model.output, model.known) == (context, output, True)


def test_prices_are_the_models_own_or_none() -> None:
    """A dated version is its model; an unknown name costs None, not nothing."""
    assert cost("gpt-4.1-2025-04-14", 1_000_000, 1_000_000) == 5.0
    assert cost("gpt-4.1-mini", 1_000_000, 0) == 0.2
    assert cost("prod", 1, 1) is None
    assert cost("prod", 1_000_000, 0, prices={"prod": (3.0, None, 0.0)}) == 3.0
    assert cost("gpt-5", 1_000_000, 0, cached_tokens=400_000) == pytest.approx(0.6 * 0.625 + 0.4 * 0.0625)
    assert cost("gpt-4.1", 1_000_000, 0, cached_tokens=400_000) == 1.0


def png(width: int, height: int) -> str:
    raw = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02\x00\x00\x00"
    return "data:image/png;base64," + base64.b64encode(raw).decode()


def test_images_follow_the_tile_and_patch_rules() -> None:
    """Figures of the vision guide: 1024² is 765 for gpt-4o; low detail is the base; 5.4 takes 1,229 for 1024²."""
    assert images.size_of(png(1024, 1024)) == (1024, 1024)
    assert images.size_of("https://example.org/x.png") is None
    assert images.tokens("gpt-4o", 1024, 1024, "high") == 765
    assert images.tokens("gpt-4o", 2048, 4096, "high") == 1105
    assert images.tokens("gpt-4o", 4096, 8192, "low") == 85
    assert images.tokens("gpt-5.4", 1024, 1024, "high") == 1229
