"""The gateway's settings, a part of :class:`~sluicegate.settings.Settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings

from sluicegate.settings_fields import Count, Models, Seconds, Tokens, setting, table


class TenantLimits(BaseModel):
    """What one tenant may have at once, and do; None: as much as it likes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batches: Annotated[Count, Field(ge=1)] | None = None
    requests: Annotated[Count, Field(ge=1)] | None = None
    tokens: Annotated[Tokens, Field(ge=1)] | None = None
    file_bytes: Annotated[Count, Field(ge=1)] | None = None
    creates_per_minute: Annotated[Count, Field(ge=1, le=10_000)] | None = None
    spend: Annotated[float, Field(ge=0)] | None = None


Tenants = Annotated[dict[str, TenantLimits], BeforeValidator(table)]


class GatewaySettings(BaseSettings):
    """How ``sluicegate serve`` treats its clients. Durations are seconds."""

    gateway_active_max: Count = setting(
        64, "Batches that are driven at once, and one more of each tenant that has none; others wait their turn, tenants "
        "taking turns.", section="Gateway", unit="batches", ge=1, le=10_000,
    )  # fmt: skip
    gateway_due: Literal["expire", "continue"] = setting(
        "expire", "At the end of its completion window a batch ends as `expired` (OpenAI's way) or goes on (Azure's).",
        section="Gateway",
    )  # fmt: skip
    gateway_models: Models = setting(
        dict, "Names that clients use, with the deployment that serves each; other names are errors. Empty: clients name "
        "deployments.", section="Gateway", shown="{}",
    )  # fmt: skip
    gateway_strict: bool = setting(
        False, "Refuse what the provider alone would refuse: several models or too many lines in a file, other completion "
        "windows than 24h.", section="Gateway",
    )  # fmt: skip
    gateway_file_bytes_max: Count = setting(
        536_870_912,
        "The largest file that a client may upload; it is cut to what the provider takes.",
        section="Gateway",
        unit="bytes",
        ge=1,
    )
    gateway_tenant_file_bytes: Count = setting(
        20_000_000_000, "Bytes of files that one tenant may keep.", section="Gateway", unit="bytes", ge=1
    )
    gateway_tenant_batches: Count = setting(
        10_000, "Batches of one tenant that may be open at once.", section="Gateway", unit="batches", ge=1
    )
    gateway_blobs: str = setting(
        "", "Containers, separated by commas, that clients may name in `input_blob` and `output_folder`, as "
        "`https://ACCOUNT.blob.core.windows.net/CONTAINER`. Empty: none.", section="Gateway",
    )  # fmt: skip
    gateway_blob_sas: SecretStr | None = setting(
        None, "Shared access signature (the query string) with which they are read and written.", section="Gateway"
    )
    gateway_blobs_private: bool = setting(
        False,
        "Their hosts may have addresses of a private network, as with Azurite or private endpoints.",
        section="Gateway",
    )
    gateway_entra_issuer: str = setting(
        "", "Take tokens of this issuer beside keys, as `https://login.microsoftonline.com/TENANT/v2.0`.",
        section="Gateway",
    )  # fmt: skip
    gateway_entra_audience: str = setting("", "The audience (`aud`) that a token must be for.", section="Gateway")
    gateway_entra_jwks: str = setting(
        "", "Where the issuer publishes its keys: an https address or a file.", section="Gateway"
    )
    gateway_entra_tenant_claim: str = setting(
        "azp", "The claim that names the gateway's tenant; `azp` is the calling application.", section="Gateway"
    )
    gateway_tls_cert: Path | None = setting(
        None, "Certificate file (PEM, with its chain): the gateway speaks https.", section="Gateway", shown="plain http"
    )
    gateway_tls_key: Path | None = setting(
        None, "Private key file of the certificate, if it is not in the same file.", section="Gateway"
    )
    gateway_proxies: str = setting(
        "", "Addresses, separated by commas, of proxies whose `X-Forwarded-*` headers are believed; `*` for all.",
        section="Gateway",
    )  # fmt: skip
    gateway_body_idle: Seconds = setting(
        60.0, "A request whose body stops coming for so long is ended.", section="Gateway", unit="duration", gt=0
    )
    gateway_connections_max: Count = setting(
        5_000, "Connections at once; one more is answered 503, which the SDKs repeat. Fewer where the process may open fewer "
        "files.", section="Gateway", unit="connections", ge=1,
    )  # fmt: skip
    gateway_log: Literal["text", "json"] = setting("text", "How log lines look on standard error.", section="Gateway")
    gateway_metrics: Literal["open", "key", "off"] = setting(
        "open",
        "Who may read `/metrics`, which says nothing of tenants: anybody, who has a key, nobody.",
        section="Gateway",
    )
    gateway_tenant_requests: Annotated[Count, Field(ge=1)] | None = setting(
        None, "Requests that one tenant's open batches may have together.", section="Gateway", shown="no limit"
    )
    gateway_tenant_tokens: Annotated[Tokens, Field(ge=1)] | None = setting(
        None, "Tokens that one tenant's open batches may have together (bytes ÷ 4 until they are checked).",
        section="Gateway", unit="tokens", shown="no limit",
    )  # fmt: skip
    gateway_tenant_creates_per_minute: Annotated[Count, Field(ge=1, le=10_000)] | None = setting(
        None, "Batches that one tenant may create within a minute.", section="Gateway", shown="no limit"
    )
    gateway_tenant_spend: Annotated[float, Field(ge=0)] | None = setting(
        None, "What one tenant's answers of the last 30 days may have cost before it may create no more; what is open then "
        "goes on.", section="Gateway", unit="USD", shown="no limit",
    )  # fmt: skip
    gateway_tenants: Tenants = setting(
        dict, "Limits of single tenants: batches, requests, tokens, file_bytes, creates_per_minute, spend; they replace "
        "those of everybody.", section="Gateway", shown="{}",
    )  # fmt: skip
    gateway_keep: Seconds = setting(
        2_592_000.0, "How long ended batches and their output files are kept, and input files without `expires_after` after "
        "their last use (the upload, or the end of the last batch made of them).", section="Gateway", unit="duration", ge=0,
    )  # fmt: skip
