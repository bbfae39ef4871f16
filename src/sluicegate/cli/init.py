"""``sluicegate init``: a settings file to begin with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sluicegate.cli import output
from sluicegate.errors import UsageError


def init(
    path: Annotated[Path, Parameter(name="FILE", help="Where to write it.")] = Path("sluicegate.toml"),
    *,
    force: Annotated[bool, Parameter(negative="", help="Replace the file if there is one.")] = False,
) -> int:
    """Write a settings file with every setting, its meaning and its default, commented out."""
    from sluicegate.settings_file import template

    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it, for instance {path / 'sluicegate.toml'}")
    # Owner only: it is the place where people put keys.
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        handle = os.open(path, flags, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} is there already; name another file, or replace it with --force") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(template())
    console = output.console()
    console.print(
        f"{path} is written; every setting in it is commented out, with its default or else an example.",
        highlight=False,
    )
    console.print(
        "Set azure_endpoint (or leave it to AZURE_OPENAI_ENDPOINT) and limit, then: sluicegate serve", highlight=False
    )
    return 0
