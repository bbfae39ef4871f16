"""Write the results in input order while they come home (docs/design.md, "Surfaces").

``OUT.partial`` grows as requests become complete in order; the rows keep how far it was written and fsynced, so that a
start after a crash cuts it back to that point and goes on. The end renames it.
"""

from __future__ import annotations

import os
import re
from array import array
from collections import OrderedDict
from collections.abc import Callable, Container
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from sluicegate.core.index import Flag
from sluicegate.core.join import Settled
from sluicegate.core.rows import BatchRow
from sluicegate.errors import StateUnusable
from sluicegate.ports import Tx
from sluicegate.service.assemble import id_span
from sluicegate.service.context import Context
from sluicegate.service.names import result_key
from sluicegate.service.work import Work

STRETCH: Final = 20_000
"""Requests that are written between two watermarks at most, so that a stop is answered soon."""

FILES_OPEN: Final = 64

_MODEL: Final = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')


PARTIAL: Final = ".partial"


def partial(path: str) -> Path:
    """The name that a result file has while it grows."""
    return Path(path + PARTIAL)


@dataclass(slots=True)
class _Place:
    """Where each request's line is, by ordinal; ``part`` 0 means that it is not settled yet."""

    part: array[int]
    source: array[int]
    failed: array[int]
    offset: array[int]
    length: array[int]


