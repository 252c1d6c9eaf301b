"""Feedback on answers, and what the review queue sorts jobs by."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make it, and say of the answers that are there how they turned out."""
    op.create_table(
        "feedback",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("opinion", sa.Text),
        sa.Column("label", sa.Text),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("logit", sa.Double, nullable=False),
        sa.Column("made_by", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
    )
    op.create_index("ix_feedback_job_id", "feedback", ["job_id"])
    op.create_index("ix_feedback_tenant_created_at", "feedback", ["tenant", "created_at"])
    current = sa.column("ended_at").is_(None)
    op.create_index(
        "uq_feedback_current",
        "feedback",
        ["job_id", "source", "actor"],
        unique=True,
        sqlite_where=current,
        postgresql_where=current,
    )
    op.add_column("jobs", sa.Column("verdict", sa.Text))
    op.add_column("jobs", sa.Column("margin", sa.Double))
    _fill()


def _fill() -> None:
    jobs = sa.table("jobs", *(sa.column(name) for name in ("id", "status", "result", "verdict", "margin")))
    connection = op.get_bind()
    answered = sa.select(jobs.c.id).where(jobs.c.status == "done", jobs.c.result.is_not(None))
    for job_id in connection.scalars(answered).all():  # one at a time: a long time line is a megabyte
        row = connection.execute(sa.select(jobs.c.result).where(jobs.c.id == job_id)).one()
        answer = json.loads(row.result)
        limits = answer["threshold"]
        margin = min(abs(answer["score"] - limits[name]) for name in ("value", "lower"))
        found = {"verdict": answer["verdict"], "margin": margin}
        connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(found))


def downgrade() -> None:
    """Remove it."""
    op.drop_table("feedback")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("margin")
        jobs.drop_column("verdict")
