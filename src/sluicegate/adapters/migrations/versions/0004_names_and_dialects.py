"""Names that clients use for deployments, and the dialect that a batch was created in"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("names", sa.Text(), nullable=True))
    with op.batch_alter_table("client_batches", schema=None) as batch_op:
        batch_op.add_column(sa.Column("dialect", sa.Text(), nullable=False, server_default="openai"))
