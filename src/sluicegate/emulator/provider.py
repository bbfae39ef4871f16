"""The account behind the calls: the pure model, its clock, the files on disk, and who answers."""

from __future__ import annotations

import asyncio
import secrets
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sluicegate.emulator import reading, results
from sluicegate.emulator.answers import Answers, FixedAnswers, FunctionAnswers, answers_of, fixed_tokens, says_text
from sluicegate.emulator.batch import LIVE, Batch, InputFacts
from sluicegate.emulator.blobs import BlobFailed, Blobs
from sluicegate.emulator.clock import EmulatedClock
from sluicegate.emulator.config import DAY_S, Account
from sluicegate.emulator.model import Model

READ_AT_ONCE: Final = 1
"""Large input files that are read at the same time: reading is bound by CPU, and calls have to be answered meanwhile."""
SMALL_BYTES: Final = 4_000_000
FILE_DAYS_OPENAI: Final = 30


@dataclass(slots=True)
class StoredFile:
    """A file in the account.

    Attributes:
        ready_at: Not ``processed`` before. ``facts``: what reading it showed, once it was read.
        batch: Whose results they are, written when they are first asked for. ``fetched``: somebody downloaded it.
        fault: ``stuck_pending`` or ``error``. ``needed``: batches still read it, though it was deleted.
    """

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: float
    path: Path
    ready_at: float
    facts: InputFacts | None = None
    batch: str | None = None
    fetched: bool = False
    expires_at: float | None = None
    fault: str | None = None


