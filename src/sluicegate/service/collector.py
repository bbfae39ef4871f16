"""Bring a part's results home: download, match, keep what is done, send the rest again (D5)."""

from __future__ import annotations

import os
from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec
from xxhash import xxh3_64_intdigest, xxh3_128

from sluicegate.core import belief, join
from sluicegate.core.index import Flag
from sluicegate.core.lifecycle import UNUSED, Stage
from sluicegate.core.line import custom_id_of
from sluicegate.core.report import EventKind
from sluicegate.core.rows import PartRow
from sluicegate.core.types import Usage
from sluicegate.core.waiting import Spans
from sluicegate.errors import BackendError, NotFound, ProviderRefused, Unavailable, retry_after_of
from sluicegate.ports import Tx
from sluicegate.service import scheduler
from sluicegate.service.assemble import Lines, wire_id
from sluicegate.service.context import Context, Record, note
from sluicegate.service.names import result_key, sidecar_key
from sluicegate.service.submitter import deployment_of, lines_of, say_learned
from sluicegate.service.work import Work, requests_of, retries_of, waits_again

DOWNLOADS_MOST: Final = 4
"""Of one part's results in a row, while they look incomplete and come out otherwise each time."""

OBJECTED_MOST: Final = 100
"""Batches of a run that failed for some of their lines and cost the other lines no attempt: should a provider name one
line at a time, and thousands be bad, the usual number of attempts ends it."""

ABSENT_S: Final = 600.0
"""So long after a batch's end its results may still be on their way though it names them (404), if it counted some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What :func:`match` found: counts, and sets of positions as text; ``unsent`` wait as if they had not been sent."""

    answered: int
    failed: int
    usage: Usage
    counted: int
    estimated: int
    doubled: int
    unknown: int
    unreadable: int
    again: str
    unsent: str
    given_up: int
    missing: int
    executed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What :func:`match` needs; picklable.

    Attributes:
        tried: How often each position was sent, this time included.
        objections: Position → (code, message) of the lines for which validation refused the whole batch.
        free: The other lines of such a batch have lost no attempt.
    """

    files: tuple[str, str, str]
    sidecar: str
    positions: array[int]
    hashes: array[int]
    tokens: array[int]
    tried: dict[int, int]
    attempts: int
    lines: list[Lines]
    code: str
    reason: str
    objections: dict[int, tuple[str, str]]
    free: bool


def match(task: Task) -> Match:
    """Read a part's result files, write its sidecar, and say what has to be sent again. Runs in a worker."""
    matcher = join.Matcher(task.positions, task.hashes, task.tokens)
    for source in (join.OUT, join.ERR):
        path = Path(task.files[source])
        if path.exists():
            _feed(matcher, path, source)
    outcome, missing = matcher.finish()
    again: list[int] = []
    given_up = [position for position in missing if position in task.objections]
    unsent = [position for position in missing if task.free and position not in task.objections]
    missing = [] if task.free else [position for position in missing if position not in task.objections]
    for position in (*outcome.passing, *missing):
        (again if task.tried.get(position, 1) < task.attempts else given_up).append(position)
    own = _Own(task)
    for position in given_up:
        line = outcome.passing.get(position)
        if line is not None:
            outcome.settled.add(position, line[0], True, line[1], line[2])
        else:
            outcome.settled.add(position, join.OWN, True, *own.write(position))
    own.close()
    _write_whole(Path(task.sidecar), outcome.settled.to_bytes())
    return Match(
        answered=outcome.answered, failed=outcome.failed + len(given_up), usage=outcome.usage, counted=outcome.counted,
        estimated=outcome.estimated, doubled=outcome.doubled, unknown=outcome.unknown, unreadable=outcome.unreadable,
        again=str(Spans.of(again)), unsent=str(Spans.of(unsent)), given_up=len(given_up), missing=len(missing),
        executed=outcome.executed,
    )  # fmt: skip


def _feed(matcher: join.Matcher, path: Path, source: int) -> None:
    offset = 0
    with path.open("rb", buffering=1 << 20) as lines:
        for line in lines:
            text = line.rstrip(b"\r\n")
            if text:
                matcher.feed(text, source, offset)
            offset += len(line)


