"""What is read off the wire: odd but real shapes of batches, files, pages and errors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.adapters import wire
from sluicegate.adapters.connect import connect
from sluicegate.adapters.credentials import Scrubber, header_safe, surface_of
from sluicegate.core.types import BatchError, BatchStatus, Dialect, Usage
from sluicegate.errors import SluicegateError, UsageError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
FIELDS = [
    "id", "status", "endpoint", "model", "input_file_id", "created_at", "completed_at", "request_counts", "metadata",
    "errors", "usage", "data", "has_more", "last_id", "bytes", "filename", "error", "message", "code",
]  # fmt: skip


def test_azures_first_reply_is_read() -> None:
    """Empty ids are absent, null counts are zero, null errors are none (Azure's documented sample of a create)."""
    batch = wire.batch(
        {
            "id": "batch_6caaf24d",
            "status": "validating",
            "created_at": 1_722_476_583,
            "endpoint": None,
            "input_file_id": "file-1",
            "output_file_id": "",
            "error_file_id": "",
            "errors": None,
            "metadata": None,
            "request_counts": {"total": None, "completed": 0, "failed": None},
            "completed_at": None,
            "failed_at": 0,
        }
    )

    assert batch is not None
    assert (batch.output_file_id, batch.error_file_id, batch.endpoint) == (None, None, None)
    assert (batch.requests_total, batch.requests_completed, batch.requests_failed) == (0, 0, 0)
    assert (batch.errors, batch.metadata, batch.failed_at) == ((), {}, None)


def test_an_early_preview_is_read() -> None:
    """ISO times, capitals, and an error's line as a string."""
    batch = wire.batch(
        {
            "id": "batch_1",
            "status": "Failed",
            "created_at": "2024-07-19T17:13:57.2491382+00:00",
            "failed_at": "2024-07-19T17:14:57Z",
            "request_counts": None,
            "metadata": {"n": 3},
            "errors": {"object": "list", "data": [{"code": "invalid_json_line", "message": "no", "line": "7"}, None]},
        }
    )

    assert batch is not None
    assert batch.status is BatchStatus.FAILED
    assert batch.created_at == pytest.approx(1_721_409_237.249)
    assert batch.ended_at == 1_721_409_297.0
    assert batch.errors == (BatchError(code="invalid_json_line", message="no", line=7),)
    assert batch.metadata == {"n": "3"}


def test_openais_full_object_is_read() -> None:
    """Usage, model, times and metadata of a completed batch."""
    batch = wire.batch(
        {
            "id": "batch_abc123",
            "status": "completed",
            "model": "gpt-5-2025-08-07",
            "created_at": 1_711_471_533,
            "in_progress_at": 1_711_471_538,
            "finalizing_at": 1_711_493_133,
            "completed_at": 1_711_493_163,
            "output_file_id": "file-o",
            "request_counts": {"total": 100, "completed": 95, "failed": 5},
            "usage": {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 2},
        }
    )

    assert batch is not None
    assert batch.usage == Usage(input_tokens=10, cached_tokens=4, output_tokens=2)
    assert (batch.requests_total, batch.requests_completed, batch.requests_failed) == (100, 95, 5)
    assert (batch.model, batch.ended_at) == ("gpt-5-2025-08-07", 1_711_493_163)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("canceled", BatchStatus.CANCELLED),
        ("Cancelling", BatchStatus.CANCELLING),
        ("InProgress", BatchStatus.IN_PROGRESS),
        ("in progress", BatchStatus.IN_PROGRESS),
        ("notStarted", BatchStatus.VALIDATING),
        ("COMPLETED", BatchStatus.COMPLETED),
        ("hibernating", BatchStatus.IN_PROGRESS),
        (None, BatchStatus.IN_PROGRESS),
    ],
)
def test_statuses_are_read_in_every_spelling(word: object, status: BatchStatus) -> None:
    """A status that nobody knows still holds its tokens: it is never taken for an end."""
    assert wire.status(word) is status


@pytest.mark.parametrize(
    ("page", "after", "following"),
    [
        ({"data": [{"id": "b1"}, {"id": "b2"}], "has_more": True, "last_id": "b2"}, None, "b2"),
        ({"data": [{"id": "b1"}, {"id": "b2"}], "has_more": True, "last_id": None}, None, "b2"),
        ({"data": [{"id": "b1"}], "has_more": False, "last_id": "b1"}, None, None),
        ({"data": [], "has_more": True, "last_id": None}, "b0", None),
        ({"data": [], "has_more": True, "last_id": "b5"}, "b0", "b5"),
        ({"data": [], "has_more": True, "last_id": "b0"}, "b0", None),
        ({"data": [{"id": "b0"}], "has_more": True}, "b0", None),
        ({"data": [{"id": "b1"}, {"id": "b2"}]}, None, "b2"),
        ({"data": [{"id": "b1"}]}, None, None),
    ],
)
def test_pages_lead_on_only_where_they_move(page: dict[str, Any], after: str | None, following: str | None) -> None:
    """has_more with nothing behind it, or a cursor that stays, ends the list; two per page are asked for."""
    read = wire.batch_page(page, after=after, limit=2)

    assert read is not None
    assert read.next_after == following


