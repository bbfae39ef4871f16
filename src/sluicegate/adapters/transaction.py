"""The Tx port: what Sluicegate asks of its rows, in SQL over one SQLAlchemy connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from sluicegate.adapters import schema
from sluicegate.core.ledger import Balance, Dimension, Entry, Verb
from sluicegate.core.lifecycle import RunState, Stage, check_transition
from sluicegate.core.report import Event, EventKind
from sluicegate.core.rows import BatchRow, DemandRow, DeploymentRow, ForeignRow, PartRow, ResourceRow, RunRow
from sluicegate.core.tenancy import ClientBatchRow, FileRow, KeyRow, Role, TenantRow, UploadPartRow, UploadRow
from sluicegate.core.types import BatchStatus, Dialect
from sluicegate.core.waiting import Spans
from sluicegate.ports import G, GatewayRow

Row = TypeVar(
    "Row", RunRow, BatchRow, PartRow, DeploymentRow, ForeignRow, ResourceRow, DemandRow, TenantRow, KeyRow, FileRow,
    UploadRow, UploadPartRow, ClientBatchRow,
)  # fmt: skip

EVENT_VERSION: Final = 1
DAY_S: Final = 86_400

_TABLES: Final[dict[type, sa.Table]] = {
    RunRow: schema.runs,
    BatchRow: schema.batches,
    PartRow: schema.parts,
    DeploymentRow: schema.deployments,
    ForeignRow: schema.foreign,
    ResourceRow: schema.resources,
    DemandRow: schema.demands,
    TenantRow: schema.tenants,
    KeyRow: schema.keys,
    FileRow: schema.files,
    UploadRow: schema.uploads,
    UploadPartRow: schema.upload_parts,
    ClientBatchRow: schema.client_batches,
}
_NAMES: Final = {kind: [f.name for f in fields(kind)] for kind in _TABLES}
_COLUMNS: Final = {kind: [table.c[name] for name in _NAMES[kind]] for kind, table in _TABLES.items()}
_ENUMS: Final[dict[type, dict[str, Callable[[Any], Any]]]] = {
    RunRow: {"state": RunState},
    PartRow: {"stage": Stage},
    KeyRow: {"role": Role},
    ClientBatchRow: {"status": BatchStatus, "dialect": Dialect},
}
_READ_AS: Final = {
    kind: _ENUMS.get(kind, {}) | {c.name: bool for c in _COLUMNS[kind] if isinstance(c.type, sa.Boolean)}
    for kind in _TABLES
}
"""What a column's value becomes; all others are read as SQLite gives them."""

_DIALECT: Final = sqlite.dialect()


@lru_cache(1_000)
def _query(kind: type, shape: tuple[tuple[str, str | int], ...], order: str | None) -> str:
    """The SQL of the rows of a kind whose columns are ``equal`` to a value, ``null``, or in a set of so many or ``many``; bound
    in order.

    Made once for each shape and executed as it stands: seven eighths of what a small query takes through SQLAlchemy is its
    way to SQLite.
    """
    columns = _TABLES[kind].c
    query = sa.select(*_COLUMNS[kind])
    for name, how in shape:
        if how == "null":
            query = query.where(columns[name].is_(None))
        elif how == "equal":
            query = query.where(columns[name] == sa.bindparam(name))
        elif how == "many":
            query = query.where(columns[name].in_(sa.text(f"SELECT value FROM json_each(:{name})")))
        else:
            query = query.where(columns[name].in_([sa.bindparam(f"{name}_{i}") for i in range(cast(int, how))]))
    if order is not None:
        name, _, way = order.partition(" ")
        query = query.order_by(columns[name].desc() if way else columns[name])
    return str(query.compile(dialect=_DIALECT))


MANY: Final = 100
"""Values of a larger set are bound as one: SQLite bounds how many a statement has, and each number is a statement."""

