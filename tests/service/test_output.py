"""The joiner: what one thread takes in, another writes."""

from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sluicegate.core.index import Group
from sluicegate.core.join import ERR, OUT, Settled
from sluicegate.core.lifecycle import RunState
from sluicegate.core.rows import RunRow
from sluicegate.service.output import Joiner
from sluicegate.service.work import Work

RUN = RunRow(
    id="run", digest="d", state=RunState.ACTIVE, resource="r", dialect="openai", groups="[]", redirect=None, cap=None,
    requests=2, tokens=0, serial=0, created_at=0.0,
)  # fmt: skip


def joiner(folder: Path) -> Joiner:
    columns: dict[str, Any] = dict.fromkeys(
        (
            "offset",
            "length",
            "tokens",
            "chars",
            "custom_id_hash",
            "model_at",
            "model_length",
            "sum_tokens",
            "sum_quarters",
        ),
        array("Q"),
    )
    work = Work(run=RUN, batches=[], groups=[Group("u", "m")], order=None, starts=[0, 2], flags=array("B", [0, 0]),
                largest=[(0, 0)], names={}, **columns)  # fmt: skip
    return Joiner(SimpleNamespace(blobs=SimpleNamespace(path=folder.joinpath)), work)  # type: ignore[arg-type]


def test_a_request_counts_as_settled_only_once_all_is_known_of_its_line(tmp_path: Path) -> None:
    """Whatever moment the writing thread looks at: never a part with the place of another line, or of none."""
    joined = joiner(tmp_path)
    place = joined._place
    seen: list[int] = []

    class Watched(array):  # type: ignore[type-arg]
        def __setitem__(self, ordinal: Any, value: Any) -> None:
            seen.append(place.part[ordinal])
            super().__setitem__(ordinal, value)

    for name in ("source", "failed", "offset", "length"):
        column = getattr(place, name)
        setattr(place, name, Watched(column.typecode, column))
    failed, answered = Settled(), Settled()
    failed.add(0, ERR, True, 10, 20)
    answered.add(0, OUT, False, 30, 40)
    answered.add(1, OUT, False, 70, 5)

    joined.add("one", failed)
    joined.add("two", answered)

    assert seen == [0] * 12
    assert list(place.part) == [2, 2]
    assert (joined.settled, joined.failed) == (2, 0)
