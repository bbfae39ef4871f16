"""The Store port over SQLAlchemy Core: SQLite in one data folder, several processes may share it.

Every transaction is IMMEDIATE, so a decision and the ledger entry that follows from it cannot be interleaved with
another process's (D2). WAL lets readers go on; ``synchronous=FULL`` makes a commit survive a power cut. What is asked
within a transaction stands in :mod:`sluicegate.adapters.transaction`.
"""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar, cast

import sqlalchemy as sa

from sluicegate.adapters import schema
from sluicegate.adapters.transaction import SqlTx
from sluicegate.errors import StateUnusable
from sluicegate.ports import Tx

T = TypeVar("T")

BUSY_TIMEOUT_MS: Final = 60_000


class SqlStore:
    """The Store port on one SQLite file.

    Args:
        path: The database file; its folder exists.
        inline: Run transactions in the caller's thread (simulations, where nothing else may be awaited meanwhile).

    Raises:
        StateUnusable: the file cannot be opened or written, or a newer version of Sluicegate made it.
    """

    def __init__(self, path: Path, *, inline: bool = False) -> None:
        self._path = path
        self._executor = None if inline else ThreadPoolExecutor(1, thread_name_prefix="store")
        self._engine = sa.create_engine(
            f"sqlite:///{path}",
            poolclass=sa.pool.StaticPool,
            # isolation_level None: the driver begins nothing by itself, _begin_immediate does.
            connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000, "isolation_level": None},
        )
        sa.event.listen(self._engine, "connect", self._prepare)
        sa.event.listen(self._engine, "begin", _begin_immediate)
        self._reading = None if inline else _Reading(path)
        try:
            # One process at a time: SQLite does not wait when two switch a new file to WAL at once.
            with _alone(path.with_name(f"{path.name}.opening")):
                self._migrate()
        except (sa.exc.DBAPIError, OSError) as error:
            why = error.orig if isinstance(error, sa.exc.DBAPIError) else error.strerror
            raise StateUnusable(
                f"the data folder's database {path} cannot be used: {why}; "
                "check that the folder is writable and the disk not full, or name another with --state"
            ) from error

    def _migrate(self) -> None:
        with self._engine.connect() as connection:
            tables = sa.inspect(connection).get_table_names()
            known = (
                connection.scalar(sa.select(schema.version.c.version_num)) if schema.version.name in tables else None
            )
        if known == schema.REVISION:
            return
        if not tables:
            with self._engine.begin() as connection:
                schema.metadata.create_all(connection)
                schema.version.create(connection)
                connection.execute(schema.version.insert().values(version_num=schema.REVISION))
            return
        # Only here: importing Alembic takes longer than most commands.
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        if known is not None and known not in {
            s.revision for s in ScriptDirectory.from_config(config).walk_revisions()
        }:
            raise StateUnusable(
                f"{self._path} was made by a newer version of Sluicegate (schema {known}); upgrade Sluicegate, "
                "or name another folder with --state"
            )
        with self._engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    async def transact(self, function: Callable[[Tx], T], /) -> T:
        if self._executor is None:
            return self._transact(function)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._transact, function)

    def _transact(self, function: Callable[[Tx], T]) -> T:
        try:
            with self._engine.begin() as connection:
                return function(cast(Tx, SqlTx(connection)))
        except (sa.exc.DatabaseError, sqlite3.DatabaseError) as error:
            raise _failed(self._path, error) from _cause(error)

    async def read(self, function: Callable[[Tx], T], /) -> T:
        if self._reading is None:
            return self._transact(function)
        return await self._reading.read(function)

    async def version(self) -> tuple[int, int]:
        if self._executor is None:
            return self._version()
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._version)

    def _version(self) -> tuple[int, int]:
        by_others = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return self._connection.total_changes, by_others

    def _prepare(self, connection: sqlite3.Connection, record: object) -> None:
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        self._connection = connection

    async def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown()
        if self._reading is not None:
            self._reading.close()
        self._engine.dispose()


class _Reading:
    """A connection of its own for reads, in a thread of its own: WAL lets it see the last commit while others write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="reads")
        self._engine = sa.create_engine(
            f"sqlite:///{path}", poolclass=sa.pool.StaticPool,
            connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000, "isolation_level": None},
        )  # fmt: skip
        sa.event.listen(self._engine, "connect", _only_reads)
        sa.event.listen(self._engine, "begin", _begin)

    async def read(self, function: Callable[[Tx], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._read, function)

    def _read(self, function: Callable[[Tx], T]) -> T:
        try:
            with self._engine.begin() as connection:
                return function(cast(Tx, SqlTx(connection)))
        except (sa.exc.DatabaseError, sqlite3.DatabaseError) as error:
            raise _failed(self._path, error) from _cause(error)

    def close(self) -> None:
        self._executor.shutdown()
        self._engine.dispose()


def _only_reads(connection: sqlite3.Connection, record: object) -> None:
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "query_only=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _cause(error: sa.exc.DatabaseError | sqlite3.DatabaseError) -> BaseException | None:
    return error.orig if isinstance(error, sa.exc.DatabaseError) else error


def _failed(path: Path, error: sa.exc.DatabaseError | sqlite3.DatabaseError) -> Exception:
    if type(_cause(error)) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
        return error  # a broken constraint or a wrong query is a fault of ours, not of the folder
    return StateUnusable(
        f"the data folder's database {path} failed: {_cause(error)}; what was committed before is safe. Free disk space or "
        "mend the folder, then start again"
    )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock file that the system frees when the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _begin_immediate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")
