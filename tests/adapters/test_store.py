"""The store on a real SQLite file, also with several processes on it."""

import asyncio
import sqlite3
import sys
import textwrap
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from sluicegate.adapters import schema
from sluicegate.adapters.store import SqlStore
from sluicegate.core.ledger import Balance, Dimension, Entry, Verb, post
from sluicegate.core.lifecycle import RunState, Stage
from sluicegate.core.report import Event, EventKind
from sluicegate.core.rows import BatchRow, DemandRow, DeploymentRow, ForeignRow, PartRow, ResourceRow, RunRow
from sluicegate.core.tenancy import ClientBatchRow, TenantRow
from sluicegate.core.types import BatchStatus
from sluicegate.core.waiting import Spans
from sluicegate.errors import StateUnusable
from sluicegate.ports import Tx

RUN = RunRow(
    id="run_1", digest="d", state=RunState.ACTIVE, resource="r", dialect="azure", groups="[]", redirect=None, cap=None,
    requests=10, tokens=100, serial=0, created_at=1.0,
)  # fmt: skip
PART = PartRow(
    id="part_1", run="run_1", deployment="r#d", resource="r", url="/v1/chat/completions", group=0, stage=Stage.RESERVED,
    requests="0-4", retries="{}", count=5, tokens=50, quarter_chars=40, bytes=500, charge=51, attempt=0, fill=51,
    unproven=False, probing=False, reason="why", created_at=2.0, blob="parts/part_1.jsonl",
)  # fmt: skip


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    one = SqlStore(tmp_path / "s.sqlite3")
    yield one
    await one.close()


def reserve(part: str, amount: int) -> Entry:
    return post(
        Verb.RESERVE, scope="r#d", dimension=Dimension.TOKENS, part=part, before=Balance(), at=1.0, amount=amount
    )


async def test_rows_come_back_as_they_went_in(store: SqlStore) -> None:
    """Every kind of row, each column."""
    batch = BatchRow(
        id="batch_1", run="run_1", ordinal=0, name="ü.jsonl", digest="d", input="inputs/d", index="indexes/x", bytes=9,
        first=0, requests=10, output="o", errors="e",
    )  # fmt: skip
    deployment = DeploymentRow(id="r#d", resource="r", name="d", model=None, belief="{}")
    foreign = ForeignRow(
        provider_batch="b", resource="r", deployment="*", status="validating", tokens=1, quarter_chars=2,
        basis="content", seen_at=3.0,
    )  # fmt: skip

    def write(tx: Tx) -> None:
        tx.insert(RUN, batch, PART, deployment)
        tx.put_foreign(foreign)
        tx.put_foreign(replace(foreign, status="in_progress"))
        tx.put_resource(ResourceRow(id="r", listed_at=4.0))
        tx.put_demand(DemandRow(run="run_1", deployment="r#d", tokens=7, cap=None, at=1.0))
        tx.set_waiting("run_1", 0, 0, Spans.parse("5-9"))

    await store.transact(write)

    assert await store.transact(lambda tx: tx.run("run_1")) == RUN
    assert await store.transact(lambda tx: tx.batches("run_1")) == [batch]
    assert await store.transact(lambda tx: tx.batches(input="inputs/d")) == [batch]
    assert await store.transact(lambda tx: tx.batches(input="inputs/e")) == []
    assert await store.transact(lambda tx: tx.part("part_1")) == PART
    assert await store.transact(lambda tx: tx.deployments(resource="r")) == [deployment]
    assert await store.transact(lambda tx: tx.foreign("r")) == [replace(foreign, status="in_progress")]
    assert await store.transact(lambda tx: tx.resource("r")) == ResourceRow(id="r", listed_at=4.0)
    assert await store.transact(lambda tx: [d.tokens for d in tx.demands("r#d")]) == [7]
    some = frozenset({"run_1", "run_2"})
    for ids in (some, some | {f"run_{n}" for n in range(3, 200)}):
        assert await store.read(lambda tx, ids=ids: tx.runs(ids=ids)) == [RUN]  # type: ignore[misc]
        assert await store.read(lambda tx, ids=ids: [d.tokens for d in tx.demands("r#d", runs=ids)]) == [7]  # type: ignore[misc]
        others = ids - {"run_1"}
        assert not await store.read(lambda tx, ids=others: tx.runs(ids=ids) + tx.demands("r#d", runs=ids))  # type: ignore[misc]
    assert await store.read(lambda tx: tx.demands("r#d", runs=frozenset())) == []
    assert await store.transact(lambda tx: tx.waiting("run_1")) == {(0, 0): Spans.parse("5-9")}


