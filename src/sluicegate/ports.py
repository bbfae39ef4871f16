"""The seams to the world: everything that the service touches is one of these.

A simulation, or a test, replaces the outermost adapters only. Each port call is also a failpoint: a process may die
right before or right after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from sluicegate.core.ledger import Balance, Dimension, Entry
from sluicegate.core.lifecycle import Stage
from sluicegate.core.report import Event
from sluicegate.core.rows import BatchRow, DemandRow, DeploymentRow, ForeignRow, PartRow, ResourceRow, RunRow
from sluicegate.core.tenancy import ClientBatchRow, FileRow, KeyRow, TenantRow, UploadPartRow, UploadRow
from sluicegate.core.types import Accepted, BatchPage, Dialect, ProviderBatch, RemoteFile
from sluicegate.core.waiting import Spans

P = ParamSpec("P")
T = TypeVar("T")
GatewayRow = TenantRow | KeyRow | FileRow | UploadRow | UploadPartRow | ClientBatchRow
G = TypeVar("G", TenantRow, KeyRow, FileRow, UploadRow, UploadPartRow, ClientBatchRow)


class Clock(Protocol):
    """Time. The only place where a wall clock is read is the adapter behind this."""

    def now(self) -> float:
        """Unix seconds, UTC."""

    async def sleep(self, seconds: float) -> None:
        """Return after at least ``seconds`` (0 lets others run)."""


class Ids(Protocol):
    """Randomness and new ids."""

    def new(self, prefix: str) -> str:
        """A new unique id, ``{prefix}_{12 or more lower-case letters and digits}``."""

    def random(self) -> float:
        """A number in [0, 1)."""


class Backend(Protocol):
    """A provider's batch API, one resource and its credentials.

    Every call may raise :class:`~sluicegate.errors.AuthenticationFailed`,
    :class:`~sluicegate.errors.Throttled` and :class:`~sluicegate.errors.Unavailable`, and, unless it says otherwise,
    :class:`~sluicegate.errors.CallRefused` with its children. Reads are repeated by the adapter a few times at most;
    writes never.
    """

    @property
    def resource(self) -> str:
        """A stable name for the resource: the base URL without credentials or query."""

    @property
    def dialect(self) -> Dialect:
        """Whose rules hold."""

    async def upload(self, source: Path, *, filename: str, expires_after_s: int | None = None) -> RemoteFile:
        """Upload ``source`` as a batch input file, streaming, without retries.

        Raises:
            FileQuotaExceeded: the resource keeps as many files as it may.
            OutcomeUnknown: the answer was lost; look for ``filename`` with :meth:`find_files`.
        """

    async def find_files(self, filenames: frozenset[str]) -> tuple[RemoteFile, ...]:
        """All files of purpose ``batch`` with one of these names, pages read as far as needed."""

    async def file(self, file_id: str) -> RemoteFile:
        """One file's state."""

    async def delete_file(self, file_id: str) -> None:
        """Delete a file; a file that is gone already is no error."""

    async def create(self, *, input_file_id: str, endpoint: str, metadata: dict[str, str]) -> Accepted:
        """Create a batch with window 24h: exactly one POST, never repeated by the adapter.

        Raises:
            TokenLimitExceeded: refused at create; no batch exists.
            FileNotReady: the file is still ``pending``; no batch exists.
            DeploymentNotFound: the provider knows no such deployment; no batch exists.
            CallRefused: refused for another reason; no batch exists.
            Throttled: 429; no batch exists.
            OutcomeUnknown: no answer, or 5xx: a batch may exist.
        """

    async def list_batches(self, *, after: str | None = None, limit: int = 100) -> BatchPage:
        """One page of the resource's batches, newest first."""

    async def batch(self, batch_id: str) -> ProviderBatch:
        """One batch."""

    async def cancel(self, batch_id: str) -> ProviderBatch:
        """Ask for a cancel. Raises Conflict if the batch has ended."""

    def download(self, file_id: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """The file's content from ``offset``, in pieces of bounded size. Raises while iterating."""

    async def deployment_limit(self, deployment: str) -> int | None:
        """The account's own limit (Azure's management API, ``sku.capacity`` x 1,000), or None if unknown."""

    async def close(self) -> None:
        """Close connections."""


class Counter(Protocol):
    """Token counts of texts. Implementations are used inside worker processes, so they must be picklable or lazy."""

    def encodings(self) -> tuple[str, ...]:
        """The encodings it knows, for instance ``("o200k_base", "cl100k_base")``."""

    def count(self, texts: list[str], encoding: str) -> list[int]:
        """Tokens of each text as ordinary text (special tokens are not special). Never raises on any valid str."""


class Workers(Protocol):
    """CPU work: a process pool, or inline in a simulation."""

    @property
    def width(self) -> int:
        """How many calls run at once."""

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a module-level function with picklable arguments."""

    async def blocking(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that waits for files, in a thread (inline in a simulation)."""

    async def close(self) -> None:
        """Stop the workers."""


class Tx(Protocol):
    """What can be done within one transaction. Reads see the transaction's own writes."""

    def insert(
        self,
        *rows: RunRow | BatchRow | PartRow | DeploymentRow | GatewayRow,
    ) -> None:
        """Add new rows."""

    def find(self, kind: type[G], /, **equal: Any) -> list[G]:
        """The gateway's rows of one kind whose columns have these values, oldest first; a frozenset means any of it."""

    def page(
        self, kind: type[G], /, *, newest_first: bool, beyond: tuple[float, str] | None, limit: int, **equal: Any
    ) -> list[G]:  # fmt: skip
        """At most ``limit`` rows beyond the (created_at, id) of another, in that order."""

    def tally(self, kind: type[G], column: str, /) -> dict[str, int]:
        """How many of the gateway's rows of one kind there are for each value of a column of text."""

    def total(self, kind: type[G], column: str, /, **equal: Any) -> int:
        """The sum of a column of numbers over the gateway's rows of one kind that have these values."""

    def used_by_tenant(self, tenant: str, since: float) -> list[tuple[str, int, int]]:
        """What a tenant's parts that came home since then used: (deployment's name, input tokens, output tokens).

        Parts of runs that are deleted count by the day: those of the day of ``since`` count whole.
        """

    def forget_spend(self, before: float) -> None:
        """Remove what is kept of deleted runs for :meth:`used_by_tenant` from days before that of ``before``."""

    def aims_of_tenant(self, tenant: str) -> list[tuple[str, str | None, str | None]]:
        """Where a tenant's runs go: the different (groups, redirect, names) of its rows."""

    def amend(self, kind: type[G], key: str, /, given: Mapping[str, Any] | None = None, **changes: Any) -> bool:
        """Compare and set: change a row's columns if it has the values ``given``; False if it has not, or is gone."""

    def remove(self, kind: type[G], key: str, /) -> bool:
        """Delete one of the gateway's rows; False if it was gone."""

    def run(self, run: str) -> RunRow | None:
        """One run."""

    def runs(
        self, *, digest: str | None = None, unfinished: bool = False, ids: frozenset[str] | None = None
    ) -> list[RunRow]:  # fmt: skip
        """All runs, newest first, or those with this digest, or that have not ended, or with one of these ids."""

    def update_run(self, run: str, **changes: Any) -> None:
        """Change columns of a run."""

    def batches(self, run: str | None = None, *, input: str | None = None) -> list[BatchRow]:
        """The batches of a run in the order of its inputs, or of all runs; those that read one ``input``."""

    def update_batch(self, batch: str, **changes: Any) -> None:
        """Change columns of a batch."""

    def delete_run(self, run: str) -> None:
        """Remove a run with its batches, parts, waiting requests, events and the ledger entries of parts that are closed.

        What a tenant's parts used is kept for :meth:`used_by_tenant`.
        """

    def waiting(self, run: str) -> dict[tuple[int, int], Spans]:
        """Which requests wait, by (group, attempt): attempt 0 was never sent."""

    def set_waiting(self, run: str, group: int, attempt: int, spans: Spans) -> None:
        """Replace one entry of :meth:`waiting`."""

    def part(self, part: str) -> PartRow | None:
        """One part."""

    def parts(
        self, *, run: str | None = None, resource: str | None = None, deployment: str | None = None,
        stages: frozenset[Stage] | None = None,
    ) -> list[PartRow]:  # fmt: skip
        """Parts in the order of their cutting."""

    def left_since(self, deployment: str, at: float) -> list[PartRow]:
        """Parts of a deployment that the provider freed after ``at``."""

    def files_kept(self, resource: str) -> int:
        """How many parts have, or are about to have, an input file at the provider."""

    def creates_since(self, resource: str, at: float) -> int:
        """How many intents to create were written for a resource since ``at``."""

    def move_part(self, part: str, before: Stage, after: Stage, **changes: Any) -> bool:
        """Compare and set: move a part from ``before`` to ``after`` with other changes; False if it is elsewhere."""

    def update_part(self, part: str, stage: Stage, **changes: Any) -> bool:
        """Change columns of a part that is in ``stage``; False if it is elsewhere."""

    def append(self, entry: Entry) -> None:
        """Add a ledger entry; the database itself refuses a second reserve, hold or release of a part."""

    def balance(self, scope: str, dimension: Dimension, *, part: str | None = None) -> Balance:
        """The sum of a scope's entries, or of one part's in it; neither gets slower as the ledger grows."""

    def entries(self, *, part: str) -> list[Entry]:
        """The ledger entries of a part, oldest first."""

    def deployment(self, deployment: str) -> DeploymentRow | None:
        """One deployment by its id."""

    def deployments(self, *, resource: str | None = None) -> list[DeploymentRow]:
        """The deployments known, by name."""

    def update_deployment(self, deployment: str, **changes: Any) -> None:
        """Change columns of a deployment."""

    def foreign(self, resource: str) -> list[ForeignRow]:
        """Others' batches on a resource."""

    def put_foreign(self, row: ForeignRow) -> None:
        """Add or replace one."""

    def delete_foreign(self, provider_batch: str) -> None:
        """It ended."""

    def resource(self, resource: str) -> ResourceRow | None:
        """When its list was last read."""

    def put_resource(self, row: ResourceRow) -> None:
        """Add or replace."""

    def demands(self, deployment: str, *, runs: frozenset[str] | None = None) -> list[DemandRow]:
        """What live or dead runs last said they could still submit; or only these."""

    def put_demand(self, row: DemandRow) -> None:
        """Add or replace; ``tokens`` 0 removes it."""

    def forget_events(self, before: float) -> None:
        """Delete events that belong to no run and are older than ``before``, Unix seconds."""

    def add_event(self, event: Event) -> None:
        """Append to the record of what happened."""

    def events(self, *, run: str | None = None, part: str | None = None, after: int = 0) -> list[tuple[int, Event]]:
        """Events in order with their numbers, those above ``after``."""


class Store(Protocol):
    """Our rows. One call is one transaction."""

    async def transact(self, function: Callable[[Tx], T], /) -> T:
        """Run ``function`` in one IMMEDIATE transaction and commit; roll back if it raises.

        ``function`` must have no effect but through ``Tx`` and may run in another thread.
        """

    async def read(self, function: Callable[[Tx], T], /) -> T:
        """Run ``function``, which only reads, on what was committed last; it waits for no writer.

        A write in it raises.
        """

    async def version(self) -> tuple[int, int]:
        """Numbers that change when something is committed: through this store, and by others. It costs next to nothing."""

    async def close(self) -> None:
        """Close connections."""


class Blobs(Protocol):
    """Large objects in the data folder. A blob appears whole or not at all (written aside, fsynced, renamed)."""

    def path(self, key: str) -> Path:
        """Where the blob is, for workers and uploads; it need not exist."""

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        """Store a new blob; returns its bytes."""

    async def delete(self, *keys: str) -> None:
        """Remove blobs; absent ones are no error."""

    def keys(self, folder: str) -> list[str]:
        """What is in a folder now, also what was begun to be written and never finished."""


class RemoteBlobs(Protocol):
    """Blobs in other people's storage, by URL, where the operator allows it."""

    def check(self, url: str) -> None:
        """Raise ValueError, with a sentence for the client, for a URL that is not to be used."""

    async def fetch(self, url: str, target: Path, *, bytes_max: int, signature: str = "") -> int:
        """Copy a blob to a file, fsynced; returns its bytes. Raises BlobRefused, BlobUnavailable.

        ``signature``: the query with which it may be read, instead of the operator's.
        """

    async def put(self, source: Path, url: str) -> None:
        """Copy a file to a blob, whole. Raises BlobRefused, BlobUnavailable."""


class Lock(Protocol):
    """The sign that a process lives: an OS lock that the system frees when the process dies, however it dies."""

    def acquire(self, name: str) -> bool:
        """Take ``name`` for this process; False if a living process has it."""

    def is_free(self, name: str) -> bool:
        """True if no living process has ``name``."""

    def taken(self) -> frozenset[str]:
        """All names that living processes have, this one included."""

    def release(self, name: str) -> None:
        """Give ``name`` back."""
