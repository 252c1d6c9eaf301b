"""Every statement on the table of jobs. Blocking: ``service`` calls it in threads of its own.

Times are compared by one clock: ``app.jobs.database.clock``.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Delete,
    Engine,
    Update,
    and_,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, defer

from app.audit import Event, append
from app.jobs import fingerprints
from app.jobs.database import clock, is_sqlite
from app.jobs.table import FeedbackRow, GroupMemberRow, GroupRow, JobRow
from app.webhooks import outbox
from app.webhooks.events import Event as Message
from app.webhooks.events import job_ended
from specsem.pipeline import Options
from specsem.records import Status
from specsem.result import Action, Decision, ErrorBody, ScoredFile, Verdict

__all__ = ["AppealStands", "Census", "Finished", "JobStore", "KeyTaken", "NewJob", "Progress", "Store", "hit"]

LEASE_BYTES = 16
FINISHED = ("done", "failed")
NO_LEASE: dict[str, Any] = {"lease": None, "lease_until": None, "eta_s": None}


class KeyTaken(Exception):
    """The tenant has a job with this idempotency key already."""


class AppealStands(Exception):
    """There is a second look at this job's video already."""

    def __init__(self, job: JobRow) -> None:
        super().__init__(job.id)
        self.job = job


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is to be done, for whom."""

    id: str
    tenant: str
    filename: str
    bytes: int | None
    sha256: str | None
    options: Options
    keep_media: bool
    surface: str = ""
    idempotency_key: str | None = None
    url: str | None = None
    url_query: str | None = field(default=None, repr=False)
    url_sha256: str | None = None
    fresh: bool = False
    appeal_of: str | None = None
    key: str = ""
    """Public part of the key that asked: for the audit trail, and not in the row."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a job ended: a result and what made it, or an error."""

    result: str | None = None
    made_by: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    from_store: bool = False
    """By an earlier job for the same bytes."""
    verdict: Verdict | None = None
    margin: float | None = None
    """As ``JobRow`` has it."""
    score: float | None = None
    decision: Decision | None = None
    """What the policy makes of the result."""
    summary: dict[str, Any] = field(default_factory=dict)
    """What the audit trail keeps of the result."""
    fingerprint: bytes = b""
    """What the video looks like (``specsem.fingerprint``); empty where that isn't known."""
    views_bytes: int = 0
    """As ``JobRow`` has it."""

    @classmethod
    def of(
        cls, answer: ScoredFile, *, made_by: str | None, from_store: bool = False, fingerprint: bytes = b""
    ) -> "Finished":
        """With this answer."""
        limits, decision = answer.threshold, answer.decision
        return cls(
            result=answer.model_dump_json(),
            made_by=made_by,
            from_store=from_store,
            fingerprint=fingerprint,
            verdict=answer.verdict,
            margin=min(abs(answer.score - limit) for limit in (limits.value, limits.lower)),
            score=answer.score,
            decision=decision,
            summary={
                "verdict": answer.verdict,
                "score": answer.score,
                "threshold": limits.value,
                "calibration": answer.calibration.version if answer.calibration else 0,
                "model": answer.model.model_dump(),
                "decision": decision
                and {name: getattr(decision, name) for name in ("action", "policy", "version", "rule")},
            },
        )

    @property
    def action(self) -> Action | None:
        """What the policy decided."""
        return None if self.decision is None else self.decision.action

    @property
    def status(self) -> Status:
        """The state that this is."""
        return "failed" if self.result is None else "done"

    def event(self, tenant: str, job_id: str) -> Event:
        """What the audit trail keeps of it."""
        if self.result is None:
            return Event("job_failed", tenant, job=job_id, details={"code": self.error_code})
        return Event(
            "job_scored", tenant, job=job_id, details={**self.summary, "from_store": self.from_store}
        )

    def messages(self, job_id: str) -> list[Message]:
        """What the tenant's webhooks are told of it."""
        error = None
        if self.error_code is not None:
            error = ErrorBody(code=self.error_code, message=self.error_message or "")
        return job_ended(job_id, verdict=self.verdict, score=self.score, decision=self.decision, error=error)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is."""

    stage: str
    fraction: float
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class Census:
    """All jobs, counted."""

    by_status: dict[Status, int]
    oldest_queued_s: float
    """How long the one that waits longest has waited, in seconds; 0 where none does."""


class Store:
    """Statements on the database of jobs, each in a transaction of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writing = engine.execution_options(writes=True)
        self._sqlite = is_sqlite(engine)

    @contextmanager
    def _session(self, engine: Engine) -> Iterator[Session]:
        """One transaction; rows read in it stay readable after it."""
        with Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    def _now(self) -> ColumnElement[float]:
        return clock(self._engine)

    def _has(self, status: Status) -> ColumnElement[bool]:
        """Whether a job is in this state for its client: expired by the clock, before the janitor comes."""
        if status == "expired":
            over = and_(JobRow.status.in_(FINISHED), JobRow.expires_at <= self._now())
            return or_(JobRow.status == "expired", over)
        if status in FINISHED:
            return and_(JobRow.status == status, JobRow.expires_at > self._now())
        return JobRow.status == status


