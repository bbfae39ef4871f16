"""What a simulated world is judged by: the provider's own model against our rows and files, while it runs and at its end."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from xxhash import xxh3_64_hexdigest

from sluicegate.emulator.answers import Asked, FixedAnswers, LineRequest, Reply, fixed_tokens, shaped
from sluicegate.emulator.batch import Batch
from sluicegate.emulator.model import Model
from sluicegate.emulator.results import swapped

GOOD: Final = frozenset({None, "doubled", "unknown", "swapped"})
"""Fates of a line that is answered with status 200."""

_line = msgspec.json.Decoder(LineRequest).decode


def echo(custom_id: str, body: bytes) -> str:
    """The one answer that a request may get: it names whom it answers, and what was asked."""
    return f"to {custom_id}: {xxh3_64_hexdigest(body)}"


class Echo(FixedAnswers):
    """Answers that no two requests share, so that a mix-up shows."""

    def answer(self, asked: Sequence[Asked], model: str, dice: random.Random) -> list[Reply]:
        """One echo each."""
        return [
            shaped(one, model, dice, echo(one.line.custom_id, bytes(one.line.body)), fixed_tokens()) for one in asked
        ]


def answers_to(lines: Iterable[bytes]) -> dict[str, str]:
    """custom_id → the answer that belongs to it, in the order of the input's ``lines``."""
    requests = [_line(line) for line in lines]
    return {one.custom_id: echo(one.custom_id, bytes(one.body)) for one in requests}


@dataclass(slots=True)
class Past:
    """What the provider did with one request in batches of ours that we know of.

    Attributes:
        sent: Batches that had it and were not refused for want of tokens.
        answered: A result line of status 200 was there to be fetched whole; ``filtered``: one of a content filter.
        swapped: An answer went out under another's id because the provider swapped two.
    """

    sent: int = 0
    answered: bool = False
    filtered: bool = False
    swapped: bool = False


def pasts(model: Model, folder: Path, ours: Iterable[str], damaged: Callable[[Batch], bool]) -> dict[str, Past]:
    """What became of each custom_id, by the provider's own books.

    Args:
        folder: Where the provider keeps input files. ``ours``: ids of the batches that our rows named.
        damaged: Whether a batch's downloads may have been damaged alike, so that nobody can tell what was answered.
    """
    found: dict[str, Past] = {}
    for batch, ids in _sent(model, folder, ours):
        for id_ in ids:
            found.setdefault(id_, Past()).sent += 1
        others, unclear = swapped(batch), damaged(batch)
        for i in range(batch.executed):
            past, fate = found[ids[others.get(i, i)]], batch.fates.get(i)
            past.answered |= fate in GOOD and not unclear
            past.filtered |= fate == "content_filter"
            past.swapped |= i in others
    return found


def sent_again(model: Model, folder: Path, ours: Iterable[str]) -> Counter[str]:
    """By deployment, how often requests went that had gone before."""
    times = Counter((batch.deployment, id_) for batch, ids in _sent(model, folder, ours) for id_ in ids)
    again = Counter[str]()
    for (deployment, _), count in times.items():
        again[deployment] += count - 1
    return again


def _sent(model: Model, folder: Path, ours: Iterable[str]) -> Iterator[tuple[Batch, list[str]]]:
    """Batches that were not refused for want of tokens, and the custom_ids of their lines."""
    for batch in (model.batches[id_] for id_ in ours):
        if not any(error["code"] == "token_limit_exceeded" for error in batch.errors):
            yield batch, [_line(line).custom_id for line in (folder / batch.input_file_id).read_bytes().splitlines()]


def misjudged(
    *, out: list[str], err: list[str], wanted: dict[str, str], past: dict[str, Past], attempts: int, early: frozenset[str]
) -> str | None:  # fmt: skip
    """The first promise about result files that is broken, or None (D5).

    Args:
        out, err: Lines of the two files. ``wanted``: custom_id → answer, in input order.
        attempts: How often a request is sent at most. ``early``: error codes of ours that need no attempt.
    """
    good, bad = ([json.loads(line) for line in lines] for lines in (out, err))
    ids = [[line["custom_id"] for line in lines] for lines in (good, bad)]
    if sorted(ids[0] + ids[1]) != sorted(wanted):
        return "some requests did not end exactly once"
    place = {id_: i for i, id_ in enumerate(wanted)}
    if any(sorted(found, key=place.__getitem__) != found for found in ids):
        return "results are out of order"
    for line in good:
        id_ = line["custom_id"]
        said = line["response"]["body"]["choices"][0]["message"]["content"]
        if said != wanted[id_] and not past[id_].swapped:
            return "a request has an answer that is another's"
    for line in bad:
        was = past.get(line["custom_id"], Past())
        if was.answered:
            return "a request that was answered is in the error file"
        if not was.filtered and was.sent < attempts and (line["error"] or {}).get("code") not in early:
            return f"a request is in the error file though it was sent {was.sent} times of {attempts}"
    return None
