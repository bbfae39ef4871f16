"""The gateway's settings, a part of :class:`~sluicegate.settings.Settings`."""

from __future__ import annotations

from typing import Literal

from pydantic_settings import BaseSettings

from sluicegate.settings_fields import Count, Models, Seconds, setting


class GatewaySettings(BaseSettings):
    """How ``sluicegate serve`` treats its clients. Durations are seconds."""

    gateway_active_max: Count = setting(
        64, "Batches that are driven at once; others wait their turn, tenants taking turns.", section="Gateway",
        unit="batches", ge=1, le=10_000,
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
        200_000_000, "The largest file that a client may upload.", section="Gateway", unit="bytes", ge=1
    )
    gateway_tenant_file_bytes: Count = setting(
        20_000_000_000, "Bytes of files that one tenant may keep.", section="Gateway", unit="bytes", ge=1
    )
    gateway_tenant_batches: Count = setting(
        10_000, "Batches of one tenant that may be open at once.", section="Gateway", unit="batches", ge=1
    )
    gateway_log: Literal["text", "json"] = setting("text", "How log lines look on standard error.", section="Gateway")
    gateway_metrics: Literal["open", "key", "off"] = setting(
        "open",
        "Who may read `/metrics`, which says nothing of tenants: anybody, who has a key, nobody.",
        section="Gateway",
    )
    gateway_keep: Seconds = setting(
        2_592_000.0, "How long ended batches and their output files are kept.", section="Gateway", unit="duration", ge=0
    )
