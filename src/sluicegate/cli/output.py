"""Where commands print: one console for results, plain standard error for what went wrong."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console

WIDE: Final = 1_000
"""Columns of a pipe: nothing is wrapped or cut there."""


def console() -> Console:
    """Standard output. In a pipe nothing is wrapped, coloured or cut."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else WIDE, highlight=False, markup=False, emoji=False)


def is_live(out: Console) -> bool:
    """True if a screen can be kept drawn there."""
    return sys.stdout.isatty() and not out.is_dumb_terminal


def print_json(value: Any) -> None:
    """One JSON value on a line of its own, flushed, in ASCII so that every pipe takes it."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")
    sys.stdout.flush()


def print_lines(lines: Sequence[str]) -> None:
    """Plain lines on standard output, flushed."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def complain(text: str) -> None:
    """Lines on standard error. A standard error that is gone is no reason to fail."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def silence() -> None:
    """Send what is still printed nowhere: its reader is gone (the recipe of the ``signal`` module's documentation)."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
