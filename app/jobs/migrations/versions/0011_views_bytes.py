"""What the pictures of a job take on disk."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add it. Pictures of before count as nothing, and are gone once their answers have expired."""
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("views_bytes", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index("ix_jobs_tenant_views_bytes", "jobs", ["tenant", "views_bytes"])


def downgrade() -> None:
    """Remove it."""
    op.drop_index("ix_jobs_tenant_views_bytes", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("views_bytes")
