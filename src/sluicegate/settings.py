"""Every setting, in one place: flags before environment before ``sluicegate.toml`` before defaults.

``Settings.load`` reads the sources and remembers where each value is from; ``Settings(...)`` reads nothing but its
arguments. Unknown keys are errors in every source. ``docs/settings.md`` is generated from here.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal
from urllib.parse import urlsplit

from platformdirs import user_config_path, user_data_path
from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sluicegate.errors import UsageError
from sluicegate.settings_fields import (
    Address,
    Count,
    Models,
    Price,
    Prices,
    Seconds,
    Text,
    Tokens,
    folder,
    setting,
)  # fmt: skip
from sluicegate.settings_gateway import GatewaySettings

FILE_NAME: Final = "sluicegate.toml"
PREFIX: Final = "SLUICEGATE_"

SDK_NAMES: Final[dict[str, str]] = {
    "base_url": "OPENAI_BASE_URL",
    "api_key": "OPENAI_API_KEY",
    "organization": "OPENAI_ORG_ID",
    "project": "OPENAI_PROJECT_ID",
    "azure_endpoint": "AZURE_OPENAI_ENDPOINT",
    "azure_api_key": "AZURE_OPENAI_API_KEY",
    "azure_ad_token": "AZURE_OPENAI_AD_TOKEN",
    "api_version": "OPENAI_API_VERSION",
}
"""The official SDKs' own environment variables (openai-python 3.x, ``OpenAI`` and ``AzureOpenAI``)."""

NOT_SETTINGS: Final = frozenset({"SLUICEGATE_DEBUG", "SLUICEGATE_CONFIG"})
"""Variables with our prefix that steer the command line itself."""

