"""A run's requests in memory: columns only, about 40 bytes a request, bodies stay on disk.

Requests are numbered by *position*: sorted by group, then by input and line. Positions of one group are contiguous,
so sets of waiting requests stay a few spans even if two models alternate line by line. *Ordinals* number requests in
input order; output is written by them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

import msgspec

from sluicegate.core.cut import Columns
from sluicegate.core.index import COLUMNS, Flag, Group, Index
from sluicegate.core.rows import BatchRow, PartRow, RunRow
from sluicegate.core.waiting import Spans
from sluicegate.ports import Blobs

_KEPT: Final = ("offset", "length", "tokens", "chars", "custom_id_hash", "model_at", "model_length", "flags")
_TYPES: Final = dict(COLUMNS)


@dataclass(slots=True)
class Work:
    """All requests of a run, by position, and how positions relate to inputs.

    Attributes:
        order: Position → ordinal; None where they are the same.
        starts: First position of each group, and the total at the end.
        names: Name in the inputs → deployment; a name that is not in it is a deployment.
        sum_tokens, sum_quarters: Prefix sums over positions, one longer than the columns.
    """

    run: RunRow
    batches: list[BatchRow]
    groups: list[Group]
    order: array[int] | None
    starts: list[int]
    offset: array[int]
    length: array[int]
    tokens: array[int]
    chars: array[int]
    custom_id_hash: array[int]
    model_at: array[int]
    model_length: array[int]
    flags: array[int]
    sum_tokens: array[int]
    sum_quarters: array[int]
    largest: list[tuple[int, int]]
    names: dict[str, str]

    @property
    def columns(self) -> Columns:
        """What the cut needs."""
        return Columns(tokens=self.tokens, chars=self.chars, length=self.length)

    def ordinal(self, position: int) -> int:
        """Where the request at ``position`` stands in input order, over all inputs."""
        return position if self.order is None else self.order[position]

    def batch_at(self, ordinal: int) -> int:
        """Which input the request at ``ordinal`` is from."""
        return bisect_right(self.batches, ordinal, key=lambda batch: batch.first) - 1

    def by_batch(self, positions: Spans) -> Iterator[tuple[int, int, int]]:
        """Stretches (input, start, stop) of one group's positions, each within one input."""
        for start, end in positions.spans:
            while start < end:
                number = self.batch_at(self.ordinal(start))
                beyond = self.batches[number].first + self.batches[number].requests
                # Within a group ordinals rise with positions.
                stop = min(end, beyond) if self.order is None else bisect_left(self.order, beyond, start, end)
                yield number, start, stop
                start = stop

    def ordinals(self, start: int, stop: int) -> array[int]:
        """The ordinals of consecutive positions."""
        return array("I", range(start, stop)) if self.order is None else self.order[start:stop]

    def sums(self, waiting: Spans) -> tuple[int, int]:
        """(tokens, quarter_chars) of a set of positions."""
        tokens = sum(self.sum_tokens[b] - self.sum_tokens[a] for a, b in waiting.spans)
        quarters = sum(self.sum_quarters[b] - self.sum_quarters[a] for a, b in waiting.spans)
        return tokens, quarters

    def deployment_of(self, group: int) -> str:
        """The name of the deployment that a group's requests go to."""
        name = self.groups[group].model
        return self.run.redirect or self.names.get(name, name)

    def group_of(self, position: int) -> int:
        """The group of the request at ``position``."""
        return bisect_right(self.starts, position, hi=len(self.groups)) - 1

    def good(self) -> list[Spans]:
        """For each group, the positions without an error."""
        flags = self.flags
        return [
            Spans.from_spans(_runs_without(flags, Flag.BAD, a, b))
            for a, b in zip(self.starts, self.starts[1:], strict=False)
        ]


def _runs_without(flags: Sequence[int], flag: int, start: int, stop: int) -> list[tuple[int, int]]:
    spans, begin = [], start
    for position in range(start, stop):
        if flags[position] & flag:
            spans.append((begin, position))
            begin = position + 1
    spans.append((begin, stop))
    return spans


def load(run: RunRow, batches: list[BatchRow], blobs: Blobs) -> Work:
    """Read the indexes of a run's inputs. Raises ValueError if one is damaged."""
    columns = {name: array(_TYPES[name]) for name in _KEPT}
    groups = [Group(url, model) for url, model in msgspec.json.decode(run.groups, type=list[tuple[str, str]])]
    numbers = {(group.url, group.model): i for i, group in enumerate(groups)}
    membership = array("H")
    for batch in batches:
        with blobs.path(batch.index).open("rb") as file:
            index = Index.read(file)
        for name in _KEPT:
            columns[name].extend(getattr(index, name))
        if len(groups) > 1:
            renumbered = [numbers[(group.url, group.model)] for group in index.groups]
            membership.extend(renumbered[g] for g in index.group)
    order, starts = _order(membership, len(groups), len(columns["offset"]))
    if order is not None:
        columns = {name: array(_TYPES[name], map(column.__getitem__, order)) for name, column in columns.items()}
    quarters = array("I", (chars // 4 for chars in columns["chars"]))
    largest = [(max(columns["tokens"][a:b], default=0), max(quarters[a:b], default=0)) for a, b in pairwise(starts)]
    return Work(
        run=run, batches=batches, groups=groups, order=order, starts=starts, largest=largest,
        names=msgspec.json.decode(run.names, type=dict[str, str]) if run.names else {},
        sum_tokens=array("Q", accumulate(columns["tokens"], initial=0)),
        sum_quarters=array("Q", accumulate(quarters, initial=0)),
        **columns,
    )  # fmt: skip


def _order(membership: array[int], groups: int, count: int) -> tuple[array[int] | None, list[int]]:
    if groups <= 1:
        return None, [0, count]
    order = array("I", sorted(range(count), key=membership.__getitem__))
    sizes = [0] * groups
    for group in membership:
        sizes[group] += 1
    return order, list(accumulate(sizes, initial=0))


def requests_of(part: PartRow) -> Spans:
    """A part's positions."""
    return Spans.parse(part.requests)


def retries_of(part: PartRow) -> dict[int, Spans]:
    """A part's positions that were sent before, by how often."""
    return {int(k): Spans.parse(v) for k, v in msgspec.json.decode(part.retries, type=dict[str, str]).items()}


def waits_again(part: PartRow, positions: Spans, *, sent: bool) -> dict[int, Spans]:
    """By attempt, the positions of ``part`` that wait again; ``sent`` counts this sending as an attempt (D11)."""
    again: dict[int, Spans] = {}
    before, rest = retries_of(part), positions
    for attempt, spans in before.items():
        chosen = positions & spans
        rest = rest - spans
        if chosen:
            again[attempt + sent] = chosen
    if rest:
        again[int(sent)] = again.get(int(sent), Spans()) | rest
    return again
