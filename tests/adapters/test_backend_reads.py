"""The batch backend's reads over real sockets: pages, single batches, cancels; repeated where that is safe."""

from __future__ import annotations

import pytest

from sluicegate.adapters.backend_batch import BatchBackend, Timeouts
from sluicegate.core.types import BatchStatus
from sluicegate.errors import (
    Conflict,
    NotFound,
    ProviderRefused,
    Unavailable,
)
from sluicegate.ports import Backend
from tests.adapters.scripted import (
    BATCH,
    Answer,
    Server,
    azure,
    connected,
    drop,
    error,
    reply,
    reset,
    silence,
)


def test_it_is_a_backend() -> None:
    """The port's protocol holds, as far as types tell."""
    kind: type[Backend] = BatchBackend

    assert {name for name in vars(Backend) if not name.startswith("_")} <= set(dir(kind))


async def test_reads_are_repeated_a_few_times(server: Server) -> None:
    """A list survives a 502, a reset and half a reply, without the caller's help."""
    server.script = [reply(502, retry_after="0.01"), reset, reply(200, {"data": [BATCH], "has_more": False})]
    async with connected(server.url, read_retries=2) as backend:
        page = await backend.list_batches()

    assert [b.id for b in page.batches] == ["batch_1"]
    assert server.count("GET") == 3


@pytest.mark.parametrize("answer", [drop, reset, silence, reply(500), reply(200, b"<html>"), reply(200, [])])
async def test_a_read_that_fails_is_unavailable(server: Server, answer: Answer) -> None:
    """A list that cannot be read says nothing about any batch."""
    server.script = [answer]
    async with connected(server.url, timeouts=Timeouts(read_s=0.3)) as backend:
        with pytest.raises(Unavailable):
            await backend.list_batches()


async def test_a_page_leads_to_the_next(server: Server) -> None:
    """The cursor is last_id, or the last item's id; the query carries it on."""
    server.script = [
        reply(200, {"data": [BATCH], "has_more": True, "last_id": "cursor_9"}),
        reply(200, {"data": [BATCH], "has_more": True}),
        reply(200, {"data": [BATCH], "has_more": False, "last_id": "batch_1"}),
    ]
    async with connected(server.url) as backend:
        first = await backend.list_batches(limit=1)
        second = await backend.list_batches(after=first.next_after, limit=1)
        third = await backend.list_batches(after=second.next_after, limit=1)

    assert (first.next_after, second.next_after, third.next_after) == ("cursor_9", "batch_1", None)
    assert [r.query for r in server.requests] == ["limit=1", "after=cursor_9&limit=1", "after=batch_1&limit=1"]


async def test_a_first_page_of_nothing_that_has_more_is_no_list(server: Server) -> None:
    """It would say that a lost create was never made; behind other pages an empty one ends the list."""
    server.script = [reply(200, {"data": [], "has_more": True})]
    async with connected(server.url) as backend:
        with pytest.raises(Unavailable):
            await backend.list_batches()
        page = await backend.list_batches(after="batch_1")

    assert page.next_after is None


async def test_a_wrong_address_is_named_by_its_path(server: Server) -> None:
    """A 404 of the list is a wrong base URL: the message shows the path and the usual causes."""
    server.script = [reply(404, error("404", "Resource not found"))]
    wrong = f"{server.url}/openai/deployments/gpt"
    async with connected(server.url, **azure(server.url, azure_endpoint=None, base_url=wrong)) as backend:
        with pytest.raises(ProviderRefused, match=r"GET /openai/deployments/gpt/batches .*/deployments/"):
            await backend.list_batches()
        with pytest.raises(ProviderRefused, match="GET /openai/deployments/gpt/files"):
            await backend.find_files(frozenset({"x"}))


async def test_a_batch_is_gone_only_if_the_provider_says_so(server: Server) -> None:
    """A 404 about the batch is NotFound; a proxy's or a router's 404 proves nothing (D3)."""
    server.script = [
        reply(404, error(None, "No batch found with id 'batch_1'.")),
        reply(404, error("notFound", "The specified item does not exist.")),
        reply(404, b"<html><title>Not Found</title></html>"),
        reply(404, error("404", "Resource not found")),
        reply(404, error(None, "Invalid URL (GET /v1/v1/batches/batch_9)")),
    ]
    async with connected(server.url) as backend:
        for kind in (NotFound, NotFound, Unavailable, Unavailable, Unavailable):
            with pytest.raises(kind):
                await backend.batch("batch_1")


async def test_a_cancel_of_an_ended_batch_is_a_conflict(server: Server) -> None:
    """409 is not repeated, and Azure's 400 means the same."""
    server.script = [reply(409, error(None, "Cannot cancel a batch with status 'completed'."))]
    async with connected(server.url, read_retries=3) as backend:
        with pytest.raises(Conflict):
            await backend.cancel("batch_1")
        server.script = [reply(400, error("conflict", "Batch cannot be cancelled in state completed"))]
        with pytest.raises(Conflict):
            await backend.cancel("batch_1")

    assert server.count("POST") == 2


async def test_cancel_gives_the_batch(server: Server) -> None:
    """The reply to a cancel is read as a batch."""
    server.script = [reply(200, {**BATCH, "status": "Cancelling"})]
    async with connected(server.url) as backend:
        batch = await backend.cancel("batch_1")

    assert batch.status is BatchStatus.CANCELLING
