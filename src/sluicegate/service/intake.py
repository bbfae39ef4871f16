"""Inputs: copy them into the data folder, check and count them in parallel, at constant memory."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import gzip
import hashlib
import os
import shutil
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import accumulate, chain
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, cast

from sluicegate.core import check, forecast
from sluicegate.core.belief import Pace
from sluicegate.core.check import Problem, Scan
from sluicegate.core.index import Flag, Group, Index, repeated_hashes
from sluicegate.core.limits import limits_of
from sluicegate.core.line import custom_id_of
from sluicegate.core.report import few
from sluicegate.core.rules import CheckRules
from sluicegate.core.types import Dialect
from sluicegate.errors import StateUnusable, UsageError
from sluicegate.ports import Workers
from sluicegate.service.scan import CounterOf, scan_range

CHUNK: Final = 4 << 20
SMALL: Final = 8 << 20
"""Inputs up to this size are scanned in this process: starting workers would take longer."""

WINDOW: Final = 1 << 20
FICLONE: Final = 0x40049409
GZIP: Final = b"\x1f\x8b"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSource:
    """A plain local file to check, and the name that messages call it by."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedInput:
    """An input in the data folder: SHA-256 and bytes of its uncompressed content.

    Attributes:
        aside: Where the copy is until a run's rows name it; None if it is in its place.
    """

    sha256: str
    bytes: int
    aside: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRequest:
    """A request with an error: which input, its ordinal there, and why."""

    source: int
    ordinal: int
    custom_id: str | None
    code: str
    message: str


@dataclass(slots=True)
class Problems:
    """All problems are counted; the first of each code are listed."""

    listed: list[Problem] = field(default_factory=list)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def errors(self) -> int:
        """How many are errors."""
        return sum(count for (_, severity), count in self.counts.items() if severity == "error")

    @property
    def total(self) -> int:
        """How many there are, warnings included."""
        return sum(self.counts.values())

    def add(self, problem: Problem) -> None:
        """Count a problem, and list it unless there are many of its code already."""
        key = (problem.code, problem.severity)
        seen = self.counts.get(key, 0)
        self.counts[key] = seen + 1
        if seen < check.LISTED_MOST:
            self.listed.append(problem)

    def absorb(self, scan: Scan, lines_before: int) -> None:
        """Add what a byte range brought."""
        room = {key: check.LISTED_MOST - count for key, count in self.counts.items()}
        for problem in scan.problems:
            key = (problem.code, problem.severity)
            if room.setdefault(key, check.LISTED_MOST) > 0:
                room[key] -= 1
                self.listed.append(Problem(**(asdict(problem) | {"line": problem.line + lines_before})))
        for key, count in scan.counts.items():
            self.counts[key] = self.counts.get(key, 0) + count


