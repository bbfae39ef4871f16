"""Indexes for what every turn asks of the parts"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("parts_by_stage", "parts", ["stage", "resource"])
    op.create_index("parts_by_leaving", "parts", ["deployment", "left_at"])
    op.create_index("parts_with_files", "parts", ["resource", "cleaned", "file_id", "stage"])