async def test_a_stage_is_left_by_one_only(store: SqlStore) -> None:
    """Compare and set: of two that move a part, one is told that someone else did it."""
    await store.transact(lambda tx: tx.insert(RUN, PART))

    first = await store.transact(lambda tx: tx.move_part("part_1", Stage.RESERVED, Stage.SUBMITTING, intent_at=5.0))
    second = await store.transact(lambda tx: tx.move_part("part_1", Stage.RESERVED, Stage.SUBMITTING, intent_at=6.0))
    assert (first, second) == (True, False)
    assert (await store.transact(lambda tx: tx.part("part_1"))).intent_at == 5.0  # type: ignore[union-attr]
    with pytest.raises(AssertionError):
        await store.transact(lambda tx: tx.move_part("part_1", Stage.SUBMITTING, Stage.COLLECTED))


async def test_a_balance_is_the_sum_of_entries_and_of_a_part(store: SqlStore) -> None:
    """D2, over the database."""
    other = replace(PART, id="part_2", run="run_2")
    await store.transact(lambda tx: tx.insert(RUN, PART, other))

    def write(tx: Tx) -> None:
        tx.append(reserve("part_1", 51))
        tx.append(reserve("part_2", 9))
        before = tx.balance("r#d", Dimension.TOKENS, part="part_1")
        tx.append(post(Verb.HOLD, scope="r#d", dimension=Dimension.TOKENS, part="part_1", before=before, at=2.0))

    await store.transact(write)

    assert await store.transact(lambda tx: tx.balance("r#d", Dimension.TOKENS)) == Balance(reserved=9, held=51)
    assert await store.transact(lambda tx: tx.balance("r#other", Dimension.TOKENS)) == Balance()
    assert [e.verb for e in await store.transact(lambda tx: tx.entries(part="part_1"))] == [Verb.RESERVE, Verb.HOLD]


async def test_a_pruned_run_takes_the_entries_of_its_closed_parts_along(store: SqlStore) -> None:
    """What is open stays on the books, whoever deletes what."""
    await store.transact(lambda tx: tx.insert(RUN))

    def write(tx: Tx) -> None:
        for part in ("part_1", "part_2"):
            tx.append(reserve(part, 51))  # before the part's row is there, as the scheduler does it
        tx.insert(PART, replace(PART, id="part_2"))
        before = tx.balance("r#d", Dimension.TOKENS, part="part_1")
        tx.append(post(Verb.VOID, scope="r#d", dimension=Dimension.TOKENS, part="part_1", before=before, at=2.0))
        tx.delete_run("run_1")

    await store.transact(write)

    assert await store.transact(lambda tx: tx.balance("r#d", Dimension.TOKENS)) == Balance(reserved=51)
    assert not await store.transact(lambda tx: tx.entries(part="part_1"))
    assert [e.verb for e in await store.transact(lambda tx: tx.entries(part="part_2"))] == [Verb.RESERVE]


async def test_the_database_itself_refuses_a_second_reservation(store: SqlStore) -> None:
    """Even a programme that does not ask for the balance first cannot reserve, hold or close twice."""
    await store.transact(lambda tx: tx.append(reserve("part_1", 5)))

    with pytest.raises(sa.exc.IntegrityError):
        await store.transact(lambda tx: tx.append(reserve("part_1", 5)))


