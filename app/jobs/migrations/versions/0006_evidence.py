"""What of an answer is asked for beyond the fast path: evidence and stability."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the options; what was asked before asked for neither."""
    with op.batch_alter_table("jobs") as jobs:
        for name in ("evidence", "stability"):
            jobs.add_column(sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Remove them."""
    with op.batch_alter_table("jobs") as jobs:
        for name in ("evidence", "stability"):
            jobs.drop_column(name)
