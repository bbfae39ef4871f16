"""How the batch backend signs in, over real sockets: keys, Entra tokens and their renewal, addresses of the surfaces."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from sluicegate.adapters.credentials import COGNITIVE_SCOPE, TokenSource
from sluicegate.core.types import Dialect
from sluicegate.errors import (
    AuthenticationFailed,
    Unavailable,
    UsageError,
)
from tests.adapters.scripted import (
    NOW,
    Request,
    Server,
    azure,
    connected,
    create,
    error,
    read,
    reply,
)


@dataclass
class Token:
    """A token and its end."""

    token: str
    expires_on: int


class FakeCredential:
    """An Entra credential that gives numbered tokens for an hour."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        self.asked = 0

    async def get_token(self, *scopes: str) -> Token:
        assert scopes == ("https://cognitiveservices.azure.com/.default",)
        self.asked += 1
        return Token(f"token-{type(self).made}-{self.asked}", int(NOW) + 3_600)

    async def close(self) -> None:
        return


@pytest.fixture
def entra() -> dict[str, Any]:
    FakeCredential.made = 0
    return {"azure_api_key": None, "use_entra": True, "credential": FakeCredential}


async def test_a_read_refused_with_403_goes_again_with_a_new_token(server: Server, entra: dict[str, Any]) -> None:
    """Entra's tokens live about an hour: one forced renewal, then the read succeeds."""
    empty = reply(200, {"data": [], "has_more": False})
    server.script = [reply(403, error("forbidden", "expired")), empty, reply(200, b"content")]
    async with connected(server.url, **azure(server.url, **entra)) as backend:
        await backend.list_batches()
        server.script = [reply(401), reply(200, b"content")]
        assert await read(backend) == b"content"

    assert [r.headers["authorization"] for r in server.requests] == [
        "Bearer token-1-1", "Bearer token-2-1", "Bearer token-2-1", "Bearer token-3-1",
    ]  # fmt: skip


async def test_calls_that_are_refused_together_share_one_renewal(server: Server, entra: dict[str, Any]) -> None:
    """A token that runs out under several calls at once ends none of them."""
    expired = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.headers["authorization"] == "Bearer token-1-1":
            if sum(r.headers["authorization"] == "Bearer token-1-1" for r in server.requests) == 3:
                expired.set()
            await expired.wait()
            writer.write(reply(403, error("forbidden", "expired")))
        else:
            writer.write(reply(200, {"data": [], "has_more": False}))

    server.script = [answer]
    async with connected(server.url, **azure(server.url, **entra)) as backend:
        pages = await asyncio.gather(*(backend.list_batches() for _ in range(3)))

    assert len(pages) == 3
    assert FakeCredential.made == 2


async def test_a_lasting_403_is_the_end_after_one_renewal(server: Server, entra: dict[str, Any]) -> None:
    """A role that is missing is not cured by new tokens."""
    server.script = [reply(403, error("PermissionDenied", "The principal lacks the required data action"))]
    async with connected(server.url, **azure(server.url, **entra)) as backend:
        with pytest.raises(AuthenticationFailed, match="role"):
            await backend.list_batches()

    assert len(server.requests) == 2


async def test_a_create_refused_with_403_is_not_sent_again_by_the_adapter(
    server: Server, entra: dict[str, Any]
) -> None:
    """The token is renewed, and it is the caller's next create that uses it; a second refusal is final."""
    server.script = [reply(403), reply(200, {"data": [], "has_more": False}), reply(403)]
    async with connected(server.url, **azure(f"{server.url}/openai/v1", **entra)) as backend:
        with pytest.raises(Unavailable):
            await create(backend)
        await backend.list_batches()
        with pytest.raises(AuthenticationFailed):
            await create(backend)

    assert server.count("POST") == 2
    assert server.requests[-1].headers["authorization"] == "Bearer token-2-1"


async def test_a_token_serves_to_its_end_if_no_new_one_is_to_be_had() -> None:
    """A sign-in that fails before the old token has ended is no failure yet."""
    clock = [NOW]

    class Failing(FakeCredential):
        async def get_token(self, *scopes: str) -> Token:
            if self.asked:
                raise OSError("no network")
            return await super().get_token(*scopes)

    tokens = TokenSource(Failing, scope=COGNITIVE_SCOPE, now=lambda: clock[0])
    first = await tokens()
    clock[0] += 3_590
    late = await tokens()
    clock[0] += 20

    assert late == first
    with pytest.raises(Unavailable, match="no network"):
        await tokens()


async def test_the_three_surfaces_have_their_paths_and_credentials(server: Server) -> None:
    """OpenAI, Azure with a version, Azure v1: address, query and headers; both of Azure's are one resource."""
    server.script = [reply(200, {"data": [], "has_more": False})]
    async with connected(server.url, organization="org-1") as backend:
        await backend.list_batches()
        assert (backend.dialect, backend.resource) == (Dialect.OPENAI, f"{server.url}/v1#org-1")
    async with connected(server.url, **azure(server.url, api_version="2025-04-01-preview")) as backend:
        await backend.list_batches()
        assert (backend.dialect, backend.resource) == (Dialect.AZURE, server.url)
    v1 = {"base_url": f"{server.url}/openai/v1/", "api_key": None, "azure_api_key": "azure-key"}
    async with connected(server.url, **v1, api_version="2024-10-21") as backend:
        await backend.list_batches()
        assert (backend.dialect, backend.resource) == (Dialect.AZURE, server.url)

    openai, dated, plain = server.requests
    assert (openai.path, openai.query, openai.headers["openai-organization"]) == ("/v1/batches", "limit=100", "org-1")
    assert openai.headers["authorization"] == "Bearer sk-test-0123456789"
    assert (dated.path, dated.query) == ("/openai/batches", "api-version=2025-04-01-preview&limit=100")
    assert dated.headers["api-key"] == "azure-key"
    assert (plain.path, plain.query, plain.headers["api-key"]) == ("/openai/v1/batches", "limit=100", "azure-key")


async def test_credentials_do_not_follow_a_redirect_to_another_host(server: Server) -> None:
    """A read may be redirected, its key may not."""
    v1 = {"base_url": f"{server.url}/openai/v1", "api_key": None, "azure_api_key": "azure-key"}
    async with Server([reply(200, {"data": [], "has_more": False})]).listening() as other:
        server.script = [reply(307, location=f"{other.url}/batches")]
        async with connected(server.url, **v1) as backend:
            await backend.list_batches()

    [arrived] = other.requests
    assert "authorization" not in arrived.headers
    assert "api-key" not in arrived.headers


async def test_signing_in_with_entra_without_its_package_is_said_before_anything_is_sent(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway began, said that it was ready, and no batch ever went."""
    monkeypatch.setitem(sys.modules, "azure.identity.aio", None)
    with pytest.raises(UsageError, match="azure-identity"):
        async with connected(server.url, **azure(server.url, azure_api_key=None, use_entra=True)):
            pass
