"""Lines that a provider's validation refused; enqueued requests of others' batches"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("parts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("objections", sa.Text(), nullable=True))
    with op.batch_alter_table("foreign_batches", schema=None) as batch_op:
        batch_op.add_column(sa.Column("requests", sa.BigInteger(), nullable=False, server_default="0"))
