"""Where a video is to appear, and what the policy decided."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add both; of what was asked before, nothing was decided."""
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("surface", sa.Text, nullable=False, server_default=""))
        jobs.add_column(sa.Column("action", sa.Text))


def downgrade() -> None:
    """Remove them."""
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("action")
        jobs.drop_column("surface")