class _Own:
    """Writes error lines of ours, in the provider's shape, for requests that it gave no line."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._chunks: list[bytes] = []
        self._offset = 0

    @cached_property
    def _place(self) -> dict[int, tuple[Lines, int]]:
        places = ((lines, i) for lines in self._task.lines for i in range(len(lines.ordinal)))
        return dict(zip(self._task.positions, places, strict=True))

    def write(self, position: int) -> tuple[int, int]:
        lines, i = self._place[position]
        with open(lines.path, "rb", buffering=0) as source:
            raw = os.pread(source.fileno(), lines.length[i], lines.offset[i])
        code, reason = self._task.objections.get(position, (self._task.code, self._task.reason))
        line = join.error_line(custom_id_of(raw), code, reason)
        at = self._offset
        self._chunks.append(line + b"\n")
        self._offset += len(line) + 1
        return at, len(line)

    def close(self) -> None:
        if self._chunks:
            _write_whole(Path(self._task.files[join.OWN]), b"".join(self._chunks))


def _write_whole(path: Path, content: bytes) -> None:
    aside = path.with_suffix(path.suffix + ".tmp")
    try:
        with aside.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


async def collect(ctx: Context, work: Work, part: PartRow) -> bool:
    """Fetch and match the results of a part in stage ``ended``; True once it is ``collected``.

    Results with fewer executed requests than the batch counted, or with lines that cannot be read, are downloaded again before
    anything is believed of them: a request that was answered would be sent, and paid for, once more.

    Raises:
        BackendError: a download failed, came out otherwise each time, or is not there yet; the call may be repeated.
    """
    before: str | None = None
    free = part.objections is not None and await ctx.store.read(lambda tx: _objected(tx, part.run)) < OBJECTED_MOST
    for _ in range(DOWNLOADS_MOST):
        files = ((join.OUT, part.output_file_id), (join.ERR, part.error_file_id))
        there = [await _fetch(ctx, result_key(part.id, source), file_id) for source, file_id in files]
        found = await ctx.workers.run(match, _task(ctx, work, part, free))
        promised = min(part.count, part.seen_completed + part.seen_failed)
        if not found.unreadable and found.executed >= promised:
            break
        if not all(there) and ctx.clock.now() < (part.left_at or 0.0) + ABSENT_S:
            raise Unavailable(f"the results of {part.provider_batch} are not there yet")
        seen = await ctx.workers.blocking(
            _digest, [ctx.blobs.path(result_key(part.id, s)) for s in (join.OUT, join.ERR)]
        )
        if seen == before:
            break  # it is as the provider has it
        before = seen
    else:
        raise Unavailable(f"the results of {part.provider_batch} come out otherwise each time they are downloaded")
    now = ctx.clock.now()
    record = Record(now, part.run)
    again, unsent = Spans.parse(found.again), Spans.parse(found.unsent)

    def write(tx: Tx) -> bool:
        if not tx.move_part(
            part.id, Stage.ENDED, Stage.COLLECTED, collected_at=now, answered=found.answered, failed=found.failed,
            salvaged=len(again), input_tokens=found.usage.input_tokens, cached_tokens=found.usage.cached_tokens,
            output_tokens=found.usage.output_tokens, reasoning_tokens=found.usage.reasoning_tokens,
        ):  # fmt: skip
            return False
        scheduler.wait_again(tx, part, waits_again(part, again, sent=True))
        scheduler.wait_again(tx, part, waits_again(part, unsent, sent=False))
        row, before = deployment_of(tx, part)
        after = belief.usage_seen(before, counted=found.counted, estimated=found.estimated)
        if after != before:
            tx.update_deployment(row.id, belief=belief.dump(after))
            scheduler.recharge(tx, row, before, after, ctx.policy, now)
            say_learned(record, row, before, after, part.run)
        _say(record, part, found, len(again), len(unsent))
        record.store(tx)
        return True

    done = await ctx.store.transact(write)
    if done:
        record.tell(ctx)
    return done


def _objected(tx: Tx, run: str) -> int:
    return sum(part.objections is not None for part in tx.parts(run=run, stages=frozenset({Stage.COLLECTED})))


def _digest(paths: list[Path]) -> str:
    """A hash over files' contents; one that is not there counts as empty."""
    digest = xxh3_128()
    for path in paths:
        if path.exists():
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        digest.update(b"\0")
    return digest.hexdigest()


async def give_back(ctx: Context, part: PartRow) -> None:
    """Take in a part that the provider refused as a whole: all its requests wait again, at no cost of attempts."""
    await ctx.workers.blocking(_write_whole, ctx.blobs.path(sidecar_key(part.id)), join.Settled().to_bytes())
    now = ctx.clock.now()

    def write(tx: Tx) -> None:
        if tx.move_part(part.id, Stage.ENDED, Stage.COLLECTED, collected_at=now):
            scheduler.wait_again(tx, part, waits_again(part, requests_of(part), sent=False))

    await ctx.store.transact(write)


