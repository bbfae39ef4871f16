"""A model with requests of given sizes, without files."""

from array import array
from typing import Any

from sluicegate.emulator.batch import Batch, InputFacts
from sluicegate.emulator.config import Account, Change
from sluicegate.emulator.faults import Fault
from sluicegate.emulator.model import Model

NOON = 1_700_049_600.0
"""A Unix time at 12:00 UTC."""


def facts(tokens: list[int], *, chars: int | None = None, deployment: str = "gpt-4.1", first: int = 0) -> InputFacts:
    """What reading a file of such requests would show; ``first`` numbers the requests, equal ones are the same request."""
    return InputFacts(
        tokens=array("I", tokens), identity=array("Q", range(first + 1, first + 1 + len(tokens))),
        quarter_chars=sum(tokens) if chars is None else chars, deployment=deployment, url="/v1/chat/completions",
    )  # fmt: skip


class Bench:
    """A model whose account has round numbers: validating 10 s, start 10 s, finalizing 10 s, 100 tokens a second."""

    def __init__(self, *, faults: tuple[Fault, ...] = (), timetable: tuple[Change, ...] = (), **fields: Any) -> None:
        times = {"validating_s": 10.0, "start_s": 10.0, "finalizing_s": 10.0, "rate": 100.0, "limit": 10_000}
        self.model = Model(Account(**(times | fields), faults=faults, timetable=timetable).with_defaults())
        self.serial = 0
        self.model.advance(NOON)

    def create(self, at: float, tokens: list[int], **of: Any) -> Batch:
        """Create a batch ``at`` seconds after noon."""
        self.serial += 1
        gated = of.pop("gated", False)
        return self.model.create(
            NOON + at, batch_id=f"batch_{self.serial}", file_id=f"file-{self.serial}", facts=facts(tokens, **of),
            endpoint="/v1/chat/completions", metadata=None, gated=gated,
        )  # fmt: skip

    def at(self, at: float) -> Model:
        """The model so many seconds after noon."""
        self.model.advance(NOON + at)
        return self.model
