"""``sluicegate prune``: remove what finished runs keep."""

from __future__ import annotations

import asyncio
from typing import Annotated

from cyclopts import Group, Parameter

from sluicegate.cli import output
from sluicegate.cli.options import Where, flag, load
from sluicegate.cli.words import safe, size, some
from sluicegate.errors import UsageError

PRUNE = Group("Prune", sort_key=1)


def prune(
    *,
    keep: Annotated[
        str, Parameter(group=PRUNE, metavar="TIME", help="Keep runs that finished less than this long ago.")
    ] = "7d",
    dry_run: Annotated[bool, flag(PRUNE, "Only say what would be removed.")] = False,
    common: Where | None = None,
) -> int:  # fmt: skip
    """Remove what finished runs keep in the data folder and at the provider."""
    from sluicegate.core.limits import parse_duration

    common = common or Where()
    try:
        keep_s = parse_duration(keep)
    except ValueError as error:
        raise UsageError(f"--keep: {error}") from None
    settings = load(common)
    from sluicegate import api

    done = asyncio.run(api.prune_async(settings=settings, keep_days=keep_s / 86_400, dry_run=dry_run))
    if common.json:
        output.print_json(done)
        return 0
    runs = done["runs"]
    said = (
        f"{some(len(runs) if isinstance(runs, list) else int(runs), 'run')}, {size(done['bytes'])} in the data folder, "
        f"{some(int(done['provider_files']), 'file')} at the provider"
    )
    output.print_lines([f"would remove {said}" if dry_run else f"removed {said}"])
    for resource, number in done["elsewhere"].items():
        left = f"left {some(number, 'run')} with files at {safe(resource)}"
        output.print_lines([f"{left}: give that address (--base-url or --azure-endpoint) to remove them too"])
    if done["failed"]:
        left = f"left {some(done['failed'], 'run')} with files that the provider does not delete now"
        output.print_lines([f"{left}: try again later (a week after their time they go without that)"])
    return 0
