"""Reading the providers' refusals for want of enqueued quota."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.core.ledger import Dimension
from sluicegate.core.refusal import Refusal, is_token_refusal, limit_in_text, parse

AZURE = (
    "The number of enqueued tokens has surpassed the configured limit of {} for the deployment 'gpt-4.1-batch'. Please "
    "either increase the limit or try again once the current jobs have finished."
)
OPENAI = (
    "Enqueued token limit reached for gpt-4o-2024-08-06 in organization org-AbC. Limit: {} enqueued tokens. Please try "
    "again once some in_progress batches have been completed."
)
REQUESTS = (
    "Enqueued request limit reached for text-embedding-3-small in organization org-AbC. Limit: 1,000,000 enqueued "
    "requests. Please try again once some in_progress batches have been completed."
)


@pytest.mark.parametrize(
    ("written", "tokens"),
    [
        ("30K", 30_000),
        ("50k", 50_000),
        ("1.35M", 1_350_000),
        ("2 M", 2_000_000),
        ("15B", 15_000_000_000),
        ("740000", 740_000),
        ("90,000", 90_000),
        ("0.5K", 500),
    ],
)
@pytest.mark.parametrize("text", [AZURE, OPENAI])
def test_every_spelling_of_a_limit_is_read(text: str, written: str, tokens: int) -> None:
    """Abbreviated and written-out limits of both providers give the same number of tokens."""
    assert limit_in_text(text.format(written)) == tokens


def test_a_limit_of_requests_is_no_limit_of_tokens() -> None:
    """The embeddings' limit of requests is read in its own dimension and never taken for tokens."""
    assert limit_in_text(REQUESTS) is None
    assert limit_in_text(REQUESTS, Dimension.REQUESTS) == 1_000_000
    assert limit_in_text(OPENAI.format("90,000"), Dimension.REQUESTS) is None


def test_azures_text_is_taken_apart() -> None:
    """Deployment, limit and dimension of Azure's sentence."""
    text = AZURE.format("30K")

    assert parse("token_limit_exceeded", text) == Refusal(
        limit=30_000, dimension=Dimension.TOKENS, deployment="gpt-4.1-batch", message=text
    )


def test_openais_texts_are_taken_apart() -> None:
    """Model, limit and dimension of OpenAI's two sentences."""
    tokens, requests = parse(None, OPENAI.format("90,000")), parse("token_limit_exceeded", REQUESTS)

    assert tokens is not None
    assert (tokens.limit, tokens.dimension, tokens.deployment) == (90_000, Dimension.TOKENS, "gpt-4o-2024-08-06")
    assert requests is not None
    assert (requests.limit, requests.dimension, requests.deployment) == (
        1_000_000, Dimension.REQUESTS, "text-embedding-3-small",
    )  # fmt: skip


def test_a_refusal_without_a_number_is_still_a_refusal() -> None:
    """A text that names no limit gives None, whatever other numbers stand in it."""
    refusal = parse("token_limit_exceeded", "Too many enqueued tokens; try again in 5 minutes (request 400).")

    assert refusal is not None
    assert refusal.limit is None


@pytest.mark.parametrize("number", ["0K", "0", "9" * 40, "30KB", "30X", "K", "-5K", "٣٠K"])
def test_what_is_no_number_gives_none(number: str) -> None:
    """Zero, absurd and unreadable numbers are not believed."""
    assert limit_in_text(AZURE.format(number)) is None


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("token_limit_exceeded", None, True),
        (" Token_Limit_Exceeded ", "", True),
        (None, "Error code: token_limit_exceeded", True),
        ("invalid_request", AZURE.format("30K"), True),
        (None, REQUESTS, True),
        ("429", "Rate limit reached for requests", False),
        ("invalid_request", "The configured limit of 5 for retries", False),
        (None, None, False),
    ],
)
def test_only_the_enqueued_quota_is_a_token_refusal(code: str | None, message: str | None, expected: bool) -> None:
    """The code or the text alone is enough; other limits are other errors."""
    assert is_token_refusal(code, message) is expected
    assert (parse(code, message) is not None) is expected


@given(st.one_of(st.text(), st.builds(AZURE.format, st.text()), st.builds(OPENAI.format, st.text())))
def test_no_text_raises(text: str) -> None:
    """Any text at all is read without an exception, and a limit is a positive whole number."""
    for dimension in Dimension:
        limit = limit_in_text(text, dimension)
        assert limit is None or limit > 0
    parse(text, text)
    parse(None, text)


@given(st.integers(min_value=1, max_value=10**15))
def test_written_out_numbers_are_read_exactly(limit: int) -> None:
    """No digit is lost, with thousands separators or without."""
    assert limit_in_text(OPENAI.format(f"{limit:,}")) == limit
    assert limit_in_text(AZURE.format(limit)) == limit


@given(st.integers(min_value=1, max_value=9_999_999), st.sampled_from([("K", 3), ("M", 6), ("B", 9)]))
def test_decimal_fractions_are_read_exactly(thousandths: int, unit: tuple[str, int]) -> None:
    """Three decimals and a unit give a whole number without binary rounding."""
    written = f"{thousandths // 1000}.{thousandths % 1000:03}{unit[0]}"

    assert limit_in_text(AZURE.format(written)) == thousandths * 10 ** (unit[1] - 3)
