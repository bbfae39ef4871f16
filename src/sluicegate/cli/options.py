"""The options that commands share. Values stay texts here: :mod:`sluicegate.settings` reads and judges them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Group, Parameter

from sluicegate.errors import UsageError

if TYPE_CHECKING:
    from sluicegate.settings import Settings

PROVIDER = Group("Provider and quota", sort_key=2)
OUTPUT = Group("Output and settings", sort_key=3)

NOT_SETTINGS = frozenset({"config", "json", "debug", "pairs"})
"""Fields of the option classes that are no settings."""

LARGE: Final = 8 << 20
"""Bytes from which worker processes are worth starting (:data:`sluicegate.service.intake.SMALL`)."""

STDIN_WORD = "\0-"
"""How ``main`` hands a lone hyphen through the parser, which takes it for an option. No real argument has a NUL."""


def names_of(inputs: tuple[str, ...]) -> list[str]:
    """Inputs as the person wrote them."""
    return ["-" if name == STDIN_WORD else name for name in inputs]


def flag(group: Group, text: str) -> Parameter:
    """A switch that is off unless it is given."""
    return Parameter(group=group, negative=(), show_default=False, help=text)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Options of every command that reads settings: the provider, the data folder. None means "not given"."""

    base_url: Annotated[
        str | None,
        Parameter(group=PROVIDER, metavar="URL", help="Address of the API. [env: OPENAI_BASE_URL] [default: OpenAI's]"),
    ] = None
    azure_endpoint: Annotated[
        str | None,
        Parameter(
            group=PROVIDER, metavar="URL",
            help="Azure OpenAI endpoint, https://NAME.openai.azure.com. [env: AZURE_OPENAI_ENDPOINT]",
        ),
    ] = None  # fmt: skip
    api_version: Annotated[
        str | None,
        Parameter(
            group=PROVIDER, metavar="DATE",
            help="Azure's api-version. [env: OPENAI_API_VERSION] [default: the last general one]",
        ),
    ] = None  # fmt: skip
    state: Annotated[
        str | None,
        Parameter(
            group=OUTPUT, metavar="DIR", help="Folder of the ledger and of unfinished runs. [default: user data folder]"
        ),
    ] = None  # fmt: skip
    config: Annotated[
        Path | None,
        Parameter(
            group=OUTPUT, metavar="FILE",
            help="Settings file. [env: SLUICEGATE_CONFIG] [default: ./sluicegate.toml or the user's, if there is one]",
        ),
    ] = None  # fmt: skip
    pairs: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set", group=OUTPUT, metavar="NAME=VALUE", negative=(), show_default=False,
            help="Any other setting, as --set margin=1.05; may be repeated. `sluicegate config` lists them.",
        ),
    ] = ()  # fmt: skip
    json: Annotated[bool, flag(OUTPUT, "Print JSON for machines.")] = False
    debug: Annotated[bool, flag(OUTPUT, "Show the traceback of an error. [env: SLUICEGATE_DEBUG]")] = False


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Target(Where):
    """And of those that plan work for a deployment."""

    deployment: Annotated[
        str | None,
        Parameter(group=PROVIDER, metavar="NAME", help="The deployment to use. [default: what each line names]"),
    ] = None
    limit: Annotated[
        str | None,
        Parameter(
            group=PROVIDER, metavar="TOKENS",
            help="Enqueued-token limit, as 30K, 1.5M or 5B: your cap. [default: learned from the provider]",
        ),
    ] = None  # fmt: skip


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Paced(Target):
    """And of those that look at the provider again and again."""

    poll: Annotated[
        str | None,
        Parameter(
            group=PROVIDER, metavar="TIME",
            help="The shortest time between two looks at the provider's list. [default: 60s]",
        ),
    ] = None  # fmt: skip


def is_large(names: Sequence[str]) -> bool:
    """True if worker processes are worth starting for these inputs."""
    return sum(Path(name).stat().st_size for name in names if Path(name).is_file()) > LARGE


def load(common: Where, **more: Any) -> Settings:
    """The settings in force: ``common`` and ``more`` are the command line's part, None where nothing was given.

    Raises:
        UsageError: a setting is unknown or wrong, or given twice.
    """
    from sluicegate.settings import Settings

    flags = {f.name: getattr(common, f.name) for f in fields(common) if f.name not in NOT_SETTINGS} | more
    for pair in common.pairs:
        name, equals, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"--set {pair} has no value; write --set NAME=VALUE")
        if name in ("api_key", "azure_api_key", "azure_ad_token"):
            raise UsageError(
                f"--set {name}=… would show the secret to everybody on this machine (ps); set it in the environment"
            )
        if flags.get(name) is not None:
            raise UsageError(f"the setting {name} is given twice on the command line")
        flags[name] = value
    return Settings.load(flags, common.config)
