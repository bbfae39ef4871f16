"""What Azure's management API tells of a deployment: its enqueued-token limit. Read-only, and never needed.

A batch deployment has ``sku.name`` ``GlobalBatch`` or ``DataZoneBatch`` and ``sku.capacity`` in thousands of enqueued
tokens; what is enforced is this capacity, not the subscription's quota (learn.microsoft.com, foundry/openai
quotas-limits and how-to/batch, 2026; the factor from users' error texts, learn.microsoft.com/answers 2285577). Reading
it takes the role Reader; where the sign-in may not, the limit is simply not known from here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx2

from sluicegate.adapters import wire
from sluicegate.adapters.credentials import MANAGEMENT_URL, TokenSource
from sluicegate.errors import SluicegateError

MANAGEMENT_API_VERSION: Final = "2024-10-01"
TOKENS_PER_UNIT: Final = 1_000
BATCH_SKUS: Final = frozenset({"globalbatch", "datazonebatch"})
ACCOUNT_PAGES_MAX: Final = 20

_PROVIDER: Final = "providers/Microsoft.CognitiveServices/accounts"


class _Unreadable(Exception):
    """The management API did not tell; the message is the reason."""


class AzureAccount:
    """Reads deployment limits of the account behind one endpoint.

    Args:
        endpoint: The resource's endpoint; its host identifies the account.
        subscription: The subscription's id, or None: then nothing can be read.
        resource_group: Narrows the search.
        tokens: The sign-in for ``{management_url}/.default``.
        management_url: Another cloud's address, or a test's.
        timeout_s: For one reply.
    """

    def __init__(
        self, *, endpoint: str, subscription: str | None, tokens: TokenSource, resource_group: str | None = None,
        management_url: str = MANAGEMENT_URL, timeout_s: float = 20.0,
    ) -> None:  # fmt: skip
        self._host = (urlsplit(endpoint).hostname or "").lower()
        self._subscription = subscription
        self._resource_group = resource_group
        self._tokens = tokens
        self._base = management_url.rstrip("/")
        self._timeout_s = timeout_s
        self._http: httpx2.AsyncClient | None = None
        self._account: str | None = None
        self._closed_to_us: str | None = None
        self.reason: str | None = None
        """Why the last :meth:`deployment_limit` was None, a sentence; None if it was not."""

    async def deployment_limit(self, deployment: str) -> int | None:
        """The deployment's enqueued-token limit in tokens, or None: then :attr:`reason` says why. Raises nothing."""
        try:
            limit = await self._limit(deployment)
        except _Unreadable as error:
            self.reason = str(error)
            return None
        except SluicegateError as error:
            # The sign-in failed. It will not mend by itself, and asking again costs seconds each time.
            self._closed_to_us = self.reason = str(error)
            return None
        self.reason = None
        return limit

    async def close(self) -> None:
        """Close connections."""
        if self._http is not None:
            await self._http.aclose()
        await self._tokens.close()

    async def _limit(self, deployment: str) -> int:
        if self._closed_to_us is not None:
            raise _Unreadable(self._closed_to_us)
        if self._subscription is None:
            raise _Unreadable("no subscription is set (azure_subscription), so the account cannot be looked up")
        if self._account is None:
            self._account = await self._find_account()
        found = await self._get(f"{self._account}/deployments/{quote(deployment, safe='')}", f"deployment {deployment}")
        sku = found.get("sku")
        sku = sku if isinstance(sku, dict) else {}
        name, capacity = sku.get("name"), sku.get("capacity")
        if not isinstance(name, str) or name.lower() not in BATCH_SKUS:
            raise _Unreadable(f"deployment {deployment} is of type {name}, which cannot run batches")
        if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity <= 0:
            raise _Unreadable(f"deployment {deployment} has no capacity that could be read")
        return capacity * TOKENS_PER_UNIT

    async def _find_account(self) -> str:
        """The account's resource id, by the host of its endpoint."""
        scope = f"/subscriptions/{quote(self._subscription or '', safe='')}"
        if self._resource_group:
            scope += f"/resourceGroups/{quote(self._resource_group, safe='')}"
        async for account in self._accounts(f"{scope}/{_PROVIDER}"):
            resource_id = account.get("id")
            if isinstance(resource_id, str) and resource_id.startswith("/") and self._host in _hosts(account):
                return re.sub(r"[?#].*", "", resource_id)
        raise _Unreadable(f"no account of this subscription has the endpoint {self._host}")

    async def _accounts(self, path: str) -> AsyncIterator[dict[str, Any]]:
        for _ in range(ACCOUNT_PAGES_MAX):
            page = await self._get(path, "the accounts")
            for account in page.get("value") or ():
                if isinstance(account, dict):
                    yield account
            following = page.get("nextLink")
            # The token goes to the management API only, wherever a link may point.
            if not isinstance(following, str) or not following.startswith(f"{self._base}/"):
                return
            path = following.removeprefix(self._base)

    async def _get(self, path: str, what: str) -> dict[str, Any]:
        token = await self._tokens()
        if self._http is None:
            self._http = httpx2.AsyncClient(timeout=self._timeout_s, follow_redirects=False)
        url = f"{self._base}{path}"
        if "api-version=" not in url:
            url += f"?api-version={MANAGEMENT_API_VERSION}"
        try:
            reply = await self._http.get(url, headers={"Authorization": f"Bearer {token}"})
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise _Unreadable(f"Azure's management API cannot be reached ({type(error).__name__})") from error
        if reply.status_code in (401, 403):
            self._closed_to_us = (
                f"the sign-in may not read {what} in Azure's management API (HTTP {reply.status_code}); the role "
                "Reader on the resource would let it"
            )
            raise _Unreadable(self._closed_to_us)
        value = wire.decode(reply.content)
        if reply.status_code != 200 or not isinstance(value, dict):
            raise _Unreadable(f"Azure's management API answers HTTP {reply.status_code} for {what}")
        return value


def _hosts(account: dict[str, Any]) -> frozenset[str]:
    """The hosts of an account's endpoints, lower case."""
    properties = account.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    endpoints = properties.get("endpoints")
    urls = [properties.get("endpoint"), *(endpoints.values() if isinstance(endpoints, dict) else ())]
    return frozenset((urlsplit(url).hostname or "").lower() for url in urls if isinstance(url, str))
