"""Counting a request: any JSON body has a count, and the published rules give the published numbers."""

import base64
import io
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluicegate.adapters.counters import default_counter
from sluicegate.core import estimate, images
from sluicegate.core.check import Scanner
from sluicegate.core.estimate import tally
from sluicegate.core.index import Flag
from sluicegate.core.limits import model_of
from sluicegate.core.rules import CheckRules
from sluicegate.core.types import Dialect

WORDS = st.sampled_from(
    [
        "messages", "content", "role", "name", "type", "text", "image_url", "url", "detail", "input_audio", "data", "file",
        "input", "prompt", "tools", "functions", "function", "parameters", "properties", "enum", "description",
        "response_format", "json_schema", "items", "anyOf", "instructions", "format", "user", "suffix", "low",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAAAAAAA",
    ]
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | WORDS
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=2)
    | st.dictionaries(WORDS, SCALARS | st.lists(SCALARS, max_size=2), max_size=3)
)
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "input_image", "input_audio", "file", "input_file"])},
    optional=dict.fromkeys(("image_url", "input_audio", "file", "text", "detail"), VALUES),
)
TURNS = st.fixed_dictionaries({"content": VALUES | st.lists(PARTS | VALUES, max_size=3)}, optional={"name": VALUES})
FUNCTIONS = st.fixed_dictionaries(
    {}, optional={"type": VALUES, "name": VALUES, "parameters": st.fixed_dictionaries({"properties": VALUES})}
)
CALLS = VALUES | st.lists(FUNCTIONS | st.fixed_dictionaries({"function": FUNCTIONS | VALUES}) | VALUES, max_size=2)
TURNED = VALUES | st.lists(TURNS | VALUES, max_size=3)
FIELDS = {
    "messages": TURNED, "input": TURNED, "prompt": VALUES, "tools": CALLS, "functions": CALLS, "response_format": VALUES,
    "text": VALUES, "instructions": VALUES, "suffix": VALUES,
}  # fmt: skip
BODIES = st.fixed_dictionaries({}, optional=FIELDS)
URLS = ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations", "nonsense"]


@given(st.sampled_from(URLS), BODIES)
@settings(max_examples=500, deadline=None)
def test_any_body_has_a_tally(url: str, body: dict[str, Any]) -> None:
    """A value of the wrong type is the provider's to refuse; counting it never fails."""
    counted = tally(url, body, model_of("gpt-4o", {}))

    assert counted.fixed >= 0


@pytest.mark.parametrize(
    "body",
    [
        {"functions": 5},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": "x"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": ["x"]}]}]},
    ],
)
def test_values_of_the_wrong_type_are_counted_all_the_same(body: dict[str, Any]) -> None:
    """These three once ended the whole check."""
    assert tally("/v1/chat/completions", body, model_of("gpt-4o", {})).fixed >= estimate.PER_REQUEST


@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0), (0, 0)])
def test_an_image_without_extent_has_no_known_size(width: int, height: int) -> None:
    """A damaged header counts as a picture of the usual size."""
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(8)

    assert images.size_of("data:image/png;base64," + base64.b64encode(header).decode()) is None


@pytest.mark.parametrize(("name", "init"), [("gpt-4o", 7), ("gpt-4.1", 7), ("gpt-35-turbo", 10), ("gpt-4-turbo", 10)])
def test_a_function_costs_more_before_4o(name: str, init: int) -> None:
    """The cookbook's two figures; 12 at the end and 3 for the answer are the same for all."""
    body = {"messages": [], "tools": [{"type": "function", "function": {"name": "f"}}]}

    assert tally("/v1/chat/completions", body, model_of(name, {})).fixed == init + 12 + 3


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("gpt-4o", 85 + 4 * 170), ("my-gpt-4o-mini-batch", 2_833 + 4 * 5_667), ("gpt-4.1", 85 + 4 * 170),
        ("gpt-4.1-mini-batch", 1_659), ("gpt-5.4", 1_229), ("computer-use-preview", 65 + 4 * 129),
    ],
)  # fmt: skip
def test_an_image_is_counted_by_the_rule_of_the_very_model(name: str, tokens: int) -> None:
    """1024 × 1024 (F§8.4): a family's mini and nano have rules of their own, also under a deployment's name."""
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/1024.png"}}
    body = {"messages": [{"content": [picture]}]}

    assert tally("/v1/chat/completions", body, model_of(name, {})).fixed == tokens + 3 + 3


@given(st.lists(st.tuples(st.sampled_from(URLS), BODIES), min_size=1, max_size=4), st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_body_is_scanned(requests: list[tuple[str, dict[str, Any]]], lenient: bool) -> None:
    """Each line ends as a request or as a problem that names it."""
    content = b"\n".join(
        json.dumps({"custom_id": str(i), "method": "POST", "url": url, "body": {"model": "gpt-4o"} | body}).encode()
        for i, (url, body) in enumerate(requests)
    )
    found = Scanner(CheckRules(dialect=Dialect.OPENAI, lenient=lenient), default_counter().count, "x").run(
        io.BytesIO(content), 0, len(content)
    )

    assert len(found.index) == len(requests)
    assert sum(flags & Flag.BAD for flags in found.index.flags) == len(found.bad)