class Provider:
    """One account, without HTTP.

    Args:
        folder: Where uploaded and written files are.
        function: Answers the requests in place of the account's ``answers``.
    """

    def __init__(self, account: Account, folder: Path, function: Callable[[dict[str, Any]], Any] | None = None) -> None:
        self.account = account.with_defaults()
        self.model = Model(self.account)
        self.clock = EmulatedClock(speed=self.account.speed, by_hand=self.account.clock == "hand")
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.files: dict[str, StoredFile] = {}
        self.blobs = Blobs(self.account.blobs, self.account.blob_sas)
        self.answers: Answers = FunctionAnswers(function) if function is not None else answers_of(self.account.answers)
        self._reader = asyncio.Semaphore(READ_AT_ONCE)
        self._counter = asyncio.Semaphore(READ_AT_ONCE)
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._counting: dict[str, asyncio.Task[None]] = {}
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._lost_lines = 0
        self._ticking: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()

    def now(self) -> float:
        """The emulated time, Unix seconds."""
        return self.clock.now()

    async def advance(self) -> None:
        """Let everything happen that is due by now; moved by hand, the clock waits for answers."""
        if self._counting and self.clock.by_hand:
            await asyncio.gather(*map(asyncio.shield, self._counting.values()))
        self.model.advance(self.now())
        self._drop_expired()
        while self.model.new_foreign:
            await self._keep_foreign(self.model.new_foreign.pop(0))
        waiting = [self._write_once(batch) for batch in self.model.waiting_for_results()]
        if waiting and self.clock.by_hand:
            await asyncio.gather(*map(asyncio.shield, waiting))

    def start(self) -> None:
        """Let things happen when they are due from now on, whether anybody calls or not."""
        self._ticking = asyncio.get_running_loop().create_task(self._tick())

    def moved(self) -> None:
        """Something was done that may be followed by an event: look again when the next one is due."""
        self._moved.set()

    async def _tick(self) -> None:
        """Sleep until the next event or the next change; a clock by hand has no event that comes by itself."""
        while True:
            self._moved.clear()
            wait_s = None
            if not self.clock.by_hand:
                await self.advance()
                at = self.model.next_event_at()
                wait_s = max(0.0, at - self.now()) / self.clock.speed if at is not None else None
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._moved.wait()

    async def close(self) -> None:
        """Stop what is being read and written."""
        tasks = [*self._reading.values(), *self._counting.values(), *self._writing.values()]
        tasks += [self._ticking] if self._ticking is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- files ----------------------------------------------------------------------------------------------------------

    def new_path(self) -> tuple[str, Path]:
        """An id for a file, and where its content goes."""
        file_id = f"file-{secrets.token_hex(16)}"
        return file_id, self.folder / file_id

    def quota_of_files(self, expiring: bool) -> int | None:
        """How many input files there may be at most if one more is not welcome; None if it is."""
        most = self.account.files_expiring_max if expiring else self.account.files_max
        kept = sum(
            1 for file in self.files.values() if file.purpose == "batch" and (file.expires_at is not None) == expiring
        )
        return most if most is not None and kept >= most else None

    async def add_file(
        self, file_id: str, filename: str, path: Path, *, purpose: str, seconds: float | None
    ) -> StoredFile:
        """Take a file in; a small one is read before this returns.

        Args:
            seconds: Until it expires; None: the provider's default (OpenAI: 30 days; Azure: never).
        """
        now = self.now()
        if seconds is None and self.account.dialect == "openai" and purpose == "batch":
            seconds = FILE_DAYS_OPENAI * DAY_S
        fault = self.model.faults.hit("file", now=now)
        file = StoredFile(
            id=file_id, filename=filename, purpose=purpose, bytes=path.stat().st_size, created_at=now, path=path,
            ready_at=now + self.account.pending_s, expires_at=now + seconds if seconds is not None else None,
            fault=fault.kind if fault is not None else None,
        )  # fmt: skip
        self.files[file_id] = file
        if purpose == "batch":
            task = asyncio.get_running_loop().create_task(self._read(file))
            self._reading[file_id] = task
            task.add_done_callback(lambda _: self._reading.pop(file_id, None))
            if file.bytes < SMALL_BYTES:
                await task
        return file

    async def _read(self, file: StoredFile) -> None:
        """Small files do not wait behind large ones: their uploads wait for them."""
        if file.bytes < SMALL_BYTES:
            file.facts = await asyncio.to_thread(reading.read, file.path, self.account)
            return
        async with self._reader:
            file.facts = facts = await asyncio.to_thread(reading.scan, file.path, self.account)
        if not facts.counted:
            self._counting[file.id] = asyncio.get_running_loop().create_task(self._count(file.id, file.path, facts))

    async def _count(self, file_id: str, path: Path, facts: InputFacts) -> None:
        """Count a large input while its batches validate; they wait for it."""
        async with self._counter:
            counted = await asyncio.to_thread(reading.count, path, self.account, facts.deployment)
        self._counting.pop(file_id, None)
        self.model.counted(self.now(), facts, counted.tokens, counted.identity)
        self.moved()

    def status(self, file: StoredFile) -> str:
        """``pending``, ``processed`` or ``error``; OpenAI knows no pending (F§1.9)."""
        if file.fault is not None:
            return "error" if file.fault == "error" else "pending"
        if self.account.dialect == "openai" and not self.account.pending_s:
            return "processed"
        ready = (file.facts is not None or file.purpose != "batch") and self.now() >= file.ready_at
        return "processed" if ready else "pending"

    async def read_through(self, file: StoredFile) -> None:
        """Wait until a file that is being read was read."""
        if file.id in self._reading:
            await asyncio.shield(self._reading[file.id])

    def delete(self, file: StoredFile) -> None:
        """Forget a file. A batch that has it as its input goes on, with the content."""
        self._count_lost(file)
        del self.files[file.id]
        if not any(batch.input_file_id == file.id for batch in self.model.batches.values()):
            counting = self._counting.pop(file.id, None)
            if counting is not None:
                counting.cancel()
            file.path.unlink(missing_ok=True)

    def _drop_expired(self) -> None:
        now = self.now()
        for file in [f for f in self.files.values() if f.expires_at is not None and f.expires_at <= now]:
            self.delete(file)

    def _count_lost(self, file: StoredFile) -> None:
        if file.batch is not None and self._is_unread_output(file):
            self._lost_lines += self.model.batches[file.batch].executed

    def lines_never_fetched(self) -> int:
        """Answers in output files that nobody has downloaded, deleted ones too."""
        for batch in self.model.batches.values():
            self.make_results(batch)
        return self._lost_lines + sum(
            self.model.batches[file.batch].executed
            for file in self.files.values()
            if file.batch is not None and self._is_unread_output(file)
        )

    def _is_unread_output(self, file: StoredFile) -> bool:
        ours = file.batch is not None and not self.model.batches[file.batch].foreign
        return ours and file.filename.endswith("_output.jsonl") and not file.fetched

    async def _keep_foreign(self, batch: Batch) -> None:
        path = self.folder / batch.input_file_id
        await asyncio.to_thread(results.write_foreign, path, batch, self.account.seed)
        self.files[batch.input_file_id] = StoredFile(
            id=batch.input_file_id, filename="other.jsonl", purpose="batch", bytes=path.stat().st_size,
            created_at=batch.created_at, path=path, ready_at=batch.created_at, facts=batch.facts,
            expires_at=batch.created_at + FILE_DAYS_OPENAI * DAY_S,
        )  # fmt: skip

    # -- batches --------------------------------------------------------------------------------------------------------

    async def facts_of_blob(self, url: str, path: Path) -> InputFacts:
        """Read a blob as an input; one that cannot be read is a problem that validating finds."""
        try:
            await asyncio.to_thread(self.blobs.fetch, url, path)
        except BlobFailed as error:
            path.touch()
            return no_facts("input_no_permissions", str(error))
        async with self._reader:
            return await asyncio.to_thread(reading.read, path, self.account)

    @property
    def answers_are_fixed(self) -> bool:
        """Whether a batch's answers are known without asking anybody."""
        return isinstance(self.answers, FixedAnswers)

    def _answers_for(self, batch: Batch) -> Answers:
        """Whoever answers is not asked for somebody else's batches."""
        return FixedAnswers() if batch.foreign else self.answers

    def make_results(self, batch: Batch) -> None:
        """Result files appear with a batch's end: Azure names an empty error file, OpenAI gives null (F§2.4)."""
        if batch.output_file_id is not None or batch.error_file_id is not None or "output_folder" in batch.extras:
            return
        if batch.status in LIVE or batch.status == "failed":
            return
        output, errors = self._result_paths(batch)
        unfinished = batch.ends_as == "expired" and batch.executed < len(batch.facts.tokens)
        if batch.executed - batch.failed > 0:
            batch.output_file_id = self._add_result(batch, output, "output")
        if batch.failed or unfinished or self.account.dialect == "azure":
            batch.error_file_id = self._add_result(batch, errors, "error")

    def _add_result(self, batch: Batch, path: Path, kind: str) -> str:
        file_id = f"file-{secrets.token_hex(4)}-{secrets.token_hex(8)}"
        ended = batch.ended_at if batch.ended_at is not None else self.now()
        default = FILE_DAYS_OPENAI * DAY_S if self.account.dialect == "openai" else None  # F§2.6
        seconds = batch.extras.get("output_seconds") or default
        self.files[file_id] = StoredFile(
            id=file_id, filename=f"{batch.id}_{kind}.jsonl", purpose="batch_output",
            bytes=path.stat().st_size if path.exists() else 0, created_at=ended, path=path, ready_at=ended,
            batch=batch.id, expires_at=ended + seconds if seconds else None,
        )  # fmt: skip
        return file_id

    def usage(self, batch: Batch) -> dict[str, Any]:
        """Tokens of the requests that were answered, and of the answers: the sum of what the lines say."""
        given, made = batch.input_tokens, batch.output_tokens
        if isinstance(self._answers_for(batch), FixedAnswers):
            given, made = batch.tokens_answered, 0
            if batch.executed and says_text(batch.facts.url):
                made = fixed_tokens() * (batch.executed - len(batch.unanswered))
        return {
            "input_tokens": given, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": given + made,
        }  # fmt: skip

    async def results(self, file: StoredFile) -> None:
        """Have a batch's results written; nothing to do for other files."""
        if file.batch is None:
            return
        if not file.path.exists():
            await asyncio.shield(self._write_once(self.model.batches[file.batch]))
        file.bytes = file.path.stat().st_size

    def _write_once(self, batch: Batch) -> asyncio.Task[None]:
        task = self._writing.get(batch.id)
        if task is None:
            task = self._writing[batch.id] = asyncio.get_running_loop().create_task(self._write(batch))
            task.add_done_callback(lambda _: self._writing.pop(batch.id, None))
        return task

    async def _write(self, batch: Batch) -> None:
        output, errors = self._result_paths(batch)
        aside = output.with_name(f"{output.name}.tmp"), errors.with_name(f"{errors.name}.tmp")
        written = await asyncio.to_thread(
            results.write_results, self.model, batch, self.folder / batch.input_file_id, *aside,
            self._answers_for(batch),
        )  # fmt: skip
        for temporary, path in zip(aside, (output, errors), strict=True):
            temporary.replace(path)
        if "output_folder" in batch.extras:
            await self._put_results(batch, output, errors)
        if batch.gated:
            self.model.open_gate(
                self.now(), batch.id, failed=written.failed, input_tokens=written.input_tokens,
                output_tokens=written.output_tokens,
            )  # fmt: skip
            self.moved()

    async def _put_results(self, batch: Batch, output: Path, errors: Path) -> None:
        """Write the result blobs; an input that is another by now, or a folder that cannot be written, is a failure."""
        before = batch.extras.get("fingerprint")
        code, message = "input_modified", "The input blob was changed while the batch was being processed."
        try:
            if before != await asyncio.to_thread(self.blobs.fingerprint, batch.extras.get("input_blob", "")):
                raise BlobFailed(message)
            code = "input_no_permissions"
            for path, name in ((output, "output_blob"), (errors, "error_blob")):
                if path.stat().st_size:
                    await asyncio.to_thread(self.blobs.put, path, batch.extras[name])
        except BlobFailed as failed:
            batch.errors = [{"code": code, "message": str(failed), "param": None, "line": None}]
            batch.ends_as = "failed"

    def _result_paths(self, batch: Batch) -> tuple[Path, Path]:
        return self.folder / f"{batch.id}.output", self.folder / f"{batch.id}.errors"


def no_facts(code: str, message: str, *, param: str | None = None, line: int | None = None) -> InputFacts:
    """Facts of an input that has none but a problem."""
    problem = {"code": code, "message": message, "param": param, "line": line}
    return InputFacts(
        tokens=array("I"), identity=array("Q"), quarter_chars=0, deployment="", url="", problems=[problem]
    )
