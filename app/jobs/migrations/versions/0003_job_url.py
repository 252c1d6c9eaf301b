"""Jobs by address: their file is fetched later, so its size and checksum are unknown at first."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the address."""
    with op.batch_alter_table("jobs") as jobs:  # SQLite can't alter a column: the table is copied there
        jobs.alter_column("bytes", existing_type=sa.BigInteger(), nullable=True)
        jobs.alter_column("sha256", existing_type=sa.Text(), nullable=True)
        jobs.add_column(sa.Column("url", sa.Text))
        jobs.add_column(sa.Column("url_query", sa.Text))
        jobs.add_column(sa.Column("url_sha256", sa.Text))
        jobs.add_column(sa.Column("fresh", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Remove it, with the jobs that stand on it."""
    op.execute("DELETE FROM jobs WHERE sha256 IS NULL")
    with op.batch_alter_table("jobs") as jobs:
        for name in ("url", "url_query", "url_sha256", "fresh"):
            jobs.drop_column(name)
        jobs.alter_column("bytes", existing_type=sa.BigInteger(), nullable=False)
        jobs.alter_column("sha256", existing_type=sa.Text(), nullable=False)