def _say(record: Record, part: PartRow, found: Match, again: int, unsent: int) -> None:
    sentence = f"part {part.id}: {found.answered:,} answered"
    if found.failed:
        sentence += f", {found.failed:,} failed for good"
    if again:
        sentence += f", {again:,} go again"
    if unsent:
        sentence += f", {unsent:,} wait again: the batch failed for other lines, and that costs them no attempt"
    odd = [
        f"{count:,} {what}"
        for count, what in (
            (found.missing, "without any line"), (found.doubled, "answered twice"),
            (found.unknown, "with an unknown custom_id"), (found.unreadable, "unreadable"),
        )
        if count
    ]  # fmt: skip
    record.add(
        EventKind.COLLECTED, sentence, part=part.id, answered=found.answered, failed=found.failed, salvaged=again,
        missing=found.missing, unknown=found.unknown, doubled=found.doubled,
    )  # fmt: skip
    if odd:
        message = f"part {part.id}: result lines that are not as they should be: {', '.join(odd)}"
        record.add(EventKind.FINDING, message, part=part.id, message=message)


async def _fetch(ctx: Context, key: str, file_id: str | None) -> bool:
    """Download a result file; False if it is named but not there: Azure names files that were never written (F§1.11)."""
    if file_id is None:
        await ctx.blobs.delete(key)
        return True
    try:
        await ctx.blobs.write(key, _resuming(ctx, file_id))
    except NotFound:
        await ctx.blobs.delete(key)
        return False
    return True


async def _resuming(ctx: Context, file_id: str) -> AsyncIterator[bytes]:
    """A download that goes on where it broke off, a few times."""
    offset, tries = 0, 0
    while True:
        try:
            async for chunk in ctx.backend.download(file_id, offset=offset):
                offset += len(chunk)
                tries = 0
                yield chunk
        except NotFound:
            raise
        except BackendError as error:
            tries += 1
            if tries > 5:
                raise
            await ctx.clock.sleep(max(retry_after_of(error), min(30.0, 0.5 * 2**tries)))
        else:
            return


def _task(ctx: Context, work: Work, part: PartRow, free: bool) -> Task:
    positions, hashes, tokens = array("I"), array("Q"), array("I")
    for start, stop in requests_of(part).spans:
        positions.extend(range(start, stop))
        tokens.extend(work.tokens[start:stop])
        if any(flags & Flag.DUPLICATE_ID for flags in work.flags[start:stop]):
            hashes.extend(wire_hash(work, position) for position in range(start, stop))
        else:
            hashes.extend(work.custom_id_hash[start:stop])
    tried = {p: attempt + 1 for attempt, spans in retries_of(part).items() for p in spans}
    code, reason = _why_missing(part)
    lines, _ = lines_of(ctx, work, part)
    objected = msgspec.json.decode(part.objections or "[]", type=list[tuple[int, str, str]])
    return Task(
        files=tuple(str(ctx.blobs.path(result_key(part.id, source))) for source in range(3)),  # type: ignore[arg-type]
        sidecar=str(ctx.blobs.path(sidecar_key(part.id))), positions=positions, hashes=hashes,
        tokens=tokens, tried=tried, attempts=ctx.policy.attempts, lines=lines,
        code=code, reason=reason,
        # Line n of the part's file is its n-th request; of several objections to a line the first is kept.
        objections={positions[line - 1]: (code, message) for line, code, message in reversed(objected)}, free=free,
    )  # fmt: skip


def wire_hash(work: Work, position: int) -> int:
    """The hash of the custom_id under which a request goes out."""
    if work.flags[position] & Flag.DUPLICATE_ID:
        return xxh3_64_intdigest(wire_id(work.ordinal(position)).encode())
    return work.custom_id_hash[position]


def _why_missing(part: PartRow) -> tuple[str, str]:
    if part.error and part.status == "failed":
        code, _, message = part.error.partition(": ")
        return code, message or part.error
    return join.MISSING, (
        f"The provider returned no line for this request (its batch {part.provider_batch} ended as {part.status}), "
        "as often as it was sent."
    )


async def clean(ctx: Context, part: PartRow, *, keep: bool | None = None) -> bool:
    """Delete a part's files at the provider and its upload copy here, once they are no longer needed.

    Args:
        keep: Leave the files at the provider; they count as not cleaned. Default: what the policy says, but the input of
            a refused or withdrawn part is of no use to anybody.

    Returns:
        False if the provider did not delete one: to be tried again later. No work waits for that, so nothing is raised.
    """
    await ctx.blobs.delete(part.blob)
    if keep is None:
        keep = ctx.policy.keep_provider_files and part.stage not in UNUSED
    if keep:
        return True
    for file_id in (part.file_id, part.output_file_id, part.error_file_id):
        if file_id is None:
            continue
        try:
            await ctx.backend.delete_file(file_id)
        except (BackendError, ProviderRefused) as error:
            await note(ctx, EventKind.TROUBLE, f"deleting {file_id} failed: {error}; it is tried again later",
                       run=part.run, part=part.id, where="delete", message=str(error))  # fmt: skip
            return False

    def write(tx: Tx) -> None:
        now = tx.part(part.id)  # its stage may have moved on since the caller read it
        if now is not None:
            tx.update_part(now.id, now.stage, cleaned=True)

    await ctx.store.transact(write)
    return True
