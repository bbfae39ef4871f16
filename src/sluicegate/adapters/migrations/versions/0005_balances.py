"""Balances are kept beside the entries whose sums they are"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "balances",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("dimension", sa.Text(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "dimension"),
    )
    op.execute(
        "INSERT INTO balances SELECT scope, dimension, sum(reserved), sum(held) FROM ledger GROUP BY scope, dimension"
    )
    op.drop_index("ledger_balance", table_name="ledger")
    op.drop_column("ledger", "run")  # it was empty for reservations, and nothing needs it
