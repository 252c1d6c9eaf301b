"""The table of fingerprints: near-duplicates of what was scored."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make it. Jobs that were scored before have none."""
    op.create_table(
        "fingerprints",
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_fingerprints"),
    )
    op.create_index("ix_fingerprints_tenant_created_at", "fingerprints", ["tenant", "created_at"])


def downgrade() -> None:
    """Remove it."""
    op.drop_table("fingerprints")
