"""The tables. Column names are the fields of ``core.rows``; migrations are in ``adapters/migrations``."""

from __future__ import annotations

import sqlalchemy as sa

REVISION = "0011"
"""The newest migration: a database of this revision needs none."""

metadata = sa.MetaData()

version = sa.Table(
    "alembic_version", sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)  # fmt: skip
"""Alembic's own table, apart from ours."""


def _text(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=null)


def _int(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=null)


def _time(name: str, *, null: bool = True) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=null)


def _bool(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)


runs = sa.Table(
    "runs", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("digest"), _text("state"), _text("resource"), _text("dialect"), _text("groups"), _text("redirect", null=True),
    _int("cap", null=True), _int("requests"), _int("tokens"), _int("serial"),
    _time("created_at", null=False), _time("finished_at"), _int("exit_code", null=True),
    _text("tenant", null=True), _time("due_at"), _text("closing", null=True), _text("names", null=True),
    sa.Index("runs_by_digest", "digest"),
)  # fmt: skip

batches = sa.Table(
    "batches", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("run"), _int("ordinal"), _text("name"), _text("digest"), _text("input"), _text("index"), _int("bytes"),
    _int("first"), _int("requests"), _text("output"), _text("errors"),
    _int("written"), _int("out_bytes"), _int("err_bytes"), _int("out_lines"), _int("err_lines"),
    sa.Index("batches_by_run", "run", "ordinal"),
)  # fmt: skip

waiting = sa.Table(
    "waiting", metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("group", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.BigInteger, primary_key=True, autoincrement=False),
    _text("spans"),
)  # fmt: skip

parts = sa.Table(
    "parts", metadata,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    _text("run"), _text("deployment"), _text("resource"), _text("url"), _int("group"), _text("stage"),
    _text("requests"), _text("retries"), _int("count"), _int("tokens"), _int("quarter_chars"), _int("bytes"),
    _int("charge"), _int("attempt"), _int("fill"), _bool("unproven"), _bool("probing"), _text("reason"),
    _time("created_at", null=False), _text("blob"), _text("file_id", null=True), _text("provider_batch", null=True),
    _text("status", null=True), _time("intent_at"), _time("held_at"), _time("validated_at"), _time("progress_at"),
    _time("left_at"), _time("collected_at"), _text("output_file_id", null=True), _text("error_file_id", null=True),
    _int("seen_completed"), _int("seen_failed"), _int("answered"), _int("failed"), _int("salvaged"),
    _int("input_tokens"), _int("cached_tokens"), _int("output_tokens"), _text("error", null=True),
    _bool("stuck"), _bool("cleaned"), sa.Column("reasoning_tokens", sa.BigInteger, nullable=False, server_default="0"),
    _text("objections", null=True),
    sa.Index("parts_by_run", "run", "stage"),
    sa.Index("parts_by_deployment", "deployment", "stage"),
    sa.Index("parts_by_resource", "resource", "intent_at"),
    sa.Index("parts_by_provider_batch", "provider_batch", unique=True),
    # What every turn asks, among all parts that are kept: those under way, those that ended lately, those with files.
    sa.Index("parts_by_stage", "stage", "resource"),
    sa.Index("parts_by_leaving", "deployment", "left_at"),
    sa.Index("parts_with_files", "resource", "cleaned", "file_id", "stage"),
)  # fmt: skip

ledger = sa.Table(
    "ledger", metadata,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    _text("scope"), _text("dimension"), _text("part"), _text("verb"),
    _int("reserved"), _int("held"), _time("at", null=False),
    sa.Index("ledger_by_part", "part", "scope", "dimension"),
    # Each part reserves, holds and is closed at most once in a scope: the database says so too.
    sa.Index("ledger_reserve_once", "part", "scope", "dimension", unique=True, sqlite_where=sa.text("verb = 'reserve'"),
             postgresql_where=sa.text("verb = 'reserve'")),
    sa.Index("ledger_hold_once", "part", "scope", "dimension", unique=True, sqlite_where=sa.text("verb = 'hold'"),
             postgresql_where=sa.text("verb = 'hold'")),
    sa.Index("ledger_close_once", "part", "scope", "dimension", unique=True,
             sqlite_where=sa.text("verb IN ('release', 'void')"),
             postgresql_where=sa.text("verb IN ('release', 'void')")),
)  # fmt: skip

