"""What people say of answers, and which answers wait for an operator. Blocking, as ``store``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, case, exists, func, literal, or_, select, tuple_, update
from sqlalchemy.orm import Session, defer

from app.audit import Event, append
from app.jobs.store import Store
from app.jobs.table import FeedbackRow, JobRow
from app.webhooks import outbox
from app.webhooks.events import feedback_created
from specsem.records import Label, Opinion, Source

__all__ = ["Feedback", "FeedbackStore", "Said", "Waiting"]


@dataclass(frozen=True, slots=True)
class Said:
    """What one says of an answer: of the answer itself, or of the video, or both."""

    source: Source
    actor: str
    opinion: Opinion | None = None
    """None: it follows from the label."""
    label: Label | None = None
    note: str = ""


Feedback = FeedbackRow
"""What counts of what was said. A snapshot: changing it changes nothing."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An answer that waits for an operator. Its result isn't loaded."""

    job: JobRow
    rank: int
    """0: inconclusive, reported, or the policy's `review`; 1: any other."""
    reports: Sequence[Feedback]
    """What users said against it or were unsure of."""

    @property
    def place(self) -> tuple[int, float, str]:
        """Where it stands in the queue."""
        assert self.job.margin is not None  # noqa: S101 - the queue holds no others
        return self.rank, self.job.margin, self.job.id


class FeedbackStore(Store):
    """The rows of feedback."""

    def add(self, tenant: str, job_id: str, said: Said) -> bool:
        """Write it down in place of what the same actor said before. False: the job has no answer."""
        with self._session(self._writing) as session:
            # Locked where rows are: of two requests of one actor at the same moment, the second comes later.
            job = session.scalar(
                select(JobRow)
                .where(JobRow.tenant == tenant, JobRow.id == job_id, self._has("done"))
                .with_for_update()
            )
            if job is None or job.result is None:
                return False
            answer = json.loads(job.result)
            self._end(session, tenant, job_id, source=said.source, actor=said.actor)
            row = FeedbackRow(
                tenant=tenant,
                job_id=job_id,
                source=said.source,
                actor=said.actor,
                opinion=said.opinion or _opinion(answer["verdict"], said.label),
                label=said.label,
                note=said.note,
                answer=answer["verdict"],
                score=answer["score"],
                logit=answer["logit"],
                made_by=job.made_by,
                created_at=self._now(),
            )
            session.add(row)
            message = feedback_created(row)
            outbox.add(session, tenant, message.type, message.data)
            details = {"source": row.source, "opinion": row.opinion, "label": row.label}
            append(session, Event("feedback_given", tenant, said.actor, job_id, details))
        return True

    def end(self, tenant: str, job_id: str, *, source: Source, actor: str) -> bool:
        """Let it count no longer. False: nothing does."""
        with self._session(self._writing) as session:
            ended = self._end(session, tenant, job_id, source=source, actor=actor)
            if ended:
                append(session, Event("feedback_withdrawn", tenant, actor, job_id, {"source": source}))
        return ended

    def current(self, tenant: str, job_id: str) -> list[Feedback]:
        """What counts of what was said of a job, the latest first."""
        wanted = select(FeedbackRow).where(
            FeedbackRow.tenant == tenant, FeedbackRow.job_id == job_id, FeedbackRow.ended_at.is_(None)
        )
        with self._session(self._engine) as session:
            return list(session.scalars(wanted.order_by(FeedbackRow.id.desc())))

    def waiting(
        self, tenant: str, *, after: tuple[int, float, str] | None, limit: int
    ) -> tuple[list[Waiting], int]:
        """Answers that no operator has decided on, and how many there are in all: first what is inconclusive,
        was reported or is the policy's to review, then the others, each by how near to a threshold they came.
        """
        reported = _said(source="user", opinions=("wrong", "unsure"))
        wanted = or_(JobRow.verdict == "inconclusive", JobRow.action == "review", reported)
        rank = case((wanted, 0), else_=1)
        undecided = and_(
            JobRow.tenant == tenant, self._has("done"), JobRow.margin.is_not(None), ~_said(source="review")
        )
        page = select(JobRow, rank).where(undecided).order_by(rank, JobRow.margin, JobRow.id).limit(limit)
        if after is not None:
            page = page.where(tuple_(rank, JobRow.margin, JobRow.id) > tuple_(*map(literal, after)))
        with self._session(self._engine) as session:
            found = session.execute(page.options(defer(JobRow.result))).all()
            reports = session.scalars(
                select(FeedbackRow)
                .where(
                    FeedbackRow.job_id.in_([job.id for job, _ in found]),
                    FeedbackRow.source == "user",
                    FeedbackRow.opinion.in_(("wrong", "unsure")),
                    FeedbackRow.ended_at.is_(None),
                )
                .order_by(FeedbackRow.id)
            ).all()
            total = session.scalar(select(func.count()).select_from(JobRow).where(undecided)) or 0
        return [
            Waiting(job, rank, [report for report in reports if report.job_id == job.id])
            for job, rank in found
        ], total

    def _end(self, session: Session, tenant: str, job_id: str, *, source: Source, actor: str) -> bool:
        statement = (
            update(FeedbackRow)
            .where(
                FeedbackRow.tenant == tenant,
                FeedbackRow.job_id == job_id,
                FeedbackRow.source == source,
                FeedbackRow.actor == actor,
                FeedbackRow.ended_at.is_(None),
            )
            .values(ended_at=self._now())
            .returning(FeedbackRow.id)
        )
        return session.execute(statement).first() is not None


def _said(*, source: Source, opinions: Sequence[Opinion] = ()) -> ColumnElement[bool]:
    """Whether this was said of a job, and counts."""
    saying = exists().where(
        FeedbackRow.job_id == JobRow.id, FeedbackRow.source == source, FeedbackRow.ended_at.is_(None)
    )
    return saying.where(FeedbackRow.opinion.in_(opinions)) if opinions else saying


def _opinion(verdict: str, label: Label | None) -> Opinion | None:
    """What a label says of a verdict; nothing of one that was inconclusive."""
    if label is None:
        return "unsure"
    if verdict == "inconclusive":
        return None
    return "right" if (verdict == "generated") == (label == "generated") else "wrong"
