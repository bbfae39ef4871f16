"""Where the provider is and who asks: the address, keys, Entra tokens, and keeping all of them out of messages.

Entra tokens come from azure-identity's default chain, are kept while they live and renewed when they are refused.
``azure-identity`` comes with the extra ``sluicegate[azure]`` and is imported when it is first needed.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, cast
from urllib.parse import parse_qsl, urlsplit

from sluicegate.core.types import Dialect
from sluicegate.errors import AuthenticationFailed, Unavailable, UsageError

API_VERSION: Final = "2024-10-21"
"""Azure's last general api-version with batches; the v1 surface needs none."""

OPENAI_URL: Final = "https://api.openai.com/v1"

MESSAGE_CHARS_MAX: Final = 1_000
"""A provider's sentence is cut here: some gateways answer with whole pages."""

MANAGEMENT_URL: Final = "https://management.azure.com"
COGNITIVE_SCOPE: Final = "https://cognitiveservices.azure.com/.default"
"""The scope of Azure OpenAI's data plane (Microsoft's batch how-to, 2026)."""

RENEW_BEFORE_S: Final = 600.0
"""A token is renewed this long before its end: none runs out under way, and a sign-in that fails may recover."""

_LOGIN_TIMEOUT_S: Final = 120.0
_AZURE_HOSTS: Final = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com", ".azure.us")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """Where the provider is and which of its three faces is spoken to.

    Attributes:
        dialect: Whose rules hold.
        base_url: What ``/files`` and ``/batches`` are appended to.
        dated: True for Azure's surface that wants an ``api-version`` on every call.
        query: What else goes into every call's query.
        resource: The port's name for it, the same for both of Azure's surfaces.
    """

    dialect: Dialect
    base_url: str
    dated: bool
    query: tuple[tuple[str, str], ...]
    resource: str

    @property
    def host(self) -> str:
        """Scheme, host and port."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def path(self) -> str:
        """What stands before ``/files`` and ``/batches``."""
        return urlsplit(self.base_url).path.rstrip("/")