@dataclass(slots=True)
class Inspection:
    """What the check found: an index per input, the problems, the sums."""

    names: list[str]
    indexes: list[Index]
    sizes: list[int]
    problems: Problems
    bad: list[BadRequest]

    @property
    def requests(self) -> int:
        """Requests in all inputs, bad ones included."""
        return sum(len(index) for index in self.indexes)

    @property
    def tokens(self) -> int:
        """Estimated tokens in all."""
        return sum(sum(index.tokens) for index in self.indexes)

    @property
    def largest_tokens(self) -> int:
        """Tokens of the largest request."""
        return max((max(index.tokens, default=0) for index in self.indexes), default=0)

    @property
    def median_tokens(self) -> int:
        """Tokens of the median request (the lower of two)."""
        counts = Counter(chain.from_iterable(index.tokens for index in self.indexes))
        middle = (self.requests - 1) // 2
        for tokens, below in zip(sorted(counts), accumulate(counts[tokens] for tokens in sorted(counts)), strict=True):
            if below > middle:
                return tokens
        return 0

    @property
    def by_model(self) -> dict[str, dict[str, int]]:
        """Requests, tokens and the largest, by the model that lines name."""
        sums: dict[str, dict[str, int]] = {}
        for index in self.indexes:
            if len(index.groups) == 1 and not any(index.flags):
                requests, tokens, largest = len(index), sum(index.tokens), max(index.tokens)
                one = sums.setdefault(index.groups[0].model, {"requests": 0, "tokens": 0, "largest": 0})
                one["requests"] += requests
                one["tokens"] += tokens
                one["largest"] = max(one["largest"], largest)
                continue
            for group, tokens, flags in zip(index.group, index.tokens, index.flags, strict=True):
                if not flags & Flag.BAD:
                    one = sums.setdefault(index.groups[group].model, {"requests": 0, "tokens": 0, "largest": 0})
                    one["requests"] += 1
                    one["tokens"] += tokens
                    one["largest"] = max(one["largest"], tokens)
        return sums

    def to_json(self, *, limit: int | None, dialect: Dialect) -> dict[str, Any]:
        """The object of ``check --json`` (docs/check.md)."""
        by_model = self.by_model
        counts: dict[str, int] = {}
        for (code, _), count in self.problems.counts.items():
            counts[code] = counts.get(code, 0) + count
        return {
            "files": len(self.names), "requests": self.requests, "bytes": sum(self.sizes), "tokens": self.tokens,
            "median_tokens": self.median_tokens, "largest_tokens": self.largest_tokens, "by_model": by_model,
            "problem_count": self.problems.total, "problem_counts": counts,
            "problems": [asdict(problem) for problem in self.problems.listed],
        } | self.plan(by_model, limit=limit, dialect=dialect)  # fmt: skip

    def plan(
        self, by_model: Mapping[str, Mapping[str, int]], *, limit: int | None, dialect: Dialect, pace: Pace | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """``parts`` and ``holds_s``: how the work would be cut, and how long it would hold its deployment.

        Args:
            by_model: As in :meth:`to_json`; to make it reads every request.
        """
        limits = limits_of(dialect)
        groups = [(one["requests"], one["tokens"]) for one in by_model.values()]
        parts, holds_s = forecast.plan(
            groups, limit=limit, pace=pace or Pace(), requests_max=limits.requests_per_batch,
            bytes_max=limits.file_bytes, size=sum(self.sizes),
        )  # fmt: skip
        return {"parts": parts, "holds_s": holds_s}


def lenient_rules(dialect: Dialect, models: Mapping[str, str]) -> CheckRules:
    """Rules for a file that the provider has accepted already: index and count, complain of nothing."""
    return CheckRules(dialect=dialect, models=dict(models), lenient=True)


async def inspect(
    sources: Sequence[InputSource],
    *,
    rules: CheckRules,
    workers: Workers,
    counter: CounterOf,
    on_progress: Progress | None = None,
) -> Inspection:
    """Check and count inputs. Problems are returned, not raised.

    Whatever takes time in proportion to the lines is done by ``workers``: the caller's event loop serves others meanwhile.

    Args:
        counter: Gives the Counter, in whichever process the scan runs: a module-level function.
        on_progress: Called with (bytes done, bytes in all).
    """
    sizes = [source.path.stat().st_size for source in sources]
    found = Inspection(names=[s.name for s in sources], indexes=[], sizes=sizes, problems=Problems(), bad=[])
    done, total = 0, sum(sizes)
    for number, (source, size) in enumerate(zip(sources, sizes, strict=True)):
        index, lines = Index.empty(), 0
        waiting: deque[asyncio.Future[Scan] | Scan] = deque()
        starts = iter(range(0, size, CHUNK))
        inline = total <= SMALL or workers.width < 2
        try:
            while True:
                while len(waiting) < (1 if inline else 2 * workers.width) and (start := next(starts, None)) is not None:
                    work = (str(source.path), source.name, start, min(size, start + CHUNK), rules, counter)
                    waiting.append(
                        await workers.blocking(scan_range, *work)
                        if inline
                        else asyncio.ensure_future(workers.run(scan_range, *work))
                    )
                if not waiting:
                    break
                first = waiting.popleft()
                scan = first if isinstance(first, Scan) else await first
                await workers.blocking(_absorb, found, number, index, scan, lines)
                lines += scan.lines
                done += min(CHUNK, max(0, total - done))
                if on_progress is not None:
                    on_progress(min(done, total), total)
        finally:
            for left in waiting:
                if not isinstance(left, Scan):
                    left.cancel()
        found.indexes.append(index)
        if not rules.lenient:
            await workers.blocking(_whole_file_rules, found, number, source, rules)
        if not index.groups and len(index):
            index.groups.append(Group("", ""))
    await workers.blocking(_mark_shared_ids, found)
    return found


def _absorb(found: Inspection, number: int, index: Index, scan: Scan, lines: int) -> None:
    """Add what a byte range of an input brought to its index and to the findings."""
    ordinal = len(index)
    index.extend(scan.index, lines_before=lines)
    found.problems.absorb(scan, lines)
    found.bad += [
        BadRequest(source=number, ordinal=ordinal + o, custom_id=c, code=code, message=message)
        for o, c, code, message in scan.bad
    ]


def _whole_file_rules(found: Inspection, number: int, source: InputSource, rules: CheckRules) -> None:
    """What only shows when all lines are seen: nothing at all, duplicate ids, several urls or models."""
    index = found.indexes[number]

    def say(line: int, custom_id: str | None, code: str, severity: str, message: str, remedy: str) -> None:
        found.problems.add(
            Problem(file=source.name, line=line, custom_id=custom_id, code=code, severity=severity, message=message,
                    remedy=remedy)
        )  # fmt: skip

    if not len(index):
        say(0, None, "empty_file", "error",
            "The input file is empty. Please ensure that the batch contains at least one request.",
            "Give a file with one request a line.")  # fmt: skip
        return
    for first, again in _duplicates(index, source.path):
        custom_id = _id_at(source.path, index, again)
        message = f"The custom_id {custom_id!r} is not unique: line {index.line[first]:,} has it too."
        say(index.line[again], custom_id, "duplicate_custom_id", "error", message,
            "Give each request an id of its own: results are matched by it.")  # fmt: skip
        if not index.flags[again] & Flag.BAD:
            index.flags[again] |= Flag.BAD
            found.bad.append(
                BadRequest(
                    source=number, ordinal=again, custom_id=custom_id, code="duplicate_custom_id", message=message
                )
            )
    urls = {group.url for group in index.groups}
    models = {group.model for group in index.groups}
    if len(urls) > 1:
        say(0, None, "url_mismatch", "warning", f"The file has several urls: {', '.join(sorted(urls))}.",
            "`run` cuts by url, so the file works; the provider alone would refuse it.")  # fmt: skip
    if rules.models_most is not None and len(models) > rules.models_most and not (rules.redirect or rules.names):
        say(0, None, "model_mismatch" if rules.dialect is Dialect.AZURE else "mismatched_model", "error",
            f"The file names {len(models):,} models; a batch may name {rules.models_most:,}: {few(sorted(models))}.",
            "Split the file by model.")  # fmt: skip
    elif len(models) > 1 and rules.redirect is None:
        say(0, None, "model_mismatch", "warning", f"The file names several models: {few(sorted(models))}.",
            "`run` cuts by model, so the file works; the provider alone would refuse it.")  # fmt: skip


def _duplicates(index: Index, path: Path) -> list[tuple[int, int]]:
    """(first, again) of requests of one file that have the same custom_id; equal hashes are compared as texts."""
    repeated = repeated_hashes([index.custom_id_hash])
    found: list[tuple[int, int]] = []
    firsts: dict[int, dict[str | None, int]] = {}
    with path.open("rb") as file:
        for ordinal, hashed in enumerate(index.custom_id_hash) if repeated else ():
            if hashed in repeated:
                line = os.pread(file.fileno(), index.length[ordinal], index.offset[ordinal])
                first = firsts.setdefault(hashed, {}).setdefault(custom_id_of(line), ordinal)
                if first != ordinal:
                    found.append((first, ordinal))
    return found


def _id_at(path: Path, index: Index, ordinal: int) -> str | None:
    with path.open("rb") as file:
        return custom_id_of(os.pread(file.fileno(), index.length[ordinal], index.offset[ordinal]))


def _mark_shared_ids(found: Inspection) -> None:
    """Flag requests whose id (or its hash) an earlier request of the run has: they go out under another.

    Within one file equal ids are errors already; what is left there are different ids with equal hashes.
    """
    repeated = repeated_hashes([index.custom_id_hash for index in found.indexes])
    seen: set[int] = set()
    for index in found.indexes if repeated else ():
        for ordinal, hashed in enumerate(index.custom_id_hash):
            if hashed in seen and not index.flags[ordinal] & Flag.BAD:
                index.flags[ordinal] |= Flag.DUPLICATE_ID
            if hashed in repeated:
                seen.add(hashed)


# -- copies -----------------------------------------------------------------------------------------------------------


def copy_in_sync(name: str, destination: Path, on_progress: Progress | None = None) -> CopiedInput:
    """Copy an input, uncompressed if it is gzipped, to ``destination``: aside, fsynced, renamed.

    Args:
        name: A path, or ``-`` for standard input.

    Raises:
        UsageError: it is missing, a folder, not readable, or broken gzip.
        StateUnusable: the data folder has no room for it.
    """
    aside = destination.with_name(destination.name + ".tmp")
    try:
        with _opened(name) as source:
            size = os.fstat(source.fileno()).st_size if name != "-" else 0
            free = shutil.disk_usage(destination.parent).free
            if size > free:
                raise StateUnusable(
                    f"{destination.parent} has {free:,} bytes free and {name} needs {size:,}; free "
                    "disk space, or name another data folder with --state"
                )
            copied = _copy(name, source, aside, size, on_progress)
        aside.replace(destination)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StateUnusable(
                f"the data folder {destination.parent} is full; free disk space, or name another with --state"
            ) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()
    return copied


def _copy(name: str, source: BinaryIO, aside: Path, size: int, on_progress: Progress | None) -> CopiedInput:
    digest = hashlib.sha256()
    head = source.read(2)
    packed = head == GZIP
    with aside.open("w+b") as out:
        cloned = False
        if not packed and name != "-":
            # A copy-on-write clone costs nothing where the file system knows it.
            with suppress(OSError):
                fcntl.ioctl(out.fileno(), FICLONE, source.fileno())
                cloned = True
        total = 0
        reader: IO[bytes] = cast(IO[bytes], _Rejoined(head, source))
        if packed:
            reader = cast(IO[bytes], gzip.GzipFile(fileobj=reader, mode="rb"))
        try:
            while chunk := reader.read(WINDOW):
                digest.update(chunk)
                if not cloned:
                    out.write(chunk)
                total += len(chunk)
                if on_progress is not None and total % (16 * WINDOW) == 0:
                    on_progress(min(total, size or total), size or total)
        except (EOFError, gzip.BadGzipFile) as error:
            raise UsageError(f"{name} is not whole gzip: {error}; compress it anew") from error
        out.flush()
        os.fsync(out.fileno())
    return CopiedInput(sha256=digest.hexdigest(), bytes=total)


class _Rejoined:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int = -1) -> bytes:
        head, self._head = self._head, b""
        return head + self._rest.read(size if size < 0 else max(0, size - len(head)))