def test_a_file_without_a_status_is_ready() -> None:
    """OpenAI calls the field deprecated."""
    file = wire.file({"id": "file-1", "filename": "a.jsonl", "bytes": "12", "status_details": None})

    assert file is not None
    assert (file.status, file.bytes, file.detail) == ("processed", 12, None)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON)
def test_no_json_raises(value: object) -> None:
    """Any JSON at all is read as a batch, a file or a page, or as none."""
    wire.batch(value)
    wire.file(value)
    wire.files(value)
    wire.ids(value)
    wire.batch_page(value, after=None, limit=100)
    wire.batch_page({"data": [value], "has_more": value, "last_id": value}, after="x", limit=1)


@given(
    kind=st.sampled_from(wire.Kind),
    status=st.integers(300, 599),
    content=st.binary() | st.dictionaries(st.sampled_from(FIELDS), JSON).map(lambda v: repr(v).encode()),
    headers=st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date"]), st.text()),
)
def test_no_refusal_raises_and_every_one_is_an_error(
    kind: wire.Kind, status: int, content: bytes, headers: dict[str, str]
) -> None:
    """Every reply of 3xx to 5xx becomes one of our errors with a sentence."""
    call = wire.Call(kind=kind, what="try", path="GET /v1/x", item=None)
    reply = wire.Reply(status=status, headers=headers, content=content)

    refused = wire.refused(call, reply, scrub=Scrubber(), now=lambda: 0.0)

    assert isinstance(refused, SluicegateError)
    assert str(refused)


@pytest.mark.parametrize(
    ("settings", "dialect", "base_url", "dated", "resource"),
    [
        ({}, "openai", "https://api.openai.com/v1", False, "https://api.openai.com/v1"),
        ({"base_url": "HTTP://Localhost:80//v1/"}, "openai", "http://localhost/v1", False, "http://localhost/v1"),
        ({"base_url": "http://u:p@h/v1"}, "openai", "http://h/v1", False, "http://h/v1"),
        ({"organization": "o", "project": "p"}, "openai", "https://api.openai.com/v1", False,
         "https://api.openai.com/v1#o/p"),
        ({"azure_endpoint": "https://N.openai.azure.com/"}, "azure", "https://n.openai.azure.com/openai", True,
         "https://n.openai.azure.com"),
        ({"azure_endpoint": "https://n.openai.azure.com/openai/deployments/x/chat/completions?api-version=2023-05-15"},
         "azure", "https://n.openai.azure.com/openai", True, "https://n.openai.azure.com"),
        ({"azure_endpoint": "https://n.openai.azure.com/openai/v1/"}, "azure", "https://n.openai.azure.com/openai/v1",
         False, "https://n.openai.azure.com"),
        ({"base_url": "https://n.openai.azure.com"}, "azure", "https://n.openai.azure.com/openai", True,
         "https://n.openai.azure.com"),
        ({"base_url": "https://n.openai.azure.com/openai/v1"}, "azure", "https://n.openai.azure.com/openai/v1", False,
         "https://n.openai.azure.com"),
        ({"base_url": "http://gate/llm/openai/v1"}, "azure", "http://gate/llm/openai/v1", False, "http://gate/llm"),
        ({"base_url": "http://gate/openai/v1", "dialect": Dialect.OPENAI}, "openai", "http://gate/openai/v1", False,
         "http://gate/openai/v1"),
        ({"base_url": "http://[::1]:8080/v1", "dialect": Dialect.AZURE}, "azure", "http://[::1]:8080/v1", False,
         "http://[::1]:8080"),
    ],
)  # fmt: skip
def test_the_surface_follows_from_the_address(
    settings: dict[str, Any], dialect: str, base_url: str, dated: bool, resource: str
) -> None:
    """Both of Azure's surfaces of one resource have one name, so that they share one ledger."""
    surface = surface_of(**settings)

    assert (surface.dialect, surface.base_url, surface.dated, surface.resource) == (dialect, base_url, dated, resource)


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "ftp://host/v1"},
        {"base_url": "api.openai.com/v1"},
        {"base_url": "http://host:99999/v1"},
        {"base_url": "http://a/v1", "azure_endpoint": "http://b"},
    ],
)
def test_an_address_that_cannot_be_is_a_usage_error(settings: dict[str, Any]) -> None:
    """Wrong schemes, missing hosts, impossible ports and two addresses."""
    with pytest.raises(UsageError):
        surface_of(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "OPENAI_API_KEY"),
        ({"azure_api_key": "only-azure"}, "OPENAI_API_KEY"),
        ({"azure_endpoint": "https://n.openai.azure.com", "api_key": "sk-only-openai"}, "AZURE_OPENAI_API_KEY"),
        ({"use_entra": True}, "Entra is for Azure"),
        ({"api_key": "schlüssel"}, "no key"),
        ({"api_key": "two words"}, "no key"),
    ],
)
def test_missing_and_misplaced_credentials_are_named(settings: dict[str, Any], said: str) -> None:
    """One provider's key never goes to the other."""
    with pytest.raises(UsageError, match=said):
        connect(now=lambda: 0.0, **settings)


def test_a_key_loses_its_line_end() -> None:
    """Keys that were read from files bring a newline, which no header may have."""
    assert header_safe("key\n", "X") == "key"


def test_messages_are_cut() -> None:
    """A gateway's page does not fill the screen."""
    assert len(Scrubber()("x " * 10_000)) == 1_000