class JobStore(Store):
    """The rows. What it gives out is a snapshot: changing it changes nothing."""

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    # -- for clients ----------------------------------------------------------------------------------------

    def add(self, job: NewJob, *, finished: Finished | None = None, ttl_s: float = 0.0) -> JobRow:
        """A new row; with ``finished``, one that has its answer already.

        Raises:
            KeyTaken: by another job of this tenant.
            AppealStands: it is an appeal, and there is one.
        """
        now = self._now()
        columns = asdict(job)
        appealed = {"appeal_of": job.appeal_of} if job.appeal_of else {}
        events = [Event("job_submitted", job.tenant, columns.pop("key"), job.id, appealed)]
        statement = insert(JobRow).values(
            **columns.pop("options"),
            **columns,
            status="queued",
            not_before=now,
            stage="queued",
            created_at=now,
        )
        messages: list[Message] = []
        if finished is not None:
            statement = statement.values(**self._ending(finished, ttl_s), keep_media=False)
            events.append(finished.event(job.tenant, job.id))
            messages = finished.messages(job.id)
        try:
            with self._session(self._writing) as session:
                if job.appeal_of and (standing := _standing_appeal(session, job.tenant, job.appeal_of)):
                    session.expunge(standing)  # it is read once this transaction is undone
                    raise AppealStands(standing)
                row = session.execute(statement.returning(JobRow)).scalar_one()
                if finished is not None:
                    fingerprints.keep(session, row, finished.fingerprint)
                _tell(session, job.tenant, messages)
                append(session, *events)
                return row
        except IntegrityError as error:
            raise KeyTaken(job.idempotency_key) from error

    def find(self, tenant: str, job_id: str) -> JobRow | None:
        """A job of this tenant."""
        wanted = select(JobRow).where(JobRow.tenant == tenant, JobRow.id == job_id)
        with self._session(self._engine) as session:
            return session.execute(wanted).scalar_one_or_none()

    def find_by_key(self, tenant: str, idempotency_key: str) -> JobRow | None:
        """The tenant's job with this idempotency key."""
        with self._session(self._engine) as session:
            return session.execute(
                select(JobRow).where(JobRow.tenant == tenant, JobRow.idempotency_key == idempotency_key)
            ).scalar_one_or_none()

    def find_alike(self, tenant: str, sha256: str, *, options: Options, made_by: str) -> JobRow | None:
        """The tenant's latest answer for the same bytes by the same model with the same options."""
        with self._session(self._engine) as session:
            return session.execute(
                select(JobRow)
                .where(
                    JobRow.tenant == tenant,
                    JobRow.sha256 == sha256,
                    JobRow.thorough == options.thorough,
                    JobRow.evidence == options.evidence,
                    JobRow.stability == options.stability,
                    JobRow.made_by == made_by,
                    self._has("done"),
                )
                .order_by(JobRow.finished_at.desc())
                .limit(1)
            ).scalar_one_or_none()

    def appeal(self, tenant: str, job_id: str) -> JobRow | None:
        """The second look at a job's video, under way or done; None where there was none, or it failed."""
        with self._session(self._engine) as session:
            return _standing_appeal(session, tenant, job_id, lock=False)

    def page(
        self,
        tenant: str,
        *,
        statuses: Sequence[Status] = (),
        before: tuple[float, str] | None = None,
        limit: int,
    ) -> list[JobRow]:
        """The tenant's jobs, the latest first; ``before`` is (created_at, id) of the last one seen.

        Their results aren't loaded: a hundred long time lines are more than a page should weigh.
        """
        wanted = select(JobRow).where(JobRow.tenant == tenant)
        if statuses:
            wanted = wanted.where(or_(*(self._has(status) for status in statuses)))
        if before is not None:
            wanted = wanted.where(
                tuple_(JobRow.created_at, JobRow.id) < tuple_(literal(before[0]), literal(before[1]))
            )
        ordered = wanted.order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)
        ordered = ordered.options(defer(JobRow.result))
        with self._session(self._engine) as session:
            return list(session.execute(ordered).scalars())

    def answers(self, tenant: str | None = None, *, at_a_time: int = 100) -> Iterator[JobRow]:
        """Every job with an answer, of one tenant or of all, in constant memory."""
        wanted = select(JobRow).where(self._has("done"), JobRow.result.is_not(None))
        if tenant is not None:
            wanted = wanted.where(JobRow.tenant == tenant)
        last = ""
        while True:
            with self._session(self._engine) as session:
                page = wanted.where(JobRow.id > last).order_by(JobRow.id).limit(at_a_time)
                rows = list(session.execute(page).scalars())
            yield from rows
            if len(rows) < at_a_time:
                return
            last = rows[-1].id

    def remove(self, tenant: str, job_id: str, *, key: str = "") -> bool:
        """Forget a job and what was said of it, whatever it is doing; its worker finds its lease gone.
        False: there is none."""
        with self._session(self._writing) as session:
            # The job first: who adds feedback holds it meanwhile, and what they added is then found here.
            found = hit(session, delete(JobRow).where(JobRow.tenant == tenant, JobRow.id == job_id))
            session.execute(
                delete(FeedbackRow).where(FeedbackRow.tenant == tenant, FeedbackRow.job_id == job_id)
            )
            # Of those that are left, a count says nothing.
            groups = session.scalars(
                select(GroupMemberRow.group_id)
                .join(GroupRow, GroupRow.id == GroupMemberRow.group_id)
                .where(GroupMemberRow.job_id == job_id, GroupRow.tenant == tenant)
            ).all()
            if groups:
                session.execute(delete(GroupRow).where(GroupRow.id.in_(groups)))
                session.execute(delete(GroupMemberRow).where(GroupMemberRow.group_id.in_(groups)))
            fingerprints.forget(session, tenant, job_id)
            if not found:
                return False
            append(session, Event("job_deleted", tenant, key, job_id))
            return True

    def queued(self) -> int:
        """How many jobs wait."""
        with self._session(self._engine) as session:
            counting = select(func.count()).select_from(JobRow).where(JobRow.status == "queued")
            return session.execute(counting).scalar_one()

    # -- for workers ----------------------------------------------------------------------------------------

    def claim(self, *, lease_s: float, max_attempts: int) -> JobRow | None:
        """The oldest job that nobody is at, now under a lease of the caller's. None: there is none."""
        now = self._now()
        following = (
            select(JobRow.id)
            .where(
                or_(
                    and_(JobRow.status == "queued", JobRow.not_before <= now),
                    and_(JobRow.status == "running", JobRow.lease_until < now),
                ),
                JobRow.attempts < max_attempts,
            )
            .order_by(JobRow.created_at)
            .limit(1)
        )
        if not self._sqlite:  # who claims at the same moment takes the next one instead of waiting
            following = following.with_for_update(skip_locked=True)
        statement = (
            update(JobRow)
            .where(JobRow.id == following.scalar_subquery())
            .values(
                status="running",
                lease=secrets.token_hex(LEASE_BYTES),
                lease_until=now + lease_s,
                attempts=JobRow.attempts + 1,
                started_at=func.coalesce(JobRow.started_at, now),
                stage="starting",
                fraction=0.0,
                eta_s=None,
            )
            .returning(JobRow)
        )
        with self._session(self._writing) as session:
            return session.execute(statement).scalar_one_or_none()

    def renew(self, job: JobRow, progress: Progress, *, lease_s: float) -> bool:
        """Hold on to a job and say how far it is. False: the lease is another's, or the job is gone."""
        return self._as_holder(
            job,
            lease_until=self._now() + lease_s,
            stage=progress.stage,
            fraction=progress.fraction,
            eta_s=progress.eta_s,
        )

    def note_media(self, job: JobRow, *, size: int, sha256: str) -> bool:
        """Write down the file that was fetched for a job. False: as ``renew``."""
        return self._as_holder(job, bytes=size, sha256=sha256)

    def finish(self, job: JobRow, finished: Finished, *, ttl_s: float) -> bool:
        """End a job. False: the lease is another's, or the job is gone; nothing was written then."""
        ended = _held(job).values(**self._ending(finished, ttl_s))
        with self._session(self._writing) as session:
            if not hit(session, ended):
                return False
            fingerprints.keep(session, job, finished.fingerprint)
            _tell(session, job.tenant, finished.messages(job.id))
            append(session, finished.event(job.tenant, job.id))
            return True

    def hand_back(self, job: JobRow, *, after_s: float = 0.0, counts: bool) -> bool:
        """Let others have it, after a while; an attempt that was cut short by us doesn't count."""
        return self._as_holder(
            job,
            status="queued",
            not_before=self._now() + after_s,
            attempts=job.attempts if counts else job.attempts - 1,
            stage="queued",
            fraction=0.0,
            **NO_LEASE,
        )

    def give_up(self, *, max_attempts: int, ttl_s: float) -> list[str]:
        """Fail what has ended its worker too often. The ids of those jobs."""
        now = self._now()
        worn_out = Finished(
            error_code="attempts_exceeded",
            error_message="The work on this file ended before its time, again and again.",
        )
        statement = (
            update(JobRow)
            .where(
                or_(JobRow.status == "queued", and_(JobRow.status == "running", JobRow.lease_until < now)),
                JobRow.attempts >= max_attempts,
            )
            .values(**self._ending(worn_out, ttl_s))
        )
        return self._ids_hit(statement, worn_out.event, worn_out.messages)

    # -- for the janitor ------------------------------------------------------------------------------------

    def expire(self, *, queue_ttl_s: float) -> list[str]:
        """Forget answers whose time is over, and what has waited too long to be of use. Their ids."""
        now = self._now()
        statement = (
            update(JobRow)
            .where(
                or_(
                    and_(JobRow.status.in_(FINISHED), JobRow.expires_at <= now),
                    and_(JobRow.status == "queued", JobRow.created_at <= now - queue_ttl_s),
                )
            )
            .values(
                status="expired",
                stage="expired",
                result=None,
                views_bytes=0,
                url_query=None,
                expires_at=func.coalesce(JobRow.expires_at, now),
            )
        )
        return self._ids_hit(statement, lambda tenant, job_id: Event("job_expired", tenant, job=job_id))

    def purge(self, *, after_s: float) -> list[str]:
        """Remove the rows of jobs that expired so long ago. Their ids."""
        statement = delete(JobRow).where(
            JobRow.status == "expired", JobRow.expires_at <= self._now() - after_s
        )
        with self._session(self._writing) as session:
            purged = list(session.execute(statement.returning(JobRow.id)).scalars())
            fingerprints.purge(session)
            return purged

    def in_need_of_media(self, ids: Sequence[str]) -> set[str]:
        """Which of these jobs still need their file."""
        with self._session(self._engine) as session:
            return set(session.execute(select(JobRow.id).where(JobRow.id.in_(ids), _needs_media())).scalars())

    def with_answer(self, ids: Sequence[str]) -> set[str]:
        """Which of these jobs have their answer still, or are on the way to one."""
        with self._session(self._engine) as session:
            answered = or_(JobRow.status.in_(("queued", "running")), JobRow.result.is_not(None))
            return set(session.execute(select(JobRow.id).where(JobRow.id.in_(ids), answered)).scalars())

    def media_bytes(self) -> dict[str, int]:
        """Bytes of all files that are still needed, by tenant."""
        with self._session(self._engine) as session:
            # None: all that is there is still to be fetched.
            sums = select(JobRow.tenant, func.sum(JobRow.bytes)).where(_needs_media()).group_by(JobRow.tenant)
            return {tenant: int(total or 0) for tenant, total in session.execute(sums)}

    def views_bytes(self) -> dict[str, int]:
        """Bytes of all pictures that are kept with answers, by tenant."""
        with self._session(self._engine) as session:
            kept = JobRow.views_bytes > 0
            sums = select(JobRow.tenant, func.sum(JobRow.views_bytes)).where(kept).group_by(JobRow.tenant)
            return {tenant: int(total) for tenant, total in session.execute(sums)}

    def census(self) -> Census:
        """How many jobs are in each state, and how long the first has waited."""
        counting = select(JobRow.status, func.count().label("n")).group_by(JobRow.status)
        waited = select(self._now() - func.min(JobRow.created_at)).where(JobRow.status == "queued")
        with self._session(self._engine) as session:
            by_status = {row.status: row.n for row in session.execute(counting)}
            return Census(by_status, max(0.0, session.execute(waited).scalar_one() or 0.0))

    # -- how ------------------------------------------------------------------------------------------------

    def _ending(self, finished: Finished, ttl_s: float) -> dict[str, Any]:
        now = self._now()
        return {
            "status": finished.status,
            "stage": finished.status,
            "fraction": 1.0,
            "result": finished.result,
            "made_by": finished.made_by,
            "error_code": finished.error_code,
            "error_message": finished.error_message,
            "from_store": finished.from_store,
            "verdict": finished.verdict,
            "margin": finished.margin,
            "action": finished.action,
            "views_bytes": finished.views_bytes,
            "url_query": None,
            "finished_at": now,
            "expires_at": now + ttl_s,
            **NO_LEASE,
        }

    def _as_holder(self, job: JobRow, **values: Any) -> bool:
        """Change a row if the lease that came with ``job`` still holds."""
        with self._session(self._writing) as session:
            return hit(session, _held(job).values(**values))

    def _ids_hit(
        self,
        statement: Update,
        event: Callable[[str, str], Event],
        messages: Callable[[str], Sequence[Message]] = lambda _: (),
    ) -> list[str]:
        """Change rows, tell of each the ``messages`` of its id, and note it by the ``event`` of its tenant
        and id. The ids."""
        with self._session(self._writing) as session:
            changed = session.execute(statement.returning(JobRow.tenant, JobRow.id)).all()
            for row in changed:
                _tell(session, row.tenant, messages(row.id))
            if changed:
                append(session, *(event(row.tenant, row.id) for row in changed))
            return [row.id for row in changed]


