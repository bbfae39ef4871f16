"""The deployment's limit from Azure's management API, against a small server on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from sluicegate.adapters.azure_account import AzureAccount
from sluicegate.adapters.connect import connect
from sluicegate.adapters.credentials import Credential, TokenSource
from sluicegate.errors import AuthenticationFailed, UsageError

ENDPOINT = "https://Mine.openai.azure.com/"
ACCOUNTS = "/subscriptions/sub-1/providers/Microsoft.CognitiveServices/accounts"
MINE = "/subscriptions/sub-1/resourceGroups/rg/providers/Microsoft.CognitiveServices/accounts/mine"


@dataclass
class Token:
    """A token and its end."""

    token: str
    expires_on: int


class SignedIn:
    """A credential that gives one token."""

    async def get_token(self, *scopes: str) -> Token:
        return Token(f"token for {scopes[0]}", 2_000_000_000)

    async def close(self) -> None:
        return


@dataclass
class Management:
    """Replies by path; what was asked."""

    replies: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        assert request.method == "GET"
        assert request.query["api-version"]
        self.asked.append((request.path_qs.partition("?")[0], request.headers["authorization"]))
        key = request.path + (f"#{request.query['page']}" if "page" in request.query else "")
        status, body = self.replies.get(key, (404, {"error": {"code": "ResourceNotFound"}}))
        return web.json_response(body, status=status)


@pytest.fixture
async def management() -> AsyncIterator[Management]:
    scripted = Management()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", scripted.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    scripted.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    scripted.replies = {
        ACCOUNTS: (200, {"value": [{"id": "/other", "properties": {"endpoint": "https://other.openai.azure.com/"}}],
                         "nextLink": f"{scripted.url}{ACCOUNTS}?api-version=x&page=2"}),
        f"{ACCOUNTS}#2": (200, {"value": [
            {"id": MINE, "properties": {"endpoints": {"OpenAI": "https://mine.openai.azure.com/"}}}]}),
        f"{MINE}/deployments/gpt-4.1-batch": (200, {"sku": {"name": "GlobalBatch", "capacity": 30}}),
        f"{MINE}/deployments/chat": (200, {"sku": {"name": "GlobalStandard", "capacity": 100}}),
        f"{MINE}/deployments/odd": (200, {"sku": {"name": "DataZoneBatch", "capacity": None}}),
        f"{MINE}/deployments/secret": (403, {"error": {"code": "AuthorizationFailed"}}),
    }  # fmt: skip
    yield scripted
    await runner.cleanup()


def account(management: Management, *, factory: Callable[[], Credential] = SignedIn, **more: Any) -> AzureAccount:
    settings: dict[str, Any] = {"endpoint": ENDPOINT, "subscription": "sub-1", **more}
    tokens = TokenSource(factory, scope=f"{management.url}/.default", now=lambda: 1_790_000_000.0)
    return AzureAccount(tokens=tokens, management_url=management.url, **settings)


async def test_the_capacity_is_the_limit_in_thousands(management: Management) -> None:
    """The account is found by its host on a later page, once; capacity 30 is a limit of 30,000 tokens."""
    reader = account(management)

    assert await reader.deployment_limit("gpt-4.1-batch") == 30_000
    assert await reader.deployment_limit("gpt-4.1-batch") == 30_000
    assert reader.reason is None
    assert [path for path, _ in management.asked].count(ACCOUNTS) == 2
    assert {token for _, token in management.asked} == {f"Bearer token for {management.url}/.default"}
    await reader.close()


async def test_a_resource_group_narrows_the_search(management: Management) -> None:
    """Only its accounts are listed."""
    listed = "/subscriptions/sub-1/resourceGroups/rg/providers/Microsoft.CognitiveServices/accounts"
    management.replies[listed] = management.replies[f"{ACCOUNTS}#2"]
    reader = account(management, resource_group="rg")

    assert await reader.deployment_limit("gpt-4.1-batch") == 30_000
    assert management.asked[0][0] == listed
    await reader.close()


@pytest.mark.parametrize(
    ("deployment", "why"),
    [("chat", "GlobalStandard"), ("odd", "no capacity"), ("secret", "role Reader"), ("a/b", "HTTP 404")],
)
async def test_what_cannot_be_read_is_none_with_a_reason(management: Management, deployment: str, why: str) -> None:
    """Another type, no number, no right and no such deployment: None, and a sentence."""
    reader = account(management)

    assert await reader.deployment_limit(deployment) is None
    assert reader.reason is not None
    assert why in reader.reason
    await reader.close()


async def test_without_a_subscription_nothing_is_asked(management: Management) -> None:
    """The reason names the setting."""
    reader = account(management, subscription=None)

    assert await reader.deployment_limit("gpt-4.1-batch") is None
    assert reader.reason is not None
    assert "azure_subscription" in reader.reason
    assert management.asked == []
    await reader.close()


async def test_another_account_is_not_taken_for_ours(management: Management) -> None:
    """An endpoint that no account has gives None."""
    reader = account(management, endpoint="https://elsewhere.openai.azure.com")

    assert await reader.deployment_limit("gpt-4.1-batch") is None
    assert "elsewhere" in (reader.reason or "")
    await reader.close()


async def test_a_link_to_another_host_is_not_followed(management: Management) -> None:
    """The token goes to the management API only."""
    management.replies[ACCOUNTS] = (200, {"value": [], "nextLink": "https://elsewhere.example/accounts"})
    reader = account(management)

    assert await reader.deployment_limit("gpt-4.1-batch") is None
    assert len(management.asked) == 1
    await reader.close()


@pytest.mark.parametrize("failure", [AuthenticationFailed("nobody is signed in"), UsageError("not installed")])
async def test_a_sign_in_that_fails_is_tried_once(management: Management, failure: Exception) -> None:
    """A missing login or package is a reason, not an error, and is not asked for again and again."""
    made = []

    def refuse() -> Credential:
        made.append(1)
        raise failure

    reader = account(management, factory=refuse)

    assert await reader.deployment_limit("gpt-4.1-batch") is None
    assert await reader.deployment_limit("gpt-4.1-batch") is None
    assert reader.reason == str(failure)
    assert len(made) == 1
    await reader.close()


async def test_a_management_api_that_is_down_is_a_reason(management: Management) -> None:
    """A refused connection gives None."""
    free = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = free.sockets[0].getsockname()[1]
    free.close()
    await free.wait_closed()
    reader = account(management)
    reader._base = f"http://127.0.0.1:{port}"

    assert await reader.deployment_limit("gpt-4.1-batch") is None
    assert "cannot be reached" in (reader.reason or "")
    await reader.close()


async def test_the_backend_asks_the_account_of_its_endpoint(management: Management) -> None:
    """With a subscription, a key for the data plane and a login for the management API live side by side."""
    settings: dict[str, Any] = {"azure_endpoint": ENDPOINT, "azure_api_key": "key", "credential": SignedIn}
    backend = connect(
        now=lambda: 1_790_000_000.0, azure_subscription="sub-1", management_url=management.url, **settings
    )

    assert await backend.deployment_limit("gpt-4.1-batch") == 30_000
    assert backend.limit_unknown_because is None
    await backend.close()


async def test_openai_has_no_account_to_ask() -> None:
    """None, with the reason."""
    backend = connect(now=lambda: 0.0, api_key="sk-key")

    assert await backend.deployment_limit("gpt-4o") is None
    assert "Azure" in (backend.limit_unknown_because or "")
    await backend.close()
