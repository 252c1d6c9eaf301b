"""What teaches: counts of groups, calibrations and which one is active, scores by week, second looks."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the tables, and let a job be a second look at another."""
    op.create_table(
        "group_feedback",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("jobs", sa.Integer, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("weights", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_group_feedback"),
    )
    op.create_index("ix_group_feedback_tenant_id", "group_feedback", ["tenant", "id"])
    op.create_table(
        "group_members",
        sa.Column("group_id", sa.Integer, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("logit", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("group_id", "job_id", name="pk_group_members"),
    )
    op.create_index("ix_group_members_job_id", "group_members", ["job_id"])
    op.create_table(
        "calibrations",
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("weights", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_calibrations"),
    )
    op.create_table(
        "activations",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("weights", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("undone", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_activations"),
    )
    op.create_index("ix_activations_weights_id", "activations", ["weights", "id"])
    op.create_table(
        "score_counts",
        sa.Column("week", sa.Text, nullable=False),
        sa.Column("weights", sa.Text, nullable=False),
        sa.Column("bin", sa.Integer, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("week", "weights", "bin", "verdict", name="pk_score_counts"),
    )
    op.add_column("jobs", sa.Column("appeal_of", sa.Text))
    op.create_index("ix_jobs_appeal_of", "jobs", ["appeal_of"])
    op.add_column("feedback", sa.Column("weights", sa.Text))
    _fill()


def _fill() -> None:
    """Of which weights the feedback speaks that is there: the third word of what made the answer."""
    feedback = sa.table("feedback", *(sa.column(name) for name in ("made_by", "weights")))
    connection = op.get_bind()
    made = sa.select(feedback.c.made_by).where(feedback.c.made_by.is_not(None)).distinct()
    for made_by in connection.scalars(made).all():
        if len(words := made_by.split(" ")) > 2:
            speaking = sa.update(feedback).where(feedback.c.made_by == made_by)
            connection.execute(speaking.values(weights=words[2]))


def downgrade() -> None:
    """Remove them."""
    with op.batch_alter_table("feedback") as feedback:
        feedback.drop_column("weights")
    op.drop_index("ix_jobs_appeal_of", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("appeal_of")
    for table in ("score_counts", "activations", "calibrations", "group_members", "group_feedback"):
        op.drop_table(table)