_KUBERNETES: Final = re.compile(r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")
"""What Kubernetes adds to every pod beside a Service named ``sluicegate`` ("service links"): not ours."""

MASK: Final = "********"


class Settings(GatewaySettings):
    """Every setting. Durations are seconds and limits are tokens here, however they were written.

    Attributes are documented by their ``description``; see docs/settings.md.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False)

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    SECTIONS: ClassVar = ("Provider", "Quota and pace", "Trouble", "Parts and files", "Cost", "Machine", "Gateway")

    # Provider
    base_url: Address | None = setting(
        None, "Address of the API, for OpenAI or Azure's v1 surface (`https://NAME.openai.azure.com/openai/v1/`).",
        section="Provider", shown="OpenAI's own",
    )  # fmt: skip
    api_key: SecretStr | None = setting(None, "Key for `base_url`.", section="Provider")
    azure_endpoint: Address | None = setting(
        None, "Azure OpenAI endpoint, `https://NAME.openai.azure.com`.", section="Provider"
    )
    azure_api_key: SecretStr | None = setting(None, "Key of the Azure OpenAI resource.", section="Provider")
    azure_ad_token: SecretStr | None = setting(
        None, "An Entra token that you fetched yourself; it lives about an hour, so prefer `use_entra`.",
        section="Provider",
    )  # fmt: skip
    api_version: Text | None = setting(
        None, "Azure's `api-version`; leave it out for the v1 surface.", section="Provider",
        shown="the last general version",
    )  # fmt: skip
    organization: Text | None = setting(None, "OpenAI organisation id.", section="Provider")
    project: Text | None = setting(None, "OpenAI project id.", section="Provider")
    use_entra: bool = setting(
        False, "Sign in on Azure with Entra's default chain (needs the extra `sluicegate[azure]`).", section="Provider",
        shown="yes, if an Azure endpoint is set and no key or token",
    )  # fmt: skip
    dialect: Literal["auto", "azure", "openai"] = setting(
        "auto", "Whose rules and limits hold: `azure`, `openai`, or `auto` to tell by the address.", section="Provider"
    )
    azure_subscription: Text | None = setting(
        None, "Subscription id; with the login's read right, deployment limits are read from the account.",
        section="Provider",
    )  # fmt: skip
    azure_resource_group: Text | None = setting(
        None, "Resource group of the Azure OpenAI resource; goes with `azure_subscription`.", section="Provider"
    )
    timeout: Seconds = setting(600.0, "The longest that one call may take.", section="Provider", unit="duration", gt=0)

    # Quota and pace
    deployment: Text | None = setting(
        None, "Send every line to this deployment, whatever model it names.", section="Quota and pace",
        shown="the one that each line names",
    )  # fmt: skip
    limit: Tokens | None = setting(
        None, "Enqueued-token limit: your cap per deployment, never exceeded, and corrected downwards when the "
        "provider refuses at less.", section="Quota and pace", unit="tokens", shown="learned from the provider", ge=1,
    )  # fmt: skip
    margin: float = setting(
        1.02, "Factor on every reservation, for what our count may miss.", section="Quota and pace", ge=1, le=10
    )
    poll: Seconds = setting(
        60.0, "The shortest time between two looks at the provider's list.", section="Quota and pace", unit="duration",
        ge=0.05,
    )  # fmt: skip
    poll_max: Seconds = setting(
        600.0, "The longest time between two looks at the provider's list.", section="Quota and pace", unit="duration",
        ge=0.05,
    )  # fmt: skip
    release_lag: Seconds = setting(
        0.0, "How long the provider goes on counting a batch that has ended; what is learned is added.",
        section="Quota and pace", unit="duration", ge=0,
    )  # fmt: skip
    creates_per_hour: Count | None = setting(
        None, "The most batches created in an hour.", section="Quota and pace", unit="batches",
        shown="2,000 on OpenAI, none on Azure", ge=1,
    )  # fmt: skip

    # Trouble
    attempts: Count = setting(
        3, "How often a request is sent at most, if it fails for a passing reason.", section="Trouble", unit="times",
        ge=1, le=100,
    )  # fmt: skip
    stuck_validating: Seconds = setting(
        7_200.0, "After how long in `validating` a batch counts as stuck.", section="Trouble", unit="duration", gt=0
    )
    stuck_in_progress: Seconds = setting(
        129_600.0, "After how long in `in_progress` without progress a batch counts as stuck.", section="Trouble",
        unit="duration", gt=0,
    )  # fmt: skip
    stuck_action: Literal["report", "resubmit"] = setting(
        "resubmit", "What to do with a stuck batch: only `report` it, or cancel it and `resubmit` what it still owes.",
        section="Trouble",
    )  # fmt: skip

    # Parts and files
    requests_max: Count | None = setting(
        None, "The most requests in one part.", section="Parts and files", unit="requests",
        shown="100,000 on Azure, 50,000 on OpenAI", ge=1,
    )  # fmt: skip
    bytes_max: Count = setting(
        200_000_000, "The most bytes in one part.", section="Parts and files", unit="bytes", ge=1
    )
    line_bytes_max: Count = setting(
        64 * 1024 * 1024, "The longest line that is read.", section="Parts and files", unit="bytes", ge=1_024
    )
    files_max: Count | None = setting(
        None, "The most input files kept at the provider at once.", section="Parts and files", unit="files",
        shown="500 on Azure, none on OpenAI", ge=1,
    )  # fmt: skip
    file_expiry: Seconds | None = setting(
        None, "Let the provider delete input files by itself after this long.", section="Parts and files",
        unit="duration", shown="they are deleted when they are no longer needed", gt=0,
    )  # fmt: skip
    keep_provider_files: bool = setting(
        False, "Keep input and result files at the provider until `sluicegate prune`; they count as files there.",
        section="Parts and files",
    )  # fmt: skip

    # Cost
    max_cost: Annotated[float, Field(ge=0)] | None = setting(
        None, "Refuse work that is estimated to cost more, and stop before it does.", section="Cost", unit="USD",
        shown="no bound",
    )  # fmt: skip
    expected_output_tokens: Tokens | None = setting(
        None, "Tokens of a usual answer, for the cost until answers have been measured.", section="Cost", unit="tokens a request",
        shown="input only", ge=0,
    )  # fmt: skip
    models: Models = setting(
        dict, "Table: deployment = model, where the name does not tell it; for counting and prices.", section="Cost",
        shown="none",
    )  # fmt: skip
    prices: Prices = setting(
        dict, "Table: model = { input, cached_input, output }, before the built-in price table.", section="Cost",
        unit="USD per million tokens", shown="none",
    )  # fmt: skip

    # Machine
    state: Annotated[Path, BeforeValidator(folder)] = setting(
        lambda: user_data_path("sluicegate"), "Folder of the ledger and of what runs need to go on; on a local disk.",
        section="Machine", shown="the user's data folder",
    )  # fmt: skip
    workers: Count = setting(
        0,
        "Processes or threads that check and count; 0 is one per CPU.",
        section="Machine",
        unit="workers",
        ge=0,
        le=1_024,
    )

    @model_validator(mode="after")
    def _sign_in(self) -> Settings:
        """On Azure with neither key nor token, Entra is what is left."""
        if "use_entra" not in self.model_fields_set:
            azure = self.azure_endpoint is not None or _is_azure(self.base_url)
            v1 = (self.azure_endpoint or self.base_url or "").rstrip("/").endswith("/v1")
            # Azure's v1 surface takes the key under OpenAI's name too, as the SDK does.
            keys = (self.azure_api_key, self.azure_ad_token, self.api_key if v1 else None)
            # Frozen for others; a default that depends on other fields can only be set once all are known.
            object.__setattr__(self, "use_entra", azure and not any(keys))
        return self

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        """Arguments only: :meth:`load` reads the other sources, so that it can tell where each value is from."""
        return (init_settings,)

    @classmethod
    def load(
        cls, flags: Mapping[str, Any] | None = None, config: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:  # fmt: skip
        """Settings from all sources; the first that has a value wins.

        Args:
            flags: Values given on the command line or as keyword arguments; None means "not given".
            config: The file to read; else ``SLUICEGATE_CONFIG``, else ``./sluicegate.toml``, else the one in the
                user's configuration folder, if it is there.
            environ: The environment; default: the process's.

        Raises:
            UsageError: a key is unknown, a value is wrong, or the file cannot be read.
        """
        environ = os.environ if environ is None else environ
        path = find_file(config, environ)
        sources = [_given(flags or {}), _environment(environ), _sdk_environment(environ)]
        if path is not None:
            sources.append(_file(path))
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for source in sources:
            found = _without_rivals(source, values)
            for name, (value, origin) in found.items():
                if name not in values:
                    values[name], origins[name] = value, origin
        try:
            settings = cls(**values)
        except ValidationError as error:
            raise UsageError(_explain(error, values, origins)) from None
        settings._origins.update(origins)
        return settings

    def origins(self) -> dict[str, str]:
        """Where each value is from: ``argument``, ``environment NAME``, ``file PATH`` or ``default``."""
        names = type(self).model_fields
        given = dict.fromkeys(self.model_fields_set, "argument")
        return {name: self._origins.get(name, given.get(name, "default")) for name in names}

    def shown(self) -> dict[str, str | None]:
        """Every value as a person would write it, secrets masked; None where nothing is set."""
        return {name: _shown(getattr(self, name), field) for name, field in type(self).model_fields.items()}


def _is_azure(address: str | None) -> bool:
    return (urlsplit(address or "").hostname or "").endswith((".azure.com", ".azure.us", ".azure.cn"))


def find_file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The settings file that is in force, or None. A file that was named but is not there is found out when read."""
    named = config or environ.get("SLUICEGATE_CONFIG") or None
    if named is not None:
        return Path(named).expanduser()
    for candidate in (Path(FILE_NAME), user_config_path("sluicegate") / FILE_NAME):
        if candidate.is_file():
            return candidate
    return None


Source = dict[str, tuple[Any, str]]
"""Name → (value, where it is from)."""


def _given(flags: Mapping[str, Any]) -> Source:
    found: Source = {}
    for name, value in flags.items():
        if name not in Settings.model_fields:
            raise UsageError(f"there is no setting {name!r}{_nearest(name, Settings.model_fields)}")
        if value is not None:
            found[name] = (value, "argument")
    return found


def _environment(environ: Mapping[str, str]) -> Source:
    own = {PREFIX + name.upper(): name for name in Settings.model_fields}
    for variable in environ:
        strange = variable.startswith(PREFIX) and variable not in own and variable not in NOT_SETTINGS
        if strange and not _KUBERNETES.fullmatch(variable.removeprefix(PREFIX)):
            raise UsageError(f"the environment has {variable}, which is no setting{_nearest(variable, own)}")
    return _variables(environ, own)


def _sdk_environment(environ: Mapping[str, str]) -> Source:
    return _variables(environ, {variable: name for name, variable in SDK_NAMES.items()})


def _variables(environ: Mapping[str, str], names: Mapping[str, str]) -> Source:
    # As in the SDKs, an empty variable is an unset one.
    set_ = {variable: environ[variable].strip() for variable in names if environ.get(variable, "").strip()}
    return {names[variable]: (value, f"environment {variable}") for variable, value in set_.items()}


def _file(path: Path) -> Source:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"the settings file {path} does not exist; --config names another one") from None
    except OSError as error:
        raise UsageError(f"the settings file {path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    for name in table:
        if name not in Settings.model_fields:
            raise UsageError(f"{path} has the key {name!r}, which is no setting{_nearest(name, Settings.model_fields)}")
    return {name: (value, f"file {path}") for name, value in table.items()}


def _without_rivals(source: Source, above: Mapping[str, Any]) -> Source:
    """Leave out the address that a source above replaced by the other kind: ``--base-url`` beats an Azure endpoint in
    the environment. Two kinds in one source stay, and are refused when the provider is connected."""
    rival = {"azure_endpoint": "base_url", "base_url": "azure_endpoint"}
    return {name: entry for name, entry in source.items() if rival.get(name) not in above}


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    """``; did you mean …?`` for the nearest known name, or where to find them all."""
    wanted = name.strip().replace("-", "_")
    wanted = wanted.upper() if name.startswith(PREFIX) else wanted.lower()
    close = difflib.get_close_matches(wanted, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else "; `sluicegate config` lists all settings"


def _explain(error: ValidationError, values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """The first wrong value, in a sentence; a secret is never repeated."""
    first = error.errors(include_url=False, include_context=True, include_input=False)[0]
    name = str(first["loc"][0])
    if name not in Settings.model_fields:
        return f"there is no setting {name!r}{_nearest(name, Settings.model_fields)}"
    where = ".".join(str(step) for step in first["loc"] if isinstance(step, str) and not step.startswith("function-"))
    said = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    value = values.get(name)
    # An address may have a password in it; a value that its sentence repeats is not said twice.
    hidden = _is_secret(Settings.model_fields[name]) or "@" in str(value) or repr(value) in said
    shown = f" {value!r}" if isinstance(value, str | int | float) and not hidden else ""
    origin = origins.get(name, "argument")
    came = "" if origin == "argument" else f" (from {origin})"
    return f"the setting {where}{shown} is wrong: {said[:1].lower() + said[1:]}{came}"


def _is_secret(field: FieldInfo) -> bool:
    return "SecretStr" in str(field.annotation)


def _extra(field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    assert isinstance(extra, dict), "every setting has a section"
    return extra


def _shown(value: Any, field: FieldInfo) -> str | None:
    if value is None:
        return None
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _extra(field)["unit"] == "duration":
        return format_duration(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        plain = {k: v.model_dump(exclude_none=True) if isinstance(v, Price) else v for k, v in value.items()}
        return json.dumps(plain, ensure_ascii=False) if plain else "none"
    return str(value)


def format_duration(seconds: float) -> str:
    """A duration as the settings take it: ``0.5s``, ``60s``, ``10m``, ``36h``."""
    for unit, size in (("h", 3_600), ("m", 60)):
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds / size:,.0f}{unit}"
    return f"{seconds:g}s"


def settings_markdown() -> str:
    """The tables of docs/settings.md, one section after the other."""
    blocks = []
    for section in Settings.SECTIONS:
        rows = ["| Setting | Environment | Default | Unit | What it is |", "|---|---|---|---|---|"]
        for name, field in Settings.model_fields.items():
            extra = _extra(field)
            if extra["section"] != section:
                continue
            variables = [PREFIX + name.upper(), *([SDK_NAMES[name]] if name in SDK_NAMES else [])]
            default = extra["shown"] or _default(field)
            said = field.description or ""
            cells = (f"`{name}`", ", ".join(f"`{v}`" for v in variables), default, extra["unit"], said)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        blocks.append(f"## {section}\n\n" + "\n".join(rows))
    return "\n\n".join(blocks) + "\n"


def _default(field: FieldInfo) -> str:
    factory: Callable[[], Any] | None = field.default_factory  # type: ignore[assignment]
    value = _shown(factory() if factory is not None else field.default, field)
    return "none" if value is None else f"`{value}`"
