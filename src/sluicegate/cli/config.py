"""``sluicegate config``: every setting in force, and where it is from."""

from __future__ import annotations

from sluicegate.cli import output
from sluicegate.cli.options import Paced, load
from sluicegate.cli.words import safe


def config(*, common: Paced | None = None) -> int:
    """Print every setting in force and where it is from; secrets are masked."""
    common = common or Paced()
    settings = load(common)
    values, origins = settings.shown(), settings.origins()
    rows = [{"name": name, "value": values[name], "from": origins[name]} for name in values]
    if common.json:
        output.print_json(rows)
        return 0
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", overflow="fold")
    for row in rows:
        value = row["value"]
        style = "dim" if row["from"] == "default" else ""
        table.add_row(row["name"], Text(safe(value) if value is not None else "–"), row["from"], style=style)
    output.console().print(table)
    return 0
