"""Near-duplicates: which of a tenant's videos look like one of them, and what people decided on those.

Nothing follows from it by itself: a decision is shown beside what looks alike, and a person takes it or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.jobs.store import Store
from app.jobs.table import FeedbackRow, FingerprintRow, JobRow
from specsem.fingerprint import share_alike

__all__ = ["Alike", "FingerprintStore", "Found"]

LEAST_SHARE = 0.5
"""Of the frames, so many must match."""
BATCH = 500


@dataclass(frozen=True, slots=True)
class Alike:
    """A video that looks like the one that was asked about."""

    job_id: str
    share: float
    """Of the frames that match, 0..1."""
    bits: int
    """In which the nearest frames differ, of 256."""
    same_bytes: bool
    job: JobRow | None = None
    """Without its result. None: it has gone, and what was decided on it was kept."""
    feedback: Sequence[FeedbackRow] = ()
    """What counts of what was said of it, the latest first."""

    @property
    def decided(self) -> bool:
        """Whether an operator knows what it is."""
        return any(row.source == "review" and row.label is not None for row in self.feedback)


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, the most alike first; of equals, what a person has decided on."""

    alike: list[Alike] = field(default_factory=list)
    compared: int = 0
    """With so many fingerprints."""
    complete: bool = True
    """There were no more of them."""


class FingerprintStore(Store):
    """The rows of fingerprints. Blocking, as ``app.jobs.store``."""

    def fingerprint(self, tenant: str, job_id: str) -> FingerprintRow | None:
        """Of a job."""
        wanted = select(FingerprintRow).where(
            FingerprintRow.tenant == tenant, FingerprintRow.job_id == job_id
        )
        with self._session(self._engine) as session:
            return session.scalars(wanted).one_or_none()

    def similar(self, asked: FingerprintRow, *, most: int, limit: int) -> Found:
        """What looks like it, among the tenant's latest ``most`` fingerprints; ``limit`` of them."""
        rows = (
            select(FingerprintRow)
            .where(FingerprintRow.tenant == asked.tenant, FingerprintRow.job_id != asked.job_id)
            .order_by(FingerprintRow.created_at.desc(), FingerprintRow.job_id)
            .limit(most + 1)
        )
        compared, complete, alike = 0, True, list[Alike]()
        with self._session(self._engine) as session:
            # In batches: all hashes of a tenant at once are more than a request should weigh.
            for batch in session.scalars(rows.execution_options(yield_per=BATCH)).partitions():
                if compared + len(batch) > most:
                    batch, complete = batch[: most - compared], False  # noqa: PLW2901
                compared += len(batch)
                shares = share_alike(asked.hashes, [row.hashes for row in batch])
                alike += [
                    Alike(row.job_id, share, bits, same_bytes=row.sha256 == asked.sha256 is not None)
                    for row, (share, bits) in zip(batch, shares, strict=True)
                    if share >= LEAST_SHARE
                ]
            alike.sort(key=lambda one: (one.share, -one.bits), reverse=True)
            known = self._known(session, asked.tenant, alike[: 4 * limit])
        known.sort(key=lambda one: (one.share, one.decided, -one.bits), reverse=True)
        return Found(known[:limit], compared, complete)

    def _known(self, session: Session, tenant: str, alike: Sequence[Alike]) -> list[Alike]:
        """With their jobs, and what was said of them."""
        ids = [one.job_id for one in alike]
        jobs = select(JobRow).where(JobRow.tenant == tenant, JobRow.id.in_(ids))
        by_id = {job.id: job for job in session.scalars(jobs.options(defer(JobRow.result)))}
        said = (
            select(FeedbackRow)
            .where(FeedbackRow.tenant == tenant, FeedbackRow.job_id.in_(ids), FeedbackRow.ended_at.is_(None))
            .order_by(FeedbackRow.created_at.desc(), FeedbackRow.id.desc())
        )
        opinions: dict[str, list[FeedbackRow]] = {}
        for row in session.scalars(said):
            opinions.setdefault(row.job_id, []).append(row)
        return [
            replace(one, job=by_id.get(one.job_id), feedback=opinions.get(one.job_id, ())) for one in alike
        ]
