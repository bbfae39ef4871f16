"""What a part brought home, matched with its requests: who is done, who goes again, and at what cost (D5)."""

import json
from array import array
from pathlib import Path

from sluicegate.core.join import OWN, Settled
from sluicegate.core.waiting import Spans
from sluicegate.service.assemble import Lines
from sluicegate.service.collector import Match, Task, match

STREAM = ("streaming_unsupported", "Streaming is not supported.")


def failed_part(folder: Path, objections: dict[int, tuple[str, str]], *, free: bool) -> tuple[Match, dict[int, str]]:
    """A part of positions 10 to 13, each sent for the last time, whose batch failed; and its errors by position."""
    lines = [json.dumps({"custom_id": f"r{i}"}).encode() + b"\n" for i in range(4)]
    source = folder / "input.jsonl"
    source.write_bytes(b"".join(lines))
    offsets = array("Q", (sum(map(len, lines[:i])) for i in range(4)))
    zeros = {"model_at": array("I", [0] * 4), "model_length": array("H", [0] * 4), "flags": array("B", [0] * 4)}
    written = Lines(
        path=str(source), offset=offsets, length=array("I", map(len, lines)), ordinal=array("I", range(4)), **zeros
    )
    files = (str(folder / "out"), str(folder / "err"), str(folder / "own"))
    found = match(
        Task(
            files=files, sidecar=str(folder / "sidecar"), positions=array("I", range(10, 14)), hashes=array("Q", range(4)),
            tokens=array("I", [1] * 4), tried=dict.fromkeys(range(10, 14), 3), attempts=3, lines=[written],
            code="invalid_request", reason="the batch failed", objections=objections, free=free,
        )
    )  # fmt: skip
    settled = Settled.from_bytes((folder / "sidecar").read_bytes())
    assert set(settled.source) == {OWN}
    own = (folder / "own").read_bytes()
    errors = [json.loads(own[at : at + size]) for at, size in zip(settled.offset, settled.length, strict=True)]
    return found, {
        position: f"{error['custom_id']}: {error['error']['message']}"
        for position, error in zip(settled.position, errors, strict=True)
    }


def test_lines_that_validation_refused_end_and_the_others_wait_at_no_cost(tmp_path: Path) -> None:
    """Though it was their last attempt."""
    found, errors = failed_part(tmp_path, {11: STREAM}, free=True)

    assert errors == {11: f"r1: {STREAM[1]}"}
    assert Spans.parse(found.unsent) == Spans.of([10, 12, 13])
    assert (found.again, found.missing, found.failed) == ("", 0, 1)


def test_a_run_that_has_had_its_share_of_such_batches_pays_with_attempts(tmp_path: Path) -> None:
    """So that thousands of bad lines, named one at a time, come to an end (D7)."""
    found, errors = failed_part(tmp_path, {11: STREAM}, free=False)

    assert errors == {
        10: "r0: the batch failed", 11: f"r1: {STREAM[1]}", 12: "r2: the batch failed", 13: "r3: the batch failed",
    }  # fmt: skip
    assert (found.unsent, found.failed) == ("", 4)