def _opened(name: str) -> BinaryIO:
    if name == "-":
        if sys.stdin is None:
            raise UsageError("- is standard input, and that is closed; pipe the requests in, or name a file")
        return cast(BinaryIO, os.fdopen(os.dup(sys.stdin.fileno()), "rb"))
    path = Path(name)
    try:
        if path.is_dir():
            raise UsageError(f"{name} is a folder; name the JSONL files in it, for instance {name.rstrip('/')}/*.jsonl")
        return cast(BinaryIO, path.open("rb"))
    except FileNotFoundError:
        raise UsageError(f"{name} does not exist; check the path") from None
    except PermissionError:
        raise UsageError(f"{name} cannot be read: permission denied; make it readable for your user") from None
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error


@dataclass(slots=True)
class PlainFile:
    """A plain file to read, and what has to be removed afterwards."""

    path: Path
    folder: tempfile.TemporaryDirectory[str] | None = None

    def close(self) -> None:
        """Remove the temporary copy, if there is one."""
        if self.folder is not None:
            self.folder.cleanup()


def open_plain(name: str) -> PlainFile:
    """A plain file with an input's content: itself, or an uncompressed temporary copy.

    Raises:
        UsageError: as :func:`copy_in_sync`.
    """
    if name != "-":
        with _opened(name) as source:
            regular = Path(name).is_file()
            if regular and source.read(2) != GZIP:
                return PlainFile(path=Path(name))
    folder = tempfile.TemporaryDirectory(prefix="sluicegate-")
    path = Path(folder.name) / "input.jsonl"
    try:
        copy_in_sync(name, path)
    except BaseException:
        folder.cleanup()
        raise
    return PlainFile(path=path, folder=folder)
