"""Requests that need more than their run's share of a limit"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("demands", schema=None) as batch_op:
        batch_op.add_column(sa.Column("needs", sa.BigInteger(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("needs_since", sa.Double(), nullable=False, server_default="0"))
