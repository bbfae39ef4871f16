"""What a simulation has to have touched, from the code itself: ports, worker functions, legal moves."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import sluicegate
from sluicegate.core.lifecycle import TRANSITIONS
from sluicegate.ports import Backend
from tests.simulation.ports import WRITERS

NOT_HERE: Final = frozenset(
    {
        "_failures",  # `batches salvage`, by hand
        "_hashes",  # `run --adopt`
        "_facts",  # files imported by URL
        "lines_naming", "_write_whole",  # a deployment that does not exist
        "old",  # `prune`, by hand
        "to_json",  # `POST /v1/quota/check`, which changes nothing
    }
)  # fmt: skip
"""Worker functions of ways that no simulated person goes."""

STORE_AND_BLOBS: Final = ("commit", "write", "unlink")

RUNS: Final = frozenset({"run active>finished"})
BATCHES: Final = frozenset(
    f"batch {move}"
    for move in (
        "validating>in_progress", "in_progress>finalizing", "finalizing>completed", "validating>cancelling",
        "in_progress>cancelling", "cancelling>cancelled", "in_progress>expired",
    )
)  # fmt: skip
"""Moves of a run and of a client's batch that have to be seen."""

_WORK: Final = re.compile(r"workers\.(?:run|blocking)\(\s*(?:partial\(\s*)?(?:\w+\.)*(\w+)")


def failpoints() -> frozenset[str]:
    """Where a process can die, each before and after its effect, and the two ways in which a write can fail."""
    calls = {name for name, one in vars(Backend).items() if inspect.isfunction(one)} - {"close", "deployment_limit"}
    root = Path(str(sluicegate.__file__)).parent
    sources = [path.read_text() for folder in ("service", "web") for path in sorted((root / folder).glob("*.py"))]
    named = {name for source in sources for name in _WORK.findall(source)} - NOT_HERE - {"partial"}
    work = {"<lambda>" if name == "lambda" else name for name in named}
    points = {*(name for name in calls if not name.startswith("_")), *STORE_AND_BLOBS, *(f"work.{one}" for one in work)}
    return frozenset(f"{point}:{how}" for point in points for how in ("before", "after")) | {
        f"{point}:{how}" for point in WRITERS for how in ("torn", "full")
    }


def moves() -> frozenset[str]:
    """The legal moves of a part, and those of runs and clients' batches."""
    return frozenset(f"{a}>{b}" for a, after in TRANSITIONS.items() for b in after) | RUNS | BATCHES


def report(deaths: Counter[str], seen: Iterable[str]) -> tuple[list[str], bool]:
    """Lines that tell what was covered, and whether it was everything."""
    points, legal = failpoints(), moves()
    lines = [
        f"failpoints {len(points & set(deaths))} of {len(points)}; never died at {sorted(points - set(deaths))}",
        f"moves {len(legal & set(seen))} of {len(legal)}; never seen {sorted(legal - set(seen))}",
    ]
    odd = {point for point in deaths if ":" in point} - points
    if odd:
        lines.append(f"died at points that nobody knows of: {sorted(odd)}")
    return lines, not points - set(deaths) and not legal - set(seen) and not odd
