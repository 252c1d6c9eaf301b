"""What people say of answers, one by one or by count, and which answers wait for an operator. Blocking, as
``store``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, exists, func, literal, or_, select, tuple_, update
from sqlalchemy.orm import Session, defer

from app.audit import Event, append
from app.jobs.store import Store
from app.jobs.table import FeedbackRow, GroupMemberRow, GroupRow, JobRow
from app.webhooks import outbox
from app.webhooks.events import feedback_created
from specsem.calibration import Confirmation
from specsem.records import GroupKind, Label, Opinion, Source

__all__ = ["Counted", "Feedback", "FeedbackStore", "Group", "GroupRefused", "Said", "Waiting"]


@dataclass(frozen=True, slots=True)
class Said:
    """What one says of an answer: of the answer itself, or of the video, or both."""

    source: Source
    actor: str
    opinion: Opinion | None = None
    """None: it follows from the label."""
    label: Label | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Counted:
    """Of how many answers something holds; nobody says of which."""

    kind: GroupKind
    count: int
    jobs: Sequence[str]
    actor: str
    note: str = ""


class GroupRefused(Exception):
    """Why these jobs can't be counted together: a code of ``app.problems`` and a sentence."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


Group = GroupRow
"""A count as it was given. A snapshot."""
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
                weights=_weights(answer),
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

    # -- counts ---------------------------------------------------------------------------------------------

    def add_group(self, tenant: str, counted: Counted) -> Group:
        """Write down a count over some jobs of this tenant.

        Raises:
            GroupRefused: ``job_not_found``, ``job_not_done``, or ``invalid_request``.
        """
        wanted = list(dict.fromkeys(counted.jobs))
        with self._session(self._writing) as session:
            # Locked as in `add`: who deletes one of them now does so before us, or finds the count.
            rows = session.scalars(
                select(JobRow)
                .where(JobRow.tenant == tenant, JobRow.id.in_(wanted))
                .order_by(JobRow.id)
                .with_for_update()
            ).all()
            answers = {row.id: json.loads(row.result) for row in rows if row.result and row.status == "done"}
            weights = _weights_of_all(counted, {row.id for row in rows}, answers)
            group = GroupRow(
                tenant=tenant,
                actor=counted.actor,
                kind=counted.kind,
                count=counted.count,
                jobs=len(wanted),
                note=counted.note,
                weights=weights,
                created_at=self._now(),
            )
            session.add(group)
            session.flush()
            session.add_all(
                GroupMemberRow(group_id=group.id, job_id=job, answer=answer["verdict"], logit=answer["logit"])
                for job, answer in answers.items()
            )
            details = {"group": group.id, "kind": counted.kind, "count": counted.count, "jobs": len(wanted)}
            append(session, Event("group_feedback_given", tenant, counted.actor, details=details))
            session.flush()
            session.refresh(group)  # its time is the database's
            return group

    def groups(self, tenant: str, *, before: int | None, limit: int) -> list[Group]:
        """The tenant's counts, the latest first; ``before`` is the id of the last one seen."""
        wanted = select(GroupRow).where(GroupRow.tenant == tenant)
        if before is not None:
            wanted = wanted.where(GroupRow.id < before)
        with self._session(self._engine) as session:
            return list(session.scalars(wanted.order_by(GroupRow.id.desc()).limit(limit)))

    def remove_group(self, tenant: str, group_id: int, *, actor: str) -> bool:
        """Forget a count. False: there is none."""
        with self._session(self._writing) as session:
            gone = delete(GroupRow).where(GroupRow.tenant == tenant, GroupRow.id == group_id)
            if session.execute(gone.returning(GroupRow.id)).first() is None:
                return False
            session.execute(delete(GroupMemberRow).where(GroupMemberRow.group_id == group_id))
            append(session, Event("feedback_withdrawn", tenant, actor, details={"group": group_id}))
            return True

    def confirmations(self, weights: str, *, since: float, users: bool = False) -> list[Confirmation]:
        """What is known of answers by these weights since then, over all tenants: operators' labels and
        counts; with ``users``, their labels as well, where no operator gave one."""
        sources: tuple[Source, ...] = ("user", "review") if users else ("review",)
        with self._session(self._engine) as session:
            labels = session.scalars(
                select(FeedbackRow)
                .where(
                    FeedbackRow.weights == weights,
                    FeedbackRow.source.in_(sources),
                    FeedbackRow.label.is_not(None),
                    FeedbackRow.ended_at.is_(None),
                    FeedbackRow.created_at >= since,
                )
                .order_by(FeedbackRow.id)
            ).all()
            groups = session.scalars(
                select(GroupRow).where(GroupRow.weights == weights, GroupRow.created_at >= since)
            ).all()
            members: dict[int, list[GroupMemberRow]] = {group.id: [] for group in groups}
            found = (
                select(GroupMemberRow)
                .join(GroupRow, GroupRow.id == GroupMemberRow.group_id)
                .where(GroupRow.weights == weights, GroupRow.created_at >= since)
            )
            for member in session.scalars(found.order_by(GroupMemberRow.job_id)):
                members[member.group_id].append(member)
        # Of one job, an operator's label goes before a user's, and a later one before an earlier.
        by_job = {row.job_id: row for row in sorted(labels, key=lambda row: (row.source == "review", row.id))}
        return [
            *(
                Confirmation(
                    (row.job_id,), (row.logit,), (True,), int(row.label == "generated"), row.created_at
                )
                for row in by_job.values()
            ),
            *(
                Confirmation(
                    jobs=tuple(member.job_id for member in members[group.id]),
                    logits=tuple(member.logit for member in members[group.id]),
                    holds_if_generated=tuple(
                        group.kind == "generated" or member.answer == "generated"
                        for member in members[group.id]
                    ),
                    count=group.count,
                    at=group.created_at,
                )
                for group in groups
            ),
        ]

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


