"""What deleted parts had used, for limits of spend; how long results are kept; reasoning tokens"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "spend",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("day", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "day", "deployment"),
    )
    with op.batch_alter_table("client_batches", schema=None) as batch_op:
        batch_op.add_column(sa.Column("output_seconds", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("parts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False, server_default="0"))
