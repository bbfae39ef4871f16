"""Which attempt of a create was answered last, and whether that answer is known to have come"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("client_batches", schema=None) as batch_op:
        batch_op.add_column(sa.Column("attempt", sa.BigInteger(), nullable=False, server_default="0"))
        # Empty for what is there: their clients have long had their answers.
        batch_op.add_column(sa.Column("answered_at", sa.Double(), nullable=True))