def _weights(answer: dict[str, Any]) -> str | None:
    """The SHA-256 of the weights that gave an answer."""
    found: str | None = answer.get("model", {}).get("sha256")
    return found


def _weights_of_all(counted: Counted, there: set[str], answers: dict[str, dict[str, Any]]) -> str:
    """The weights that gave all these answers. Raises ``GroupRefused``."""
    if len(set(counted.jobs)) < len(counted.jobs):
        raise GroupRefused("invalid_request", "A job is named twice.")
    if missing := [job for job in counted.jobs if job not in there]:
        raise GroupRefused("job_not_found", f"There is no job {missing[0]}; it may have been deleted.")
    if missing := [job for job in counted.jobs if job not in answers]:
        raise GroupRefused("job_not_done", f"Job {missing[0]} has no answer that anybody could speak of.")
    if counted.count > len(counted.jobs):
        raise GroupRefused(
            "invalid_request", f"It can't hold of {counted.count} of {len(counted.jobs)} jobs."
        )
    if counted.kind == "upheld":
        open_ = [job for job, answer in answers.items() if answer["verdict"] == "inconclusive"]
        if open_:
            raise GroupRefused(
                "invalid_request", f"The answer to job {open_[0]} was inconclusive: nothing to uphold."
            )
    weights = {_weights(answer) for answer in answers.values()}
    if len(weights) > 1 or None in weights:
        raise GroupRefused("invalid_request", "The answers are of several models: count them apart.")
    [only] = weights
    assert only is not None  # noqa: S101 - the line before
    return only


def _opinion(verdict: str, label: Label | None) -> Opinion | None:
    """What a label says of a verdict; nothing of one that was inconclusive."""
    if label is None:
        return "unsure"
    if verdict == "inconclusive":
        return None
    return "right" if (verdict == "generated") == (label == "generated") else "wrong"