def _standing_appeal(session: Session, tenant: str, job_id: str, *, lock: bool = True) -> JobRow | None:
    """The second look at a job's video that counts. With ``lock``, whoever asks at the same moment waits for
    the end of this transaction: by the lock on the first job's row, where rows are locked."""
    if lock:
        session.execute(
            select(JobRow.id).where(JobRow.tenant == tenant, JobRow.id == job_id).with_for_update()
        )
    wanted = select(JobRow).where(JobRow.tenant == tenant, JobRow.appeal_of == job_id)
    found = session.scalars(wanted.order_by(JobRow.created_at.desc(), JobRow.id.desc()))
    return next((row for row in found if row.status_now not in {"failed", "expired"}), None)


def _held(job: JobRow) -> Update:
    """An update of the row if the lease that came with ``job`` still holds."""
    return update(JobRow).where(JobRow.id == job.id, JobRow.status == "running", JobRow.lease == job.lease)


def _tell(session: Session, tenant: str, messages: Sequence[Message]) -> None:
    """Have the tenant's webhooks told, if this transaction is committed."""
    for message in messages:
        outbox.add(session, tenant, message.type, message.data)


def _needs_media() -> ColumnElement[bool]:
    waits = JobRow.status.in_(("queued", "running"))
    return or_(waits, and_(JobRow.keep_media, JobRow.status.in_(FINISHED)))


def hit(session: Session, statement: Update | Delete) -> bool:
    """Whether the statement found its one row."""
    result = session.execute(statement, execution_options={"synchronize_session": False})
    return cast("CursorResult[Any]", result).rowcount == 1