def surface_of(
    *, base_url: str | None = None, azure_endpoint: str | None = None, api_version: str | None = None,
    dialect: Dialect | None = None, organization: str | None = None, project: str | None = None,
) -> Surface:  # fmt: skip
    """Find out from the address which of the three surfaces it is.

    An Azure endpoint means the dated surface, unless it ends in ``/openai/v1``. A base URL is Azure's if its host is,
    or if ``openai`` is a segment of its path; with ``/v1`` at the end it is the v1 surface.

    Raises:
        UsageError: two addresses, or one that is no http(s) URL.
    """
    if base_url and azure_endpoint:
        raise UsageError(
            "a base URL and an Azure endpoint are both set; set one (OPENAI_BASE_URL, AZURE_OPENAI_ENDPOINT)"
        )
    given = (azure_endpoint or base_url or OPENAI_URL).strip()
    parts = urlsplit(given)
    try:
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        host, port = "", None
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"the address {Scrubber()(given)!r} is no http or https URL")
    origin = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}"
    if port is not None and port != {"http": 80, "https": 443}[parts.scheme]:
        origin += f":{port}"
    path = re.sub(r"/{2,}", "/", parts.path).rstrip("/")
    segments = path.split("/")
    azure = dialect is Dialect.AZURE if dialect else bool(
        azure_endpoint or host.endswith(_AZURE_HOSTS) or "openai" in segments
    )  # fmt: skip
    query = dict(parse_qsl(parts.query))
    if not azure:
        owner = "/".join(name for name in (organization, project) if name)
        resource = f"{origin}{path}#{owner}" if owner else f"{origin}{path}"
        return Surface(
            dialect=Dialect.OPENAI,
            base_url=f"{origin}{path}",
            dated=False,
            query=tuple(query.items()),
            resource=resource,
        )
    before = "/".join(segments[: segments.index("openai")]) if "openai" in segments else path
    resource = f"{origin}{before.removesuffix('/v1')}"
    if segments[-1] == "v1":
        # A dated version, as OPENAI_API_VERSION often holds, would be refused here; one in the address itself goes.
        return Surface(
            dialect=Dialect.AZURE,
            base_url=f"{origin}{path}",
            dated=False,
            query=tuple(query.items()),
            resource=resource,
        )
    # An endpoint ends before /openai, whatever was pasted; a base URL is taken as it stands.
    dated_path = f"{before}/openai" if azure_endpoint or "openai" not in segments else path
    version = api_version or query.get("api-version") or API_VERSION
    return Surface(
        dialect=Dialect.AZURE, base_url=f"{origin}{dated_path}", dated=True,
        query=tuple({**query, "api-version": version}.items()), resource=resource,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrubber:
    """Takes keys and addresses out of texts that people or logs will see.

    Attributes:
        secrets: Values that must never be shown.
        base: The resource's ``scheme://host``, shown as "the resource".
    """

    secrets: tuple[str, ...] = field(default=(), repr=False)
    base: str = ""

    def __call__(self, text: str) -> str:
        for secret in self.secrets:
            if len(secret) >= 4:
                text = text.replace(secret, "…")
        for pattern, shown in _SECRETS:
            text = pattern.sub(shown, text)
        if self.base:
            text = re.sub(re.escape(self.base) + r"[^\s'\"<>]*", "the resource", text, flags=re.IGNORECASE)
        text = " ".join(text.split())
        return text if len(text) <= MESSAGE_CHARS_MAX else text[: MESSAGE_CHARS_MAX - 1] + "…"


_SECRETS: Final = (
    (re.compile(r"\bsk-[A-Za-z0-9_*\-]{4,}"), "sk-…"),
    (re.compile(r"\b[Bb]earer\s+[A-Za-z0-9._~+/=\-]{8,}"), "Bearer …"),
    (re.compile(r"\beyJ[A-Za-z0-9_\-]+\.[A-Za-z0-9_.\-]+"), "…"),
    (re.compile(r"\bsig=[^&\s'\"]+"), "sig=…"),
)


def header_safe(secret: str, name: str) -> str:
    """A key as it goes into a header, without the line end that files and copies bring along.

    Args:
        secret: The key or token.
        name: The variable it is usually set by, for the message.

    Raises:
        UsageError: it cannot be a key.
    """
    secret = secret.strip()
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise UsageError(
            f"{name} is set to something that is no key: it is empty or has blanks or letters beyond ASCII"
        )
    return secret


class AccessToken(Protocol):
    """A token and its end, Unix seconds."""

    @property
    def token(self) -> str: ...

    @property
    def expires_on(self) -> int: ...


class Credential(Protocol):
    """The part of azure-core's ``AsyncTokenCredential`` that is used here."""

    async def get_token(self, *scopes: str) -> AccessToken:
        """A token for the scopes; may talk to the network or start a program."""

    async def close(self) -> None:
        """Close connections."""


def require_identity() -> None:
    """Say before anything is sent whether :func:`default_credential` can be made.

    Raises:
        UsageError: azure-identity is not installed.
    """
    try:
        found = importlib.util.find_spec("azure.identity.aio")
    except ImportError:  # not even a package named azure
        found = None
    if found is None:
        raise UsageError(
            "signing in with Entra needs the package azure-identity: pip install 'sluicegate[azure]', or use a key "
            "(AZURE_OPENAI_API_KEY)"
        )


def default_credential() -> Credential:
    """azure-identity's default chain: environment, workload and managed identity, ``az``, ``azd``, PowerShell.

    Raises:
        UsageError: the package is not installed.
    """
    require_identity()
    # By name, so that type checking needs no extra either.
    return cast(Credential, importlib.import_module("azure.identity.aio").DefaultAzureCredential())


class TokenSource:
    """Gives the current token of one scope; an async function for the SDK's token providers.

    Args:
        factory: Makes a credential. Called again for each renewal: azure-identity keeps tokens inside a credential, so
            only a new one is sure to bring a new token.
        scope: What the token is for.
        now: Unix seconds.
    """

    def __init__(self, factory: Callable[[], Credential], *, scope: str, now: Callable[[], float]) -> None:
        self._factory = factory
        self._scope = scope
        self._now = now
        self._credential: Credential | None = None
        self._token: AccessToken | None = None
        self._lock = asyncio.Lock()
        self.generation = 0
        """How many times a renewal was forced."""

    async def __call__(self) -> str:
        """The token.

        Raises:
            AuthenticationFailed: nobody is signed in.
            Unavailable: the sign-in service cannot be reached.
        """
        async with self._lock:
            token = self._token
            if token is None or token.expires_on - self._now() < RENEW_BEFORE_S:
                if self._credential is None:
                    self._credential = self._factory()
                try:
                    token = self._token = await self._fetch(self._credential)
                except (AuthenticationFailed, Unavailable):
                    # A network that is down for a while is no reason to stop while the old token still opens doors.
                    if token is None or token.expires_on <= self._now():
                        raise
            return token.token

    async def renew(self, generation: int) -> None:
        """Force a new token, unless someone has done so since ``generation`` was read."""
        async with self._lock:
            if generation != self.generation:
                return
            old, self._credential, self._token = self._credential, None, None
            self.generation += 1
            if old is not None:
                await old.close()

    async def close(self) -> None:
        """Close the credential's connections."""
        async with self._lock:
            old, self._credential, self._token = self._credential, None, None
            if old is not None:
                await old.close()

    async def _fetch(self, credential: Credential) -> AccessToken:
        try:
            async with asyncio.timeout(_LOGIN_TIMEOUT_S):
                return await credential.get_token(self._scope)
        except _azure_error("ClientAuthenticationError") as error:
            raise AuthenticationFailed(
                f"signing in with Entra failed: {_first_lines(error)}. Sign in with `az login`, or set "
                "AZURE_CLIENT_ID, AZURE_TENANT_ID and a secret, or use a key (AZURE_OPENAI_API_KEY)"
            ) from error
        except (_azure_error("AzureError"), OSError, TimeoutError) as error:
            raise Unavailable(f"cannot reach Entra to sign in: {_first_lines(error)}") from error


def _azure_error(name: str) -> type[Exception]:
    """A class of azure-core's errors; one that nothing raises where the package is missing."""
    try:
        return cast(type[Exception], getattr(importlib.import_module("azure.core.exceptions"), name))
    except ImportError:
        return _NoSuchError


class _NoSuchError(Exception):
    """Stands for an error of a package that is not installed."""


def _first_lines(error: BaseException) -> str:
    """The beginning of azure-identity's long messages: what it tried last is the least useful."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:400].rstrip(". ") or type(error).__name__