balances = sa.Table(
    "balances", metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("dimension", sa.Text, primary_key=True),
    _int("reserved"), _int("held"),
)  # fmt: skip
"""The sums of the ledger's entries, changed by whoever appends one: the ledger grows, and every turn asks for its sum."""

deployments = sa.Table(
    "deployments", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("resource"), _text("name"), _text("model", null=True), _text("belief"), _int("cap_override", null=True),
    _bool("paused"),
)  # fmt: skip

foreign = sa.Table(
    "foreign_batches", metadata,
    sa.Column("provider_batch", sa.Text, primary_key=True),
    _text("resource"), _text("deployment"), _text("status"), _int("tokens"), _int("quarter_chars"), _text("basis"),
    _time("seen_at", null=False), sa.Column("requests", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index("foreign_by_resource", "resource"),
)  # fmt: skip

resources = sa.Table(
    "resources", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _time("listed_at", null=False), _time("listing_until", null=False),
)  # fmt: skip

demands = sa.Table(
    "demands", metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("deployment", sa.Text, primary_key=True),
    _int("tokens"), _int("cap", null=True), _time("at", null=False),
    sa.Column("needs", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("needs_since", sa.Double, nullable=False, server_default="0"),
)  # fmt: skip

events = sa.Table(
    "events", metadata,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    _time("at", null=False), _int("version"), _text("kind"), _text("sentence"), _text("run", null=True),
    _text("part", null=True), _text("deployment", null=True), _text("fields"),
    sa.Index("events_by_run", "run", "number"),
    sa.Index("events_by_part", "part", "number"),
)  # fmt: skip

tenants = sa.Table(
    "tenants", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("weight", sa.Double, nullable=False), _time("created_at", null=False),
)  # fmt: skip

keys = sa.Table(
    "keys", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("tenant"), _text("role"), _text("digest"), _time("created_at", null=False), _time("expires_at"),
    _time("revoked_at"),
)  # fmt: skip

files = sa.Table(
    "files", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("tenant"), _text("filename"), _text("purpose"), _int("bytes"), _int("lines"), _text("sha256"), _text("blob"),
    _time("created_at", null=False), _time("expires_at"),
    sa.Index("files_by_tenant", "tenant", "created_at", "id"),
    sa.Index("files_by_blob", "blob"),
)  # fmt: skip

uploads = sa.Table(
    "uploads", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("tenant"), _text("filename"), _text("purpose"), _int("bytes"), _time("created_at", null=False),
    _text("status"), _int("seconds", null=True), _text("file", null=True),
    sa.Index("uploads_by_status", "status"),
)  # fmt: skip

upload_parts = sa.Table(
    "upload_parts", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("upload"), _int("bytes"), _text("blob"), _time("created_at", null=False),
    sa.Index("upload_parts_by_upload", "upload"),
)  # fmt: skip

client_batches = sa.Table(
    "client_batches", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("tenant"), _text("key"), _text("input_file"), _text("input"), _int("input_bytes"), _text("endpoint"),
    _text("window"), _text("metadata", null=True), _text("status"), _text("fingerprint"),
    _time("created_at", null=False), _time("due_at", null=False), _text("idempotency", null=True),
    _text("run", null=True), _int("total"), _int("completed"), _int("failed"), _text("output_file", null=True),
    _text("error_file", null=True), _text("errors", null=True), _text("reason", null=True), _time("in_progress_at"),
    _time("finalizing_at"), _time("cancelling_at"), _time("ended_at"),
    sa.Column("dialect", sa.Text, nullable=False, server_default="openai"),
    _text("input_blob", null=True), _text("output_blob", null=True), _text("error_blob", null=True),
    _int("output_seconds", null=True),
    sa.Column("attempt", sa.BigInteger, nullable=False, server_default="0"), _time("answered_at"),
    sa.Index("client_batches_by_tenant", "tenant", "created_at", "id"),
    sa.Index("client_batches_by_status", "status"),
    sa.Index("client_batches_by_fingerprint", "fingerprint", "created_at"),
    sa.Index("client_batches_once", "tenant", "idempotency", unique=True),
)  # fmt: skip

spend = sa.Table(
    "spend", metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("day", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("deployment", sa.Text, primary_key=True),
    _int("input_tokens"), _int("output_tokens"),
)  # fmt: skip
"""What parts that are deleted had used, by the day (Unix seconds // 86,400) on which they came home."""
