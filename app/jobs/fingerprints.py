"""What videos look like, written and removed together with their jobs (``app.jobs.similar`` reads it)."""

from sqlalchemy import and_, delete, exists, select
from sqlalchemy.orm import Session

from app.jobs.table import FeedbackRow, FingerprintRow, JobRow

__all__ = ["forget", "keep", "purge"]


def keep(session: Session, job: JobRow, hashes: bytes) -> None:
    """Write down what a job's video looks like, in the transaction in which the job is done."""
    if not hashes:
        return
    # Not as the caller saw it: a file that was fetched has its checksum since.
    sha256 = session.scalar(select(JobRow.sha256).where(JobRow.id == job.id))
    session.add(
        FingerprintRow(
            job_id=job.id, tenant=job.tenant, sha256=sha256, hashes=hashes, created_at=job.created_at
        )
    )


def forget(session: Session, tenant: str, job_id: str) -> None:
    """With a job that its client deletes."""
    session.execute(
        delete(FingerprintRow).where(FingerprintRow.tenant == tenant, FingerprintRow.job_id == job_id)
    )


def purge(session: Session) -> None:
    """Remove those whose job has gone, unless an operator decided on it."""
    has_job = exists().where(JobRow.id == FingerprintRow.job_id)
    is_decided = exists().where(
        and_(
            FeedbackRow.job_id == FingerprintRow.job_id,
            FeedbackRow.source == "review",
            FeedbackRow.ended_at.is_(None),
        )
    )
    session.execute(
        delete(FingerprintRow).where(~has_job, ~is_decided), execution_options={"synchronize_session": False}
    )
