"""What a run keeps outside its rows is found by name: its lock, and the blobs with its parts' answers."""

from __future__ import annotations

from typing import Final

from sluicegate.core import join
from sluicegate.service.context import Context

LOCK: Final = "run-"
"""What the names of runs' locks begin with."""

SUFFIX: Final = {join.OUT: ".out.jsonl", join.ERR: ".err.jsonl", join.OWN: ".own.jsonl"}


def lock_name(run: str) -> str:
    """The lock of the process that drives a run."""
    return f"{LOCK}{run}"


def live_runs(ctx: Context) -> frozenset[str]:
    """Runs that living processes drive, by their locks: few, however many wait."""
    return frozenset(name.removeprefix(LOCK) for name in ctx.lock.taken() if name.startswith(LOCK))


def result_key(part: str, source: int) -> str:
    """The blob key of a part's result lines: the provider's output or error file, or lines of ours."""
    return f"results/{part}{SUFFIX[source]}"


def sidecar_key(part: str) -> str:
    """The blob key of a part's sidecar."""
    return f"results/{part}.sidecar"


def set_aside(run: str) -> str:
    """What stands for a part in the keys of the requests that the check refused and ``--skip-bad`` set aside."""
    return f"{run}-bad"


def answer_keys(part: str) -> list[str]:
    """The blob keys of all that a part's answers may be kept in."""
    return [sidecar_key(part), *(result_key(part, source) for source in SUFFIX)]
