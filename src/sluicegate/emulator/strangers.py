"""Batches of somebody else on the same account, which its list shows."""

from __future__ import annotations

import random
from array import array
from itertools import accumulate
from typing import Final

from sluicegate.emulator.batch import Batch, InputFacts

LINE_TOKENS: Final = 1_000


def stranger(seed: int, number: int, now: float, tokens: int, for_s: float, deployment: str) -> Batch:
    """A batch that passed validating as soon as it was there, and holds ``tokens`` until it leaves after ``for_s``.

    Args:
        number: From 1, among strangers; the same seed and number have the same ids.
    """
    whole, rest = divmod(tokens, LINE_TOKENS)
    lines = array("I", [LINE_TOKENS] * whole + [rest] * (rest > 0))
    dice = random.Random(f"{seed}:foreign:{number}")
    facts = InputFacts(
        tokens=lines, identity=array("Q", [0] * len(lines)), quarter_chars=tokens, deployment=deployment,
        url="/v1/chat/completions",
    )  # fmt: skip
    return Batch(
        id=f"batch_{dice.getrandbits(128):032x}", deployment=deployment, queue=deployment, endpoint="/v1/chat/completions",
        input_file_id=f"file-{dice.getrandbits(128):032x}", created_at=now, metadata=None, facts=facts,
        status="in_progress", charge=max(tokens, 1), tokens=tokens, foreign=True, leaves_at=now + for_s,
        times={"in_progress_at": now}, sums=array("Q", accumulate(lines)),
    )  # fmt: skip