async def test_a_transaction_that_fails_leaves_nothing(store: SqlStore) -> None:
    """All or nothing."""

    def write(tx: Tx) -> None:
        tx.insert(RUN)
        raise RuntimeError("die here")

    with pytest.raises(RuntimeError):
        await store.transact(write)
    assert await store.transact(lambda tx: tx.runs()) == []


async def test_events_are_kept_in_order_with_their_fields(store: SqlStore) -> None:
    """The record of what happened is JSON with a version."""
    event = Event(at=1.0, kind=EventKind.REFUSED, sentence="ü", run="run_1", part="p", fields={"limit": 30_000})
    await store.transact(lambda tx: tx.add_event(event))

    (number, read), *rest = await store.transact(lambda tx: tx.events(run="run_1"))
    assert read == event and not rest
    assert await store.transact(lambda tx: tx.events(after=number)) == []


async def test_rows_are_found_by_value_by_set_and_by_nothing(store: SqlStore) -> None:
    """An empty set has no rows, a value of None is NULL, and flags are read as such."""
    rows = [
        TenantRow(id=name, weight=1.0, created_at=at) for name, at in (("a", 1.0), ("b", 2.0), ("c", 3.0))
    ]  # fmt: skip
    batch = ClientBatchRow(
        id="batch_1", tenant="a", key="k", input_file="f", input="i", input_bytes=1, endpoint="/v1/x", window="24h",
        metadata=None, status=BatchStatus.VALIDATING, fingerprint="p", created_at=0.0, due_at=1.0,
    )  # fmt: skip
    await store.transact(lambda tx: tx.insert(*rows, batch))

    def found(tx: Tx, **equal: Any) -> list[str]:
        return [row.id for row in tx.find(TenantRow, **equal)]

    assert await store.transact(lambda tx: found(tx)) == ["a", "b", "c"]
    assert await store.transact(lambda tx: found(tx, id="b")) == ["b"]
    assert await store.transact(lambda tx: found(tx, id=frozenset("ac"))) == ["a", "c"]
    assert await store.transact(lambda tx: found(tx, id=frozenset())) == []
    assert await store.transact(lambda tx: found(tx, id=frozenset("ac"), created_at=3.0)) == ["c"]
    assert await store.transact(lambda tx: tx.find(ClientBatchRow, ended_at=None)) == [batch]
    assert await store.transact(lambda tx: tx.find(ClientBatchRow, ended_at=1.0)) == []


async def test_the_migrations_make_exactly_the_tables_of_a_new_database(store: SqlStore, tmp_path: Path) -> None:
    """A new database is made from the description, an old one by migrations; and the code knows the newest."""
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.REVISION
    described = sa.create_engine(f"sqlite:///{tmp_path / 's.sqlite3'}")
    migrated = sa.create_engine(f"sqlite:///{tmp_path / 'migrated.sqlite3'}")
    with migrated.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    names = sa.inspect(described).get_table_names()
    assert sa.inspect(migrated).get_table_names() == names
    for name in names:
        assert str(sa.inspect(migrated).get_columns(name)) == str(sa.inspect(described).get_columns(name))
    made = (
        "SELECT name, replace(replace(sql, '\t', ''), '\n', '') FROM sqlite_master WHERE type = 'index' ORDER BY name"
    )
    with described.connect() as new, migrated.connect() as old:
        assert new.execute(sa.text(made)).all() == old.execute(sa.text(made)).all()
    described.dispose()
    migrated.dispose()


async def test_a_folder_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """An old programme never writes into rows it does not understand."""
    path = tmp_path / "s.sqlite3"
    await SqlStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()

    with pytest.raises(StateUnusable, match="newer version"):
        SqlStore(path)


async def test_an_unwritable_database_says_what_to_do(tmp_path: Path) -> None:
    """A directory in the file's place stands for every way in which it cannot be opened."""
    (tmp_path / "s.sqlite3").mkdir()

    with pytest.raises(StateUnusable, match="--state"):
        SqlStore(tmp_path / "s.sqlite3")


