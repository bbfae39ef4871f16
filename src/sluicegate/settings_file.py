"""The settings file that ``sluicegate init`` writes: every setting with what it means, commented out."""

from __future__ import annotations

import json
import textwrap
from typing import Any, Final

from sluicegate.settings import SDK_NAMES, Settings

HEAD: Final = """\
# Settings of sluicegate. A line counts once its leading "# " is gone; what is left out has its default,
# which is what is shown where there is one; the rest are examples.
# Flags and environment variables (SLUICEGATE_NAME) come before this file. Keys are better kept in the environment.
"""

EXAMPLES: Final[dict[str, Any]] = {
    "base_url": "https://api.openai.com/v1", "azure_endpoint": "https://NAME.openai.azure.com", "limit": "30K",
    "api_key": "sk-…", "azure_api_key": "…", "azure_ad_token": "…", "api_version": "2024-10-21",
    "organization": "org-…", "project": "proj_…", "azure_subscription": "00000000-0000-0000-0000-000000000000",
    "azure_resource_group": "my-group", "state": "/var/lib/sluicegate", "deployment": "gpt-4.1-batch",
    "models": {"my-deployment": "gpt-4.1"}, "max_cost": 100, "creates_per_hour": 2_000,
    "requests_max": 50_000, "files_max": 500, "file_expiry": "14d", "expected_output_tokens": 500,
    "prices": {"gpt-4.1": {"input": 1.0, "output": 4.0}}, "gateway_models": {"gpt-4.1": "gpt-4.1-batch"},
    "gateway_tenants": {"search": {"tokens": "5M", "creates_per_minute": 60}},
    "gateway_tenant_tokens": "50M", "gateway_tenant_requests": 1_000_000, "gateway_tenant_creates_per_minute": 60,
    "gateway_tenant_spend": 500, "gateway_tls_cert": "/etc/sluicegate/cert.pem",
    "gateway_tls_key": "/etc/sluicegate/key.pem", "gateway_blob_sas": "sv=…&sig=…",
    "gateway_blobs": "https://ACCOUNT.blob.core.windows.net/batches",
}  # fmt: skip
"""What stands there where the default is nothing."""


def template() -> str:
    """The whole file; uncommented it is valid TOML, and so is every line of it alone."""
    blocks = [HEAD]
    for section in Settings.SECTIONS:
        lines = [f"# ---- {section} {'-' * (70 - len(section))}"]
        for name, field in Settings.model_fields.items():
            extra = field.json_schema_extra
            assert isinstance(extra, dict), "every setting has its section"
            if extra["section"] != section or name == "config":
                continue
            words = field.description or ""
            if name in SDK_NAMES:
                words += f" [{SDK_NAMES[name]}]"
            lines += ["", *(f"## {line}" for line in textwrap.wrap(words, 110)), f"# {name} = {_value(name, field)}"]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _value(name: str, field: Any) -> str:
    default = field.default_factory() if field.default_factory is not None else field.default
    return _toml(EXAMPLES[name] if default is None or name in EXAMPLES else default)


def _toml(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False)
