"""From settings to a backend for one resource: the address, the sign-in, and no call yet.

The SDK is imported with the first call: it takes 26 MB and a quarter of a second, and a check needs neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sluicegate.adapters.backend_batch import READ_RETRIES, BatchBackend, Clients, Timeouts
from sluicegate.adapters.credentials import (
    COGNITIVE_SCOPE,
    MANAGEMENT_URL,
    Credential,
    Scrubber,
    TokenSource,
    default_credential,
    header_safe,
    require_identity,
    surface_of,
)
from sluicegate.core.types import Dialect
from sluicegate.errors import UsageError

if TYPE_CHECKING:
    import httpx2


def connect(
    *, now: Callable[[], float], base_url: str | None = None, api_key: str | None = None,
    azure_endpoint: str | None = None, azure_api_key: str | None = None, azure_ad_token: str | None = None,
    api_version: str | None = None, organization: str | None = None, project: str | None = None,
    use_entra: bool = False, dialect: Dialect | None = None, timeouts: Timeouts | None = None,
    read_retries: int = READ_RETRIES, azure_subscription: str | None = None, azure_resource_group: str | None = None,
    management_url: str = MANAGEMENT_URL, credential: Callable[[], Credential] = default_credential,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> BatchBackend:  # fmt: skip
    """A backend for one resource. No call is made, and no environment variable is read.

    Args:
        now: Unix seconds; the clock's.
        base_url: OpenAI's address, or Azure's ``…/openai/v1``; None for api.openai.com.
        api_key: OpenAI's key; for Azure's v1 surface too, if ``azure_api_key`` is None.
        azure_endpoint: ``https://NAME.openai.azure.com``.
        azure_api_key: Azure's key.
        azure_ad_token: An Entra token got elsewhere; wins over the key.
        api_version: Azure's, for the dated surface.
        organization: OpenAI's organisation.
        project: OpenAI's project.
        use_entra: Sign in with azure-identity's default chain; wins over token and key.
        dialect: Overrides what the address suggests.
        timeouts: How long to wait.
        read_retries: How often a failed read is repeated.
        azure_subscription: Where the account is looked up to read deployment limits.
        azure_resource_group: Narrows that search.
        management_url: Azure's management API.
        credential: Makes an Entra credential.
        transport: In place of the network, for a simulation.

    Raises:
        UsageError: no credentials, or a setting that cannot be.
    """
    surface = surface_of(
        base_url=base_url, azure_endpoint=azure_endpoint, api_version=api_version, dialect=dialect,
        organization=organization, project=project,
    )  # fmt: skip
    azure = surface.dialect is Dialect.AZURE
    tokens: TokenSource | None = None
    key: str | None = None
    token: str | None = None
    if use_entra:
        if not azure:
            raise UsageError("signing in with Entra is for Azure; this address is OpenAI's, set OPENAI_API_KEY")
        if credential is default_credential:
            require_identity()
        tokens = TokenSource(credential, scope=COGNITIVE_SCOPE, now=now)
    elif azure and azure_ad_token:
        token = header_safe(azure_ad_token, "AZURE_OPENAI_AD_TOKEN")
    elif azure:
        key = azure_api_key or (api_key if not surface.dated else None)
        if not key:
            raise UsageError("no credentials for Azure: set AZURE_OPENAI_API_KEY, or sign in with Entra (use_entra)")
        key = header_safe(key, "AZURE_OPENAI_API_KEY")
    else:
        if not api_key:
            raise UsageError(
                "no credentials: set OPENAI_API_KEY, or for Azure AZURE_OPENAI_ENDPOINT and AZURE_OPENAI_API_KEY"
            )
        key = header_safe(api_key, "OPENAI_API_KEY")
    timeouts = timeouts or Timeouts()
    scrub = Scrubber(secrets=tuple(s for s in (key, token) if s), base=surface.host)

    def clients() -> Clients:
        from sluicegate.adapters import sdk

        return Clients(*(
            sdk.client(
                surface, key=key, token=token, tokens=tokens, once=once, timeouts=timeouts, read_retries=read_retries,
                now=now, organization=organization, project=project, transport=transport,
            )
            for once in (False, True)
        ))  # fmt: skip

    account = None
    if azure and (azure_subscription or use_entra):
        from sluicegate.adapters.azure_account import AzureAccount

        scope = f"{management_url.rstrip('/')}/.default"
        account = AzureAccount(
            endpoint=surface.host, subscription=azure_subscription, resource_group=azure_resource_group,
            tokens=TokenSource(credential, scope=scope, now=now), management_url=management_url,
        )  # fmt: skip
    return BatchBackend(
        clients=clients, surface=surface, scrub=scrub, now=now, timeouts=timeouts,
        read_retries=read_retries, tokens=tokens, account=account,
    )  # fmt: skip