WRITER = """
    import asyncio, sys
    from pathlib import Path
    from sluicegate.adapters.store import SqlStore
    from sluicegate.core.ledger import Balance, Dimension, Verb, post

    LIMIT = 1_000
    name = sys.argv[2]

    async def main():
        store = SqlStore(Path(sys.argv[1]))
        for i in range(100):
            def turn(tx):
                total = tx.balance("r#d", Dimension.TOKENS).total
                if total + 10 <= LIMIT:
                    tx.append(post(Verb.RESERVE, scope="r#d", dimension=Dimension.TOKENS, part=f"{name}-{i}",
                                   before=Balance(), at=0.0, amount=10))
            await store.transact(turn)
        await store.close()

    asyncio.run(main())
"""


async def test_processes_that_reserve_at_once_never_pass_the_limit(tmp_path: Path) -> None:
    """Three processes, 300 turns, room for 100: the balance ends at the limit exactly (D2)."""
    path = tmp_path / "s.sqlite3"
    await SqlStore(path).close()
    writers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(WRITER), str(path), name)
        for name in ("a", "b", "c")
    ]
    codes = [await writer.wait() for writer in writers]

    store = SqlStore(path)
    total = await store.transact(lambda tx: tx.balance("r#d", Dimension.TOKENS))
    await store.close()
    assert codes == [0, 0, 0]
    assert total == Balance(reserved=1_000)


async def test_reads_wait_for_no_writer_see_the_last_commit_and_change_nothing(tmp_path: Path) -> None:
    """While a transaction is open, what was committed before it is read; a write in a read is refused."""
    store = SqlStore(tmp_path / "s.sqlite3")
    await store.transact(lambda tx: tx.insert(TenantRow(id="a", weight=1.0, created_at=1.0)))
    entered, go_on = threading.Event(), threading.Event()

    def slow(tx: Tx) -> None:
        tx.insert(TenantRow(id="b", weight=1.0, created_at=2.0))
        entered.set()
        assert go_on.wait(20)

    writing = asyncio.create_task(store.transact(slow))
    await asyncio.to_thread(entered.wait, 20)
    seen = await asyncio.wait_for(store.read(lambda tx: tx.find(TenantRow)), 10)
    go_on.set()
    await writing

    assert [row.id for row in seen] == ["a"]
    assert [row.id for row in await store.read(lambda tx: tx.find(TenantRow))] == ["a", "b"]
    with pytest.raises(StateUnusable):
        await store.read(lambda tx: tx.remove(TenantRow, "a"))
    await store.close()


async def test_rows_are_counted_by_a_column_and_usage_by_tenant(tmp_path: Path) -> None:
    """For metrics and for limits of spend."""
    store = SqlStore(tmp_path / "s.sqlite3")
    rows = [TenantRow(id=name, weight=1.0, created_at=1.0) for name in "abc"]
    await store.transact(lambda tx: tx.insert(*rows))

    assert await store.read(lambda tx: tx.tally(TenantRow, "id")) == {"a": 1, "b": 1, "c": 1}
    assert await store.read(lambda tx: tx.used_by_tenant("a", 0.0)) == []
    await store.close()


async def test_a_database_that_is_none_any_more_is_the_folders_fault_and_a_doubled_row_is_ours(
    store: SqlStore, tmp_path: Path
) -> None:
    """Corruption is said with what to do; a broken constraint is a defect, and is not called a full disk."""
    await store.transact(lambda tx: tx.insert(RUN))
    with pytest.raises(sa.exc.IntegrityError):
        await store.transact(lambda tx: tx.insert(RUN))

    other = SqlStore(tmp_path / "other.sqlite3")
    await other.transact(lambda tx: tx.insert(RUN))
    for path in tmp_path.glob("other.sqlite3*"):
        path.write_bytes(b"no database" * 4_096)
    try:
        with pytest.raises(StateUnusable, match="mend the folder"):
            await other.read(lambda tx: tx.runs())
    finally:
        await other.close()