class Joiner:
    """Joins the results of one run; all methods that touch files are blocking."""

    def __init__(self, ctx: Context, work: Work) -> None:
        self._path: Callable[[str], Path] = ctx.blobs.path
        self._work = work
        count = work.run.requests
        self._place = _Place(
            part=array("I", bytes(4 * count)), source=array("B", bytes(count)), failed=array("B", bytes(count)),
            offset=array("Q", bytes(8 * count)), length=array("I", bytes(4 * count)),
        )  # fmt: skip
        self._parts: list[str] = [""]
        self._renamed = {work.ordinal(p): p for p, flags in enumerate(work.flags) if flags & Flag.DUPLICATE_ID}
        self._position = self._positions() if work.names else None
        self._open: OrderedDict[tuple[int, int], int] = OrderedDict()
        self.batches = list(work.batches)
        self.settled = 0
        self.failed = 0

    def _positions(self) -> array[int]:
        """Ordinal → position."""
        found = array("I", range(self._work.run.requests))
        for position in range(len(found)):
            found[self._work.ordinal(position)] = position
        return found

    def add(self, part: str, settled: Settled, pending: Container[int] = ()) -> None:
        """Take in a part's sidecar. A request is settled once; only a failure can be followed by another try.

        Args:
            pending: Positions that wait or are under way again (``batches salvage``): their failures do not count.
        """
        self._parts.append(part)
        number = len(self._parts) - 1
        place = self._place
        for i, position in enumerate(settled.position):
            if settled.failed[i] and position in pending:
                continue
            ordinal = self._work.ordinal(position)
            if place.part[ordinal]:
                assert place.failed[ordinal], f"request {ordinal} was answered twice"
                self.settled -= 1
                self.failed -= 1
                place.part[ordinal] = 0
            place.source[ordinal] = settled.source[i]
            place.failed[ordinal] = settled.failed[i]
            place.offset[ordinal] = settled.offset[i]
            place.length[ordinal] = settled.length[i]
            place.part[ordinal] = number  # last: `advance` reads in another thread, and takes this for all
            self.settled += 1
            self.failed += settled.failed[i]

    def restart(self) -> None:
        """Cut the partial files back to their watermark; begin again where they are not as long as that."""
        for i, batch in enumerate(self.batches):
            out, err = partial(batch.output), partial(batch.errors)
            whole = _size(out) >= batch.out_bytes and _size(err) >= batch.err_bytes
            if not whole:
                batch = replace(batch, written=0, out_bytes=0, err_bytes=0, out_lines=0, err_lines=0)
            for path, size in ((out, batch.out_bytes), (err, batch.err_bytes)):
                if path.exists():
                    os.truncate(path, size)
            self.batches[i] = batch

    def advance(self) -> list[BatchRow]:
        """Write what has become complete in order, fsync, and return the batches whose watermark moved."""
        moved = []
        for i, batch in enumerate(self.batches):
            if batch.written < batch.requests and self._place.part[batch.first + batch.written]:
                self.batches[i] = self._write(batch)
                moved.append(self.batches[i])
        return moved

    @property
    def complete(self) -> bool:
        """True once every request of every input is written."""
        return all(batch.written == batch.requests for batch in self.batches)

    def failed_from(self, ordinal: int) -> bytes:
        """For each request from ``ordinal`` to the first that is not written: 1 if it is in an error file, else 0."""
        open_still = (batch.first + batch.written for batch in self.batches if batch.written < batch.requests)
        return self._place.failed[ordinal : next(open_still, self._work.run.requests)].tobytes()

    def _write(self, batch: BatchRow) -> BatchRow:
        place = self._place
        counts = {0: 0, 1: 0}
        ordinal = batch.first + batch.written
        stop = min(batch.first + batch.requests, ordinal + STRETCH)
        with ExitStack() as stack:
            files: dict[int, BinaryIO] = {}
            while ordinal < stop and place.part[ordinal]:
                failed = place.failed[ordinal]
                if failed not in files:
                    files[failed] = self._append_to(batch, failed, stack)
                files[failed].write(self._line(ordinal) + b"\n")
                counts[failed] += 1
                ordinal += 1
            sizes = {}
            for failed, file in files.items():
                file.flush()
                os.fsync(file.fileno())
                sizes[failed] = file.tell()
        return replace(
            batch, written=ordinal - batch.first, out_bytes=sizes.get(0, batch.out_bytes),
            err_bytes=sizes.get(1, batch.err_bytes), out_lines=batch.out_lines + counts[0],
            err_lines=batch.err_lines + counts[1],
        )  # fmt: skip

    def _append_to(self, batch: BatchRow, failed: int, stack: ExitStack) -> BinaryIO:
        path = partial(batch.errors if failed else batch.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(path.open("ab", buffering=1 << 20))
        size = batch.err_bytes if failed else batch.out_bytes
        if file.tell() < size:  # nothing is written behind a hole; the next start begins again
            raise StateUnusable(
                f"{path} was deleted or cut short while it grew; start again: every answer is kept apart"
            )
        file.truncate(size)
        file.seek(0, os.SEEK_END)
        return file

    def _line(self, ordinal: int) -> bytes:
        place = self._place
        number, source = place.part[ordinal], place.source[ordinal]
        line = os.pread(self._handle(number, source), place.length[ordinal], place.offset[ordinal])
        if len(line) != place.length[ordinal]:
            raise OSError(f"the results of part {self._parts[number]} in the data folder are cut short")
        if ordinal in self._renamed and source != 2:
            at, size = id_span(line)
            line = line[:at] + self._original_id(ordinal) + line[at + size :]
        if self._position is not None and source != 2:
            line = self._with_clients_name(line, self._work.group_of(self._position[ordinal]))
        return line

    def _with_clients_name(self, line: bytes, group: int) -> bytes:
        """Where the provider repeats the deployment's name, the name that the client used."""
        sent, name = self._work.deployment_of(group), self._work.groups[group].model
        found = _MODEL.search(line) if sent != name else None
        if found is None or msgspec.json.decode(found[1]) != sent:
            return line
        return line[: found.start(1)] + msgspec.json.encode(name) + line[found.end(1) :]

    def _original_id(self, ordinal: int) -> bytes:
        position = self._renamed[ordinal]
        batch = self.batches[self._work.batch_at(ordinal)]
        with self._path(batch.input).open("rb") as source:
            line = os.pread(source.fileno(), self._work.length[position], self._work.offset[position])
        at, size = id_span(line)
        return line[at : at + size]

    def _handle(self, number: int, source: int) -> int:
        key = (number, source)
        if key not in self._open:
            if len(self._open) >= FILES_OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[key] = os.open(self._path(result_key(self._parts[number], source)), os.O_RDONLY)
        self._open.move_to_end(key)
        return self._open[key]

    def finish(self) -> None:
        """Rename the partial files to their names; an input without failures has no error file."""
        assert self.complete, "only complete results are renamed"
        for batch in self.batches:
            out, err = partial(batch.output), partial(batch.errors)
            if not batch.out_lines:
                out.parent.mkdir(parents=True, exist_ok=True)
                out.touch()
            out.replace(batch.output)
            if batch.err_lines:
                err.replace(batch.errors)
            else:
                err.unlink(missing_ok=True)
                Path(batch.errors).unlink(missing_ok=True)
            _sync_folder(Path(batch.output).parent)

    def close(self) -> None:
        """Close the files that are open."""
        while self._open:
            os.close(self._open.popitem()[1])


def record(tx: Tx, moved: list[BatchRow]) -> None:
    """Note the new watermarks."""
    for batch in moved:
        tx.update_batch(
            batch.id, written=batch.written, out_bytes=batch.out_bytes, err_bytes=batch.err_bytes,
            out_lines=batch.out_lines, err_lines=batch.err_lines,
        )  # fmt: skip


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