UNFINISHED: Final = frozenset(state for state in RunState if not state.final)
_WAITING: Final = (
    sa.select(schema.waiting.c.group, schema.waiting.c.attempt, schema.waiting.c.spans)
    .where(schema.waiting.c.run == sa.bindparam("run"))
    .order_by(schema.waiting.c.group, schema.waiting.c.attempt)
)
_BALANCE: Final = sa.select(schema.balances.c.reserved, schema.balances.c.held).where(
    schema.balances.c.scope == sa.bindparam("scope"), schema.balances.c.dimension == sa.bindparam("dimension")
)
_BALANCE_OF_PART: Final = sa.select(
    sa.func.coalesce(sa.func.sum(schema.ledger.c.reserved), 0), sa.func.coalesce(sa.func.sum(schema.ledger.c.held), 0)
).where(
    schema.ledger.c.scope == sa.bindparam("scope"), schema.ledger.c.dimension == sa.bindparam("dimension"),
    schema.ledger.c.part == sa.bindparam("part"),
)  # fmt: skip


def _asked(value: Any) -> tuple[str | int, list[Any]]:
    """What a column is asked for, as :func:`_query` has it, and the values that are bound for it."""
    if value is None:
        return "null", []
    if not isinstance(value, frozenset):
        return "equal", [value]
    if len(value) > MANY:
        return "many", [msgspec.json.encode(sorted(value)).decode()]
    return len(value), sorted(value)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for at all."""
    return {name: value for name, value in values.items() if value is not None}


def _load(kind: type[Row], values: Iterable[Any]) -> Row:
    content = dict(zip(_NAMES[kind], values, strict=True))
    for name, read_as in _READ_AS[kind].items():
        content[name] = read_as(content[name])
    return kind(**content)


def _equal(table: sa.Table, values: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [
        table.c[name].in_(sorted(value)) if isinstance(value, frozenset) else table.c[name] == value
        for name, value in values.items()
    ]


class SqlTx:
    """The Tx port over one SQLAlchemy connection."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._sqlite = cast(sqlite3.Connection, connection.connection.dbapi_connection)

    def _select(self, kind: type[Row], order: str | None = None, /, **equal: Any) -> list[Row]:
        if any(value == frozenset() for value in equal.values()):
            return []
        asked = {name: _asked(value) for name, value in equal.items()}
        query = _query(cast(Any, kind), tuple((name, how) for name, (how, _) in asked.items()), order)
        bound = [value for _, values in asked.values() for value in values]
        return [_load(kind, row) for row in self._sqlite.execute(query, bound)]

    def _one(self, kind: type[Row], /, **equal: Any) -> Row | None:
        found = self._select(kind, **equal)
        return found[0] if found else None

    def _update(self, table: sa.Table, *where: sa.ColumnElement[bool], **changes: Any) -> int:
        result = self._connection.execute(sa.update(table).where(*where).values(**changes))
        return result.rowcount

    def _replace(self, row: ForeignRow | ResourceRow | DemandRow) -> None:
        table = _TABLES[type(row)]
        key = [c == getattr(row, c.name) for c in table.primary_key]
        if not self._update(table, *key, **asdict(row)):
            self._connection.execute(sa.insert(table).values(**asdict(row)))

    def insert(
        self,
        *rows: RunRow | BatchRow | PartRow | DeploymentRow | GatewayRow,
    ) -> None:
        for row in rows:
            self._connection.execute(sa.insert(_TABLES[type(row)]).values(**asdict(row)))

    # -- the gateway's rows -------------------------------------------------------------------------------------------

    def find(self, kind: type[G], /, **equal: Any) -> list[G]:
        return self._select(kind, "created_at", **equal)

    def page(
        self, kind: type[G], /, *, newest_first: bool, beyond: tuple[float, str] | None, limit: int, **equal: Any
    ) -> list[G]:  # fmt: skip
        t = _TABLES[kind]
        place = sa.tuple_(t.c.created_at, t.c.id)
        where = _equal(t, equal)
        if beyond is not None:
            mark = sa.tuple_(sa.literal(beyond[0]), sa.literal(beyond[1]))
            where.append(place < mark if newest_first else place > mark)
        columns = (t.c.created_at, t.c.id)
        order = [c.desc() for c in columns] if newest_first else list(columns)
        query = sa.select(*_COLUMNS[kind]).where(*where).order_by(*order).limit(limit)
        return [_load(kind, row) for row in self._connection.execute(query)]

    def tally(self, kind: type[G], column: str, /) -> dict[str, int]:
        named = _TABLES[kind].c[column]
        return {str(value): count for value, count in self._connection.execute(
            sa.select(named, sa.func.count()).group_by(named).order_by(named)
        )}  # fmt: skip

    def total(self, kind: type[G], column: str, /, **equal: Any) -> int:
        t = _TABLES[kind]
        query = sa.select(sa.func.coalesce(sa.func.sum(t.c[column]), 0)).where(*_equal(t, equal))
        return int(self._connection.execute(query).scalar_one())

    def used_by_tenant(self, tenant: str, since: float) -> list[tuple[str, int, int]]:
        p, r, kept = schema.parts.c, schema.runs.c, schema.spend.c
        still_there = sa.select(p.deployment, p.input_tokens, p.output_tokens).where(
            p.run == r.id, r.tenant == tenant, p.collected_at >= since
        )
        deleted = sa.select(kept.deployment, kept.input_tokens, kept.output_tokens).where(
            kept.tenant == tenant, kept.day >= since // DAY_S
        )
        used = sa.union_all(still_there, deleted).subquery().c
        query = (
            sa.select(used.deployment, sa.func.sum(used.input_tokens), sa.func.sum(used.output_tokens))
            .group_by(used.deployment)
            .order_by(used.deployment)
        )
        return [(name.rpartition("#")[2], int(given), int(got)) for name, given, got in self._connection.execute(query)]

    def _keep_spend(self, run: str) -> None:
        """Add what a tenant's run used to the sums that outlive it."""
        p, r, t = schema.parts.c, schema.runs.c, schema.spend
        day = sa.cast(p.collected_at / DAY_S, sa.BigInteger).label("day")
        query = (
            sa.select(r.tenant, day, p.deployment, sa.func.sum(p.input_tokens), sa.func.sum(p.output_tokens))
            .where(p.run == r.id, r.id == run, r.tenant.is_not(None), p.collected_at.is_not(None))
            .where(p.input_tokens + p.output_tokens > 0)
            .group_by(r.tenant, day, p.deployment)
        )
        for tenant, on, deployment, given, got in self._connection.execute(query).all():
            key = {"tenant": tenant, "day": on, "deployment": deployment}
            more = {"input_tokens": t.c.input_tokens + given, "output_tokens": t.c.output_tokens + got}
            if not self._update(t, *(t.c[name] == value for name, value in key.items()), **more):
                first = key | {"input_tokens": given, "output_tokens": got}
                self._connection.execute(sa.insert(t).values(**first))

    def forget_spend(self, before: float) -> None:
        t = schema.spend
        self._connection.execute(sa.delete(t).where(t.c.day < before // DAY_S))

    def aims_of_tenant(self, tenant: str) -> list[tuple[str, str | None, str | None]]:
        r = schema.runs.c
        query = sa.select(r.groups, r.redirect, r.names).where(r.tenant == tenant).distinct()
        return [(groups, redirect, names) for groups, redirect, names in self._connection.execute(query)]

    def amend(self, kind: type[G], key: str, /, given: Mapping[str, Any] | None = None, **changes: Any) -> bool:
        t = _TABLES[kind]
        return self._update(t, t.c.id == key, *_equal(t, given or {}), **changes) == 1

    def remove(self, kind: type[G], key: str, /) -> bool:
        t = _TABLES[kind]
        return self._connection.execute(sa.delete(t).where(t.c.id == key)).rowcount == 1

    # -- runs and batches ---------------------------------------------------------------------------------------------

    def run(self, run: str) -> RunRow | None:
        return self._one(RunRow, id=run)

    def runs(
        self, *, digest: str | None = None, unfinished: bool = False, ids: frozenset[str] | None = None
    ) -> list[RunRow]:  # fmt: skip
        given = {"digest": digest, "id": ids, "state": UNFINISHED if unfinished else None}
        return self._select(RunRow, "created_at desc", **_given(given))

    def update_run(self, run: str, **changes: Any) -> None:
        self._update(schema.runs, schema.runs.c.id == run, **changes)

    def batches(self, run: str | None = None, *, input: str | None = None) -> list[BatchRow]:
        return self._select(BatchRow, "ordinal", **_given({"run": run, "input": input}))

    def update_batch(self, batch: str, **changes: Any) -> None:
        self._update(schema.batches, schema.batches.c.id == batch, **changes)

    def delete_run(self, run: str) -> None:
        self._keep_spend(run)
        t = schema.ledger
        mine = t.c.part.in_(sa.select(schema.parts.c.id).where(schema.parts.c.run == run))
        closed = sa.select(t.c.part).where(mine).group_by(t.c.part).having(sa.func.sum(t.c.reserved + t.c.held) == 0)
        self._connection.execute(sa.delete(t).where(t.c.part.in_(closed)))
        for table, column in (
            (schema.waiting, "run"), (schema.demands, "run"), (schema.events, "run"),
            (schema.parts, "run"), (schema.batches, "run"), (schema.runs, "id"),
        ):  # fmt: skip
            self._connection.execute(sa.delete(table).where(table.c[column] == run))

    def waiting(self, run: str) -> dict[tuple[int, int], Spans]:
        rows = self._connection.execute(_WAITING, {"run": run})
        return {(group, attempt): Spans.parse(spans) for group, attempt, spans in rows}

    def set_waiting(self, run: str, group: int, attempt: int, spans: Spans) -> None:
        t = schema.waiting
        key = (t.c.run == run, t.c.group == group, t.c.attempt == attempt)
        if not spans:
            self._connection.execute(sa.delete(t).where(*key))
        elif not self._update(t, *key, spans=str(spans)):
            self._connection.execute(sa.insert(t).values(run=run, group=group, attempt=attempt, spans=str(spans)))

    # -- parts --------------------------------------------------------------------------------------------------------

    def part(self, part: str) -> PartRow | None:
        return self._one(PartRow, id=part)

    def parts(
        self, *, run: str | None = None, resource: str | None = None, deployment: str | None = None,
        stages: frozenset[Stage] | None = None,
    ) -> list[PartRow]:  # fmt: skip
        given = {"run": run, "resource": resource, "deployment": deployment, "stage": stages}
        return self._select(PartRow, "number", **_given(given))

    def left_since(self, deployment: str, at: float) -> list[PartRow]:
        t = schema.parts
        query = (
            sa.select(*_COLUMNS[PartRow]).where(t.c.deployment == deployment, t.c.left_at > at).order_by(t.c.left_at)
        )
        return [_load(PartRow, row) for row in self._connection.execute(query)]

    def files_kept(self, resource: str) -> int:
        t = schema.parts
        counting = [stage for stage in Stage if stage.counts]
        kept = sa.case((t.c.file_id.is_not(None) | t.c.stage.in_(counting), 1), else_=0)
        query = sa.select(sa.func.coalesce(sa.func.sum(kept), 0)).where(
            t.c.resource == resource, t.c.cleaned.is_(False)
        )
        return int(self._connection.execute(query).scalar_one())

    def creates_since(self, resource: str, at: float) -> int:
        t = schema.parts
        query = sa.select(sa.func.count()).where(t.c.resource == resource, t.c.intent_at > at)
        return int(self._connection.execute(query).scalar_one())

    def move_part(self, part: str, before: Stage, after: Stage, **changes: Any) -> bool:
        check_transition(before, after)
        t = schema.parts
        return self._update(t, t.c.id == part, t.c.stage == before, stage=after, **changes) == 1

    def update_part(self, part: str, stage: Stage, **changes: Any) -> bool:
        t = schema.parts
        return self._update(t, t.c.id == part, t.c.stage == stage, **changes) == 1

    # -- ledger -------------------------------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        self._connection.execute(sa.insert(schema.ledger).values(**asdict(entry)))
        t = schema.balances
        more = {"reserved": t.c.reserved + entry.reserved, "held": t.c.held + entry.held}
        if not self._update(t, t.c.scope == entry.scope, t.c.dimension == entry.dimension, **more):
            first = {"scope": entry.scope, "dimension": entry.dimension, "reserved": entry.reserved, "held": entry.held}
            self._connection.execute(sa.insert(t).values(**first))

    def balance(self, scope: str, dimension: Dimension, *, part: str | None = None) -> Balance:
        values = {"scope": scope, "dimension": dimension}
        if part is None:
            found = self._connection.execute(_BALANCE, values).one_or_none()
        else:
            found = self._connection.execute(_BALANCE_OF_PART, values | {"part": part}).one()
        reserved, held = found or (0, 0)
        return Balance(reserved=int(reserved), held=int(held))

    def entries(self, *, part: str) -> list[Entry]:
        t = schema.ledger
        query = sa.select(t.c.scope, t.c.dimension, t.c.part, t.c.verb, t.c.reserved, t.c.held, t.c.at)
        return [
            Entry(
                scope=row.scope, dimension=Dimension(row.dimension), part=row.part, verb=Verb(row.verb),
                reserved=row.reserved, held=row.held, at=row.at,
            )
            for row in self._connection.execute(query.where(t.c.part == part).order_by(t.c.number))
        ]  # fmt: skip

    # -- deployments, others' batches, demands ------------------------------------------------------------------------

    def deployment(self, deployment: str) -> DeploymentRow | None:
        return self._one(DeploymentRow, id=deployment)

    def deployments(self, *, resource: str | None = None) -> list[DeploymentRow]:
        return self._select(DeploymentRow, "name", **({} if resource is None else {"resource": resource}))

    def update_deployment(self, deployment: str, **changes: Any) -> None:
        self._update(schema.deployments, schema.deployments.c.id == deployment, **changes)

    def foreign(self, resource: str) -> list[ForeignRow]:
        return self._select(ForeignRow, resource=resource)

    def put_foreign(self, row: ForeignRow) -> None:
        self._replace(row)

    def delete_foreign(self, provider_batch: str) -> None:
        self._connection.execute(sa.delete(schema.foreign).where(schema.foreign.c.provider_batch == provider_batch))

    def resource(self, resource: str) -> ResourceRow | None:
        return self._one(ResourceRow, id=resource)

    def put_resource(self, row: ResourceRow) -> None:
        self._replace(row)

    def demands(self, deployment: str, *, runs: frozenset[str] | None = None) -> list[DemandRow]:
        return self._select(DemandRow, **_given({"deployment": deployment, "run": runs}))

    def put_demand(self, row: DemandRow) -> None:
        if row.tokens:
            self._replace(row)
        else:
            t = schema.demands
            self._connection.execute(sa.delete(t).where(t.c.run == row.run, t.c.deployment == row.deployment))

    # -- events -------------------------------------------------------------------------------------------------------

    def add_event(self, event: Event) -> None:
        content = asdict(event) | {"fields": msgspec.json.encode(event.fields).decode(), "version": EVENT_VERSION}
        self._connection.execute(sa.insert(schema.events).values(**content))

    def forget_events(self, before: float) -> None:
        t = schema.events
        self._connection.execute(sa.delete(t).where(t.c.run.is_(None), t.c.at < before))

    def events(self, *, run: str | None = None, part: str | None = None, after: int = 0) -> list[tuple[int, Event]]:
        t = schema.events
        query = sa.select(t).where(t.c.number > after).order_by(t.c.number)
        if run is not None:
            query = query.where(t.c.run == run)
        if part is not None:
            query = query.where(t.c.part == part)
        return [
            (
                row.number,
                Event(
                    at=row.at, kind=EventKind(row.kind), sentence=row.sentence, run=row.run, part=row.part,
                    deployment=row.deployment, fields=msgspec.json.decode(row.fields),
                ),
            )
            for row in self._connection.execute(query)
        ]  # fmt: skip
