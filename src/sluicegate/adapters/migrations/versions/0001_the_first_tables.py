"""The first tables"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("input", sa.Text(), nullable=False),
        sa.Column("index", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("output", sa.Text(), nullable=False),
        sa.Column("errors", sa.Text(), nullable=False),
        sa.Column("written", sa.BigInteger(), nullable=False),
        sa.Column("out_bytes", sa.BigInteger(), nullable=False),
        sa.Column("err_bytes", sa.BigInteger(), nullable=False),
        sa.Column("out_lines", sa.BigInteger(), nullable=False),
        sa.Column("err_lines", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("batches", schema=None) as batch_op:
        batch_op.create_index("batches_by_run", ["run", "ordinal"], unique=False)

    op.create_table(
        "demands",
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("cap", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("run", "deployment"),
    )
    op.create_table(
        "deployments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("belief", sa.Text(), nullable=False),
        sa.Column("cap_override", sa.BigInteger(), nullable=True),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "events",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=True),
        sa.Column("part", sa.Text(), nullable=True),
        sa.Column("deployment", sa.Text(), nullable=True),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index("events_by_part", ["part", "number"], unique=False)
        batch_op.create_index("events_by_run", ["run", "number"], unique=False)

    op.create_table(
        "foreign_batches",
        sa.Column("provider_batch", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("quarter_chars", sa.BigInteger(), nullable=False),
        sa.Column("basis", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("provider_batch"),
    )
    with op.batch_alter_table("foreign_batches", schema=None) as batch_op:
        batch_op.create_index("foreign_by_resource", ["resource"], unique=False)

    op.create_table(
        "ledger",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("dimension", sa.Text(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("verb", sa.Text(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    with op.batch_alter_table("ledger", schema=None) as batch_op:
        batch_op.create_index("ledger_balance", ["scope", "dimension", "run", "reserved", "held"], unique=False)
        batch_op.create_index("ledger_by_part", ["part", "scope", "dimension"], unique=False)
        batch_op.create_index(
            "ledger_close_once",
            ["part", "scope", "dimension"],
            unique=True,
            sqlite_where=sa.text("verb IN ('release', 'void')"),
            postgresql_where=sa.text("verb IN ('release', 'void')"),
        )
        batch_op.create_index(
            "ledger_hold_once",
            ["part", "scope", "dimension"],
            unique=True,
            sqlite_where=sa.text("verb = 'hold'"),
            postgresql_where=sa.text("verb = 'hold'"),
        )
        batch_op.create_index(
            "ledger_reserve_once",
            ["part", "scope", "dimension"],
            unique=True,
            sqlite_where=sa.text("verb = 'reserve'"),
            postgresql_where=sa.text("verb = 'reserve'"),
        )

    op.create_table(
        "parts",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("group", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("requests", sa.Text(), nullable=False),
        sa.Column("retries", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("quarter_chars", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("charge", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("fill", sa.BigInteger(), nullable=False),
        sa.Column("unproven", sa.Boolean(), nullable=False),
        sa.Column("probing", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("blob", sa.Text(), nullable=False),
        sa.Column("file_id", sa.Text(), nullable=True),
        sa.Column("provider_batch", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("intent_at", sa.Double(), nullable=True),
        sa.Column("held_at", sa.Double(), nullable=True),
        sa.Column("validated_at", sa.Double(), nullable=True),
        sa.Column("progress_at", sa.Double(), nullable=True),
        sa.Column("left_at", sa.Double(), nullable=True),
        sa.Column("collected_at", sa.Double(), nullable=True),
        sa.Column("output_file_id", sa.Text(), nullable=True),
        sa.Column("error_file_id", sa.Text(), nullable=True),
        sa.Column("seen_completed", sa.BigInteger(), nullable=False),
        sa.Column("seen_failed", sa.BigInteger(), nullable=False),
        sa.Column("answered", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("salvaged", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("stuck", sa.Boolean(), nullable=False),
        sa.Column("cleaned", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("id"),
    )
    with op.batch_alter_table("parts", schema=None) as batch_op:
        batch_op.create_index("parts_by_deployment", ["deployment", "stage"], unique=False)
        batch_op.create_index("parts_by_provider_batch", ["provider_batch"], unique=True)
        batch_op.create_index("parts_by_resource", ["resource", "intent_at"], unique=False)
        batch_op.create_index("parts_by_run", ["run", "stage"], unique=False)

    op.create_table(
        "resources",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("listed_at", sa.Double(), nullable=False),
        sa.Column("listing_until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("dialect", sa.Text(), nullable=False),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("redirect", sa.Text(), nullable=True),
        sa.Column("cap", sa.BigInteger(), nullable=True),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("exit_code", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.create_index("runs_by_digest", ["digest"], unique=False)

    op.create_table(
        "waiting",
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("group", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("spans", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run", "group", "attempt"),
    )


def downgrade() -> None:
    op.drop_table("waiting")
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.drop_index("runs_by_digest")

    op.drop_table("runs")
    op.drop_table("resources")
    with op.batch_alter_table("parts", schema=None) as batch_op:
        batch_op.drop_index("parts_by_run")
        batch_op.drop_index("parts_by_resource")
        batch_op.drop_index("parts_by_provider_batch")
        batch_op.drop_index("parts_by_deployment")

    op.drop_table("parts")
    with op.batch_alter_table("ledger", schema=None) as batch_op:
        batch_op.drop_index(
            "ledger_reserve_once",
            sqlite_where=sa.text("verb = 'reserve'"),
            postgresql_where=sa.text("verb = 'reserve'"),
        )
        batch_op.drop_index(
            "ledger_hold_once", sqlite_where=sa.text("verb = 'hold'"), postgresql_where=sa.text("verb = 'hold'")
        )
        batch_op.drop_index(
            "ledger_close_once",
            sqlite_where=sa.text("verb IN ('release', 'void')"),
            postgresql_where=sa.text("verb IN ('release', 'void')"),
        )
        batch_op.drop_index("ledger_by_part")
        batch_op.drop_index("ledger_balance")

    op.drop_table("ledger")
    with op.batch_alter_table("foreign_batches", schema=None) as batch_op:
        batch_op.drop_index("foreign_by_resource")

    op.drop_table("foreign_batches")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index("events_by_run")
        batch_op.drop_index("events_by_part")

    op.drop_table("events")
    op.drop_table("deployments")
    op.drop_table("demands")
    with op.batch_alter_table("batches", schema=None) as batch_op:
        batch_op.drop_index("batches_by_run")

    op.drop_table("batches")
