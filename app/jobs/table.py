"""The tables: jobs, feedback, calibrations, API keys, keys of signatures, the audit trail, webhooks. A change
needs a migration; a test compares the two."""

import time

from sqlalchemy import (
    BigInteger,
    Double,
    Index,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    column,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from specsem.pipeline import Options
from specsem.records import DeliveryStatus, DisabledBecause, GroupKind, Label, Opinion, Source, Status
from specsem.result import Action

__all__ = [
    "ActivationRow",
    "AuditRow",
    "Base",
    "CalibrationRow",
    "DeliveryRow",
    "FeedbackRow",
    "FingerprintRow",
    "GroupMemberRow",
    "GroupRow",
    "JobRow",
    "KeyRow",
    "ScoreCountRow",
    "SigningKeyRow",
    "WebhookRow",
]


class Base(DeclarativeBase):
    """Every constraint gets a name by rule: a migration can only drop what has one."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        }
    )


class JobRow(Base):
    """One job. Times are seconds since the epoch by the database's clock (``JobStore`` says why)."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("tenant", "idempotency_key"),
        Index(None, "tenant", "created_at", "id"),  # a page of the list
        Index(None, "tenant", "sha256"),  # the same bytes again
        Index(None, "status", "created_at"),  # the next to do; what has expired
        Index(None, "appeal_of"),
        Index(None, "tenant", "views_bytes"),  # what they sum up to, without reading the rows
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    status: Mapped[Status] = mapped_column(Text)

    # What is to be done.
    filename: Mapped[str] = mapped_column(Text)
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(Text)
    """None until the file of ``url`` has been fetched, like ``bytes``."""
    url: Mapped[str | None] = mapped_column(Text)
    """Where the file is, without the query."""
    url_query: Mapped[str | None] = mapped_column(Text)
    """The query: in a presigned link that is its credentials. Kept until the job ends, and never shown."""
    url_sha256: Mapped[str | None] = mapped_column(Text)
    """Of the whole address: tells whether two requests with one idempotency key are the same."""
    fresh: Mapped[bool] = mapped_column(server_default=false(), default=False)
    """Done anew though the store knows the answer to these bytes."""
    thorough: Mapped[bool]
    evidence: Mapped[bool] = mapped_column(server_default=false(), default=False)
    stability: Mapped[bool] = mapped_column(server_default=false(), default=False)
    surface: Mapped[str] = mapped_column(Text, server_default="", default="")
    """Where the video is to appear, as the client says; empty where it doesn't."""
    keep_media: Mapped[bool]
    appeal_of: Mapped[str | None] = mapped_column(Text)
    """The job at whose video this is a second look. It may be gone."""
    idempotency_key: Mapped[str | None] = mapped_column(Text)

    # Who is at it.
    lease: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[float | None] = mapped_column(Double)
    attempts: Mapped[int] = mapped_column(server_default=text("0"), default=0)
    not_before: Mapped[float] = mapped_column(Double)
    stage: Mapped[str] = mapped_column(Text)
    fraction: Mapped[float] = mapped_column(Double, server_default=text("0"), default=0.0)
    eta_s: Mapped[float | None] = mapped_column(Double)

    # What came of it.
    result: Mapped[str | None] = mapped_column(Text)
    made_by: Mapped[str | None] = mapped_column(Text)
    """Model, version, weights and operating point behind the result: what it may be answered for again."""
    verdict: Mapped[str | None] = mapped_column(Text)
    """As in the result."""
    margin: Mapped[float | None] = mapped_column(Double)
    """Distance of the result's score from the threshold that is nearer, 0..1."""
    action: Mapped[Action | None] = mapped_column(Text)
    """What the policy decided, as in the result."""
    views_bytes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"), default=0)
    """What the pictures kept with the result take. Shared with another job, they count for each."""
    from_store: Mapped[bool] = mapped_column(server_default=false(), default=False)
    error_code: Mapped[str | None] = mapped_column(Text)
    error_message: Mapped[str | None] = mapped_column(Text)

    created_at: Mapped[float] = mapped_column(Double)
    started_at: Mapped[float | None] = mapped_column(Double)
    finished_at: Mapped[float | None] = mapped_column(Double)
    expires_at: Mapped[float | None] = mapped_column(Double)

    @property
    def options(self) -> Options:
        """What of the answer is asked for."""
        return Options(thorough=self.thorough, evidence=self.evidence, stability=self.stability)

    @property
    def status_now(self) -> Status:
        """As its client sees it: what is over by the clock is expired, before the janitor comes."""
        if (
            self.status in {"done", "failed"}
            and self.expires_at is not None
            and self.expires_at <= time.time()
        ):
            return "expired"
        return self.status


class FeedbackRow(Base):
    """What somebody says of a job's answer. Rows are added and ended, and change in nothing else.

    It outlives the job (not its deletion by the client), so it says for itself what the answer was:
    thresholds may be fitted anew from it. Times are seconds since the epoch.
    """

    __tablename__ = "feedback"
    __table_args__ = (
        Index(None, "job_id"),
        Index(None, "tenant", "created_at"),
        # One opinion of each counts at a time.
        Index(
            "uq_feedback_current",
            "job_id",
            "source",
            "actor",
            unique=True,
            sqlite_where=column("ended_at").is_(None),
            postgresql_where=column("ended_at").is_(None),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    job_id: Mapped[str] = mapped_column(Text)
    source: Mapped[Source] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(Text)
    """What the key is called; empty where none was needed."""

    opinion: Mapped[Opinion | None] = mapped_column(Text)
    """Of the answer. None: it is known what the video is, and the answer was inconclusive."""
    label: Mapped[Label | None] = mapped_column(Text)
    """What the video is, where that is said."""
    note: Mapped[str] = mapped_column(Text)

    answer: Mapped[str] = mapped_column(Text)
    """The verdict that is spoken of."""
    score: Mapped[float] = mapped_column(Double)
    logit: Mapped[float] = mapped_column(Double)
    made_by: Mapped[str | None] = mapped_column(Text)
    """As ``JobRow.made_by``."""
    weights: Mapped[str | None] = mapped_column(Text)
    """SHA-256 of the model's weights that gave the logit."""

    created_at: Mapped[float] = mapped_column(Double)
    ended_at: Mapped[float | None] = mapped_column(Double)
    """Since when it no longer counts: withdrawn, or followed by another of the same actor."""


class GroupRow(Base):
    """A count over some jobs' answers, of which nobody says which. It goes when one of the jobs is deleted:
    of those that are left it would say nothing. Times are seconds since the epoch."""

    __tablename__ = "group_feedback"
    __table_args__ = (Index(None, "tenant", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(Text)
    kind: Mapped[GroupKind] = mapped_column(Text)
    count: Mapped[int]
    jobs: Mapped[int]
    """How many."""
    note: Mapped[str] = mapped_column(Text)
    weights: Mapped[str] = mapped_column(Text)
    """SHA-256 of the weights that gave all the logits."""
    created_at: Mapped[float] = mapped_column(Double)


class GroupMemberRow(Base):
    """An answer that a count speaks of. It outlives the job's expiry, as feedback does."""

    __tablename__ = "group_members"
    __table_args__ = (Index(None, "job_id"),)

    group_id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(Text, primary_key=True)
    answer: Mapped[str] = mapped_column(Text)
    """The verdict that is spoken of."""
    logit: Mapped[float] = mapped_column(Double)


class CalibrationRow(Base):
    """A calibration that was fitted from feedback. Never changed. Times are seconds since the epoch."""

    __tablename__ = "calibrations"

    version: Mapped[int] = mapped_column(primary_key=True)
    """1, 2, 3, ...; 0 is the one that came with the model, and has no row."""
    weights: Mapped[str] = mapped_column(Text)
    """SHA-256 of the model's weights that it is for."""
    content: Mapped[str] = mapped_column(Text)
    """As ``specsem.calibration.Calibration.to_json`` has it."""
    note: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double)


class ActivationRow(Base):
    """That a calibration became the active one. The latest that was not undone counts."""

    __tablename__ = "activations"
    __table_args__ = (Index(None, "weights", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    weights: Mapped[str] = mapped_column(Text)
    """For the model with these weights."""
    version: Mapped[int]
    undone: Mapped[bool] = mapped_column(server_default=false(), default=False)
    at: Mapped[float] = mapped_column(Double)


class ScoreCountRow(Base):
    """How many videos got such a logit in a week, of all tenants: what drift is seen by."""

    __tablename__ = "score_counts"

    week: Mapped[str] = mapped_column(Text, primary_key=True)
    """Its Monday (UTC), as 2026-11-30."""
    weights: Mapped[str] = mapped_column(Text, primary_key=True)
    bin: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Of the logit: ``app.drift`` has the edges."""
    verdict: Mapped[str] = mapped_column(Text, primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class FingerprintRow(Base):
    """What the video of a job looks like (``specsem.fingerprint``), to find it again among others.

    It outlives its job where a person has decided on that: the decision is worth most for what comes later.
    """

    __tablename__ = "fingerprints"
    __table_args__ = (Index(None, "tenant", "created_at"),)

    job_id: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str | None] = mapped_column(Text)
    """Of the file."""
    hashes: Mapped[bytes] = mapped_column(LargeBinary)
    """32 bytes a frame, one behind the other."""
    created_at: Mapped[float] = mapped_column(Double)


class KeyRow(Base):
    """One API key; ``app.keys`` says how it is made and used. Times are seconds since the epoch."""

    __tablename__ = "api_keys"

    prefix: Mapped[str] = mapped_column(Text, primary_key=True)
    """The part of the key that is no secret."""
    sha256: Mapped[str] = mapped_column(Text)
    """Of the whole key. The key itself is nowhere."""
    name: Mapped[str] = mapped_column(Text)
    tenant: Mapped[str] = mapped_column(Text)
    scopes: Mapped[str] = mapped_column(Text)
    """Separated by spaces."""
    rate: Mapped[str | None] = mapped_column(Text)
    concurrency: Mapped[int | None]

    created_at: Mapped[float] = mapped_column(Double)
    expires_at: Mapped[float | None] = mapped_column(Double)
    revoked_at: Mapped[float | None] = mapped_column(Double)
    last_used_at: Mapped[float | None] = mapped_column(Double)


class WebhookRow(Base):
    """One endpoint that is told of events (``app.webhooks``). Times are seconds since the epoch."""

    __tablename__ = "webhooks"
    __table_args__ = (Index(None, "tenant", "created_at"),)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    url: Mapped[str] = mapped_column(Text)
    """Without the query."""
    url_query: Mapped[str | None] = mapped_column(Text)
    """May hold credentials, and is never shown."""
    description: Mapped[str] = mapped_column(Text)
    events: Mapped[str] = mapped_column(Text)
    """Types, separated by spaces. Empty: all."""

    secret: Mapped[str] = mapped_column(Text)
    """In the clear: whoever signs has to have it."""
    old_secret: Mapped[str | None] = mapped_column(Text)
    """The one before, which signs too until ``old_secret_until``."""
    old_secret_until: Mapped[float | None] = mapped_column(Double)

    held_until: Mapped[float | None] = mapped_column(Double)
    """Nothing is sent before: the receiver asked for a pause."""
    created_at: Mapped[float] = mapped_column(Double)
    disabled_at: Mapped[float | None] = mapped_column(Double)
    disabled_because: Mapped[DisabledBecause | None] = mapped_column(Text)


class DeliveryRow(Base):
    """One event on its way to one endpoint: the outbox. Times are as in ``JobRow``."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "event_id"),
        Index(None, "webhook_id", "id"),  # a page of the list
        Index(None, "status", "not_before"),  # the next to send
        Index(None, "ended_at"),  # what is over
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    webhook_id: Mapped[str] = mapped_column(Text)
    tenant: Mapped[str] = mapped_column(Text)

    event_id: Mapped[str] = mapped_column(Text)
    type: Mapped[str] = mapped_column(Text)
    payload: Mapped[str] = mapped_column(Text)
    """The body, as it is signed and sent."""

    status: Mapped[DeliveryStatus] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(server_default=text("0"), default=0)
    since: Mapped[float] = mapped_column(Double)
    """When it was first due: its retries end so long after. Anew when it is sent again by request."""
    not_before: Mapped[float] = mapped_column(Double)
    lease: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[float | None] = mapped_column(Double)

    # How the last attempt went.
    last_attempt_at: Mapped[float | None] = mapped_column(Double)
    last_status: Mapped[int | None]
    """Of the answer; None where there was none."""
    last_error: Mapped[str | None] = mapped_column(Text)

    created_at: Mapped[float] = mapped_column(Double)
    ended_at: Mapped[float | None] = mapped_column(Double)


class SigningKeyRow(Base):
    """The public half of a key that signs reports; ``app.signing`` has the other."""

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(Text, primary_key=True)
    """Its thumbprint (RFC 7638)."""
    x: Mapped[str] = mapped_column(Text)
    """The public key as a JWK has it."""
    created_at: Mapped[float] = mapped_column(Double)
    withdrawn_at: Mapped[float | None] = mapped_column(Double)


class AuditRow(Base):
    """One link of the audit trail (``app.audit``). Never changed, never removed."""

    __tablename__ = "audit_trail"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """1, 2, 3, ... without a gap."""
    entry: Mapped[str] = mapped_column(Text)
    """Canonical JSON (RFC 8785)."""
    sha256: Mapped[str] = mapped_column(Text)
    """Of ``entry``."""
