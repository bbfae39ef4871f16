"""Input and output in blob storage"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("client_batches", schema=None) as batch_op:
        for name in ("input_blob", "output_blob", "error_blob"):
            batch_op.add_column(sa.Column(name, sa.Text(), nullable=True))
