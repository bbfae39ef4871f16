"""The kinds of settings: how people may write tokens, durations, counts and addresses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from sluicegate.core.limits import parse_duration, parse_tokens


def _text(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _tokens(value: object) -> object:
    return parse_tokens(value) if isinstance(value, str) else _number(value)


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else _number(value)


def _count(value: object) -> object:
    """A count as people write it, ``100,000`` and ``100_000`` included."""
    if isinstance(value, str):
        plain = value.strip().replace(",", "").replace("_", "")
        if not plain.isdecimal():
            raise ValueError(f"{value!r} is not a whole number")
        return int(plain)
    return _number(value)


def _number(value: object) -> object:
    # True is an int in Python; as a number of anything it is a mistake.
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is not a number")
    return value


def _address(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = urlsplit(value.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an address; it starts with https:// (or http:// for a local server) and names a host")
    if parts.username or parts.password:
        raise ValueError("an address must not carry a user name or password; set the key as a setting of its own")
    return value.strip()


def table(value: object) -> object:
    """A table from an environment variable is a JSON object."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        why = f"{error.msg} at character {error.pos + 1}"
        raise ValueError(f'not a JSON object such as {{"name": …}} ({why})') from None


def folder(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str | Path) and str(value).strip() else value


Tokens = Annotated[int, BeforeValidator(_tokens)]
Seconds = Annotated[float, BeforeValidator(_duration)]
Count = Annotated[int, BeforeValidator(_count)]
Text = Annotated[str, BeforeValidator(_text), Field(min_length=1)]
Address = Annotated[str, BeforeValidator(_address)]


class Price(BaseModel):
    """What a model costs through the batch API, USD per million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)] = 0.0
    cached_input: Annotated[float, Field(ge=0)] | None = None

    @property
    def all(self) -> tuple[float, float | None, float]:
        """Input, cached input, output, as :mod:`sluicegate.core.prices` has them."""
        return self.input, self.cached_input, self.output


Prices = Annotated[dict[str, Price], BeforeValidator(table)]
Models = Annotated[dict[str, str], BeforeValidator(table)]


def setting(
    default: Any, description: str, *, section: str, unit: str = "", shown: str | None = None, **rules: Any
) -> Any:  # fmt: skip
    """A field with what its line in docs/settings.md says. ``shown``: the default in words, where it depends."""
    extra: dict[str, JsonValue] = {"section": section, "unit": unit, "shown": shown}
    if callable(default):
        return Field(default_factory=default, description=description, json_schema_extra=extra, **rules)
    return Field(default=default, description=description, json_schema_extra=extra, **rules)
