"""Requests and answers of /v1. A scored file is ``specsem.result.ScoredFile``, the command line's own."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from app.jobs.table import (
    DeliveryRow,
    DeliveryStatus,
    DisabledBecause,
    EventType,
    FeedbackRow,
    Label,
    Opinion,
    Source,
    WebhookRow,
)
from specsem.media import MediaInfo
from specsem.pipeline import Options
from specsem.result import ErrorBody, Model, Threshold, Verdict

__all__ = [
    "OPTIONS",
    "Decision",
    "Delivery",
    "DeliveryList",
    "Feedback",
    "FeedbackEvent",
    "FeedbackEventData",
    "FeedbackGiven",
    "FeedbackSummary",
    "Health",
    "Job",
    "JobEvent",
    "JobEventData",
    "JobLinks",
    "JobList",
    "JobProgress",
    "Measured",
    "ModelInfo",
    "ModelList",
    "NamedVideo",
    "NewWebhook",
    "PolicyInfo",
    "PolicyList",
    "ProblemDocument",
    "Readiness",
    "Redelivered",
    "ReviewItem",
    "ReviewQueue",
    "Rotation",
    "SentDelivery",
    "Version",
    "Video",
    "VideoMedia",
    "Webhook",
    "WebhookChange",
    "WebhookList",
    "WebhookWithSecret",
]


OPTIONS = {
    "thorough": "Scan the whole time line instead of a few windows.",
    "evidence": "Say what the score stands on and which family of generators it looks like; a job draws what "
    "the model saw as well.",
    "stability": "Score it again after cheap deliveries (half size, re-encode, crop, flip, fewer frames): a "
    "verdict that turns into its opposite becomes `inconclusive`. Takes some five times as long.",
}
"""What may be asked for beyond the fast path: names of ``specsem.pipeline.Options``."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VideoMedia(_Record):
    """Facts of a stored file; ``duration_s`` and ``fps`` come from its timestamps."""

    container: str
    codec: str
    width: int = Field(description="Pixels, as displayed.")
    height: int = Field(description="Pixels, as displayed.")
    fps: float | None
    duration_s: float = Field(description="Seconds.")

    @classmethod
    def of(cls, info: MediaInfo) -> "VideoMedia":
        """What of a decoder's facts is kept."""
        return cls(
            container=info.container,
            codec=info.codec,
            width=info.width,
            height=info.height,
            fps=info.fps,
            duration_s=info.duration_s,
        )


class Video(_Record):
    """An uploaded video."""

    id: str = Field(
        description="128 random bits in hexadecimal.", examples=["9f86d081884c7d659a2feaa0c55ad015"]
    )
    filename: str = Field(description="The client's name of it, for showing.", examples=["clip.mp4"])
    bytes: int
    sha256: str
    media: VideoMedia
    created_at: datetime
    expires_at: datetime = Field(description="It is removed at this time.")


class NamedVideo(_Record):
    """A video that is named instead of sent: a stored one, or an address."""

    video: str | None = Field(
        None, description="Id of a stored video.", examples=["9f86d081884c7d659a2feaa0c55ad015"]
    )
    url: str | None = Field(
        None,
        description="Where to fetch it from, by https: for jobs only, and where that is switched on.",
        examples=["https://media.example.org/clip.mp4"],
    )
    thorough: bool = Field(False, description=OPTIONS["thorough"])
    evidence: bool = Field(False, description=OPTIONS["evidence"])
    stability: bool = Field(False, description=OPTIONS["stability"])

    @property
    def options(self) -> Options:
        """What of the answer is asked for."""
        return Options(thorough=self.thorough, evidence=self.evidence, stability=self.stability)

    @model_validator(mode="after")
    def _one_of_them(self) -> "NamedVideo":
        if (self.video is None) == (self.url is None):
            raise ValueError("say either `video` or `url`")
        return self


class JobProgress(_Record):
    """How far a job is."""

    stage: str = Field(
        description="queued, starting, fetch, decode, score or scan, stability, evidence; then as the state.",
        examples=["scan"],
    )
    fraction: float = Field(ge=0, le=1, description="Of all the work.")
    eta_s: float | None = Field(description="Seconds left, as the time so far lets expect.")


class JobLinks(_Record):
    """Where more is."""

    self: str
    events: str = Field(description="Server-sent events while it is under way.")
    views: str = Field(description="Its pictures: this, the name of a view of its evidence, and `.png`.")
    report: str = Field(description="Signed, once it is done; with `?format=html` or `pdf` for people.")


class Job(_Record):
    """A job."""

    id: str = Field(
        description="128 random bits in hexadecimal.", examples=["4bf5122f344554c53bde2ebb8cd2b7e3"]
    )
    status: Literal["queued", "running", "done", "failed", "expired"]
    progress: JobProgress
    result: Annotated[
        dict[str, Any] | None,
        # Not validated anew: it may have been written by another version.
        WithJsonSchema({"anyOf": [{"$ref": "#/components/schemas/ScoredFile"}, {"type": "null"}]}),
    ] = Field(description="The answer of a job that is done, as `/v1/score` gives it; not in the list.")
    error: ErrorBody | None = Field(description="Why it failed.")
    filename: str = Field(description="The client's name of it, for showing.", examples=["clip.mp4"])
    bytes: int | None = Field(description="None until it has been fetched.")
    sha256: str | None = Field(description="None until it has been fetched.")
    url: str | None = Field(description="Where it is fetched from, without the query.")
    thorough: bool
    evidence: bool
    stability: bool
    from_store: bool = Field(description="Answered by an earlier job for the same bytes.")
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="The answer is removed at this time.")
    feedback: "FeedbackSummary | None" = Field(
        None, description="What was said of the answer; not in lists and events."
    )
    links: JobLinks


class JobList(_Record):
    """A page of jobs."""

    jobs: list[Job]
    next: str | None = Field(description="`cursor` of the page that follows; none on the last.")


Description = Annotated[
    str,
    Field(
        description="What it is for, to know it again.",
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        examples=["moderation queue"],
    ),
]
Address = Annotated[
    str,
    Field(
        description="Where events are sent by POST. Its query may hold credentials, and is never shown.",
        max_length=8192,
        examples=["https://hooks.example.org/specsem"],
    ),
]
Events = Annotated[list[EventType], Field(description="Only these; none named: all.", max_length=50)]


class NewWebhook(_Record):
    """An endpoint to be told of events."""

    url: Address
    events: Events = []
    description: Description = ""


class WebhookChange(_Record):
    """What is to be different; what isn't named stays."""

    url: Address | None = None
    events: Events | None = None
    description: Description | None = None
    enabled: bool | None = Field(
        None,
        description="false: nothing more is sent, and what waits becomes a dead letter. true: from now on.",
    )


class Webhook(_Record):
    """An endpoint that is told of events."""

    id: str = Field(
        description="128 random bits in hexadecimal.", examples=["7d865e959b2466918c9863afca942d0f"]
    )
    url: str = Field(description="Without its query.", examples=["https://hooks.example.org/specsem"])
    events: list[EventType] = Field(description="Only these; none: all.")
    description: str
    enabled: bool
    disabled_because: DisabledBecause | None = Field(
        description="`requested`; or `gone`: the receiver answered 410."
    )
    created_at: datetime
    old_secret_until: datetime | None = Field(
        description="Until then each message is signed with the secret before the last rotation as well."
    )

    @classmethod
    def of(cls, row: WebhookRow, **more: Any) -> Self:
        """As its row has it."""
        return cls.model_validate(
            {
                "id": row.id,
                "url": row.url,
                "events": row.events.split(),
                "description": row.description,
                "enabled": row.disabled_at is None,
                "disabled_because": row.disabled_because,
                "created_at": row.created_at,
                "old_secret_until": row.old_secret_until,
                **more,
            }
        )


class WebhookWithSecret(Webhook):
    """With the secret, which is shown this once."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw3h5jJ0b1rEE="])

    @classmethod
    def of(cls, row: WebhookRow, **more: Any) -> Self:
        """As its row has it."""
        return super().of(row, secret=row.secret, **more)


class WebhookList(_Record):
    """Every endpoint of a tenant."""

    webhooks: list[Webhook]


class Rotation(_Record):
    """How a secret is replaced."""

    overlap_s: float | None = Field(
        None,
        ge=0,
        le=30 * 86400,
        description="For so many seconds the old secret signs too; 0 ends it at once. Not said: as the "
        "operator has set it.",
    )


class Delivery(_Record):
    """An event on its way to an endpoint."""

    id: str = Field(
        description="The event's, and the `webhook-id` of each attempt.",
        examples=["ca978112ca1bbdcafac231b39a23dc4d"],
    )
    type: EventType | Literal["webhook.ping"]
    status: DeliveryStatus = Field(description="`dead`: it was given up.")
    attempts: int
    last_status: int | None = Field(description="HTTP status of the last answer; null where there was none.")
    last_error: str | None = Field(description="Why the last attempt failed.")
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, row: DeliveryRow, **more: Any) -> Self:
        """As its row has it."""
        return cls.model_validate(
            {
                "id": row.event_id,
                "type": row.type,
                "status": row.status,
                "attempts": row.attempts,
                "last_status": row.last_status,
                "last_error": row.last_error,
                "last_attempt_at": row.last_attempt_at,
                "next_attempt_at": row.not_before if row.status == "pending" else None,
                "created_at": row.created_at,
                "ended_at": row.ended_at,
                **more,
            }
        )


class SentDelivery(Delivery):
    """With what is sent."""

    payload: dict[str, Any]

    @classmethod
    def of(cls, row: DeliveryRow, **more: Any) -> Self:
        """As its row has it."""
        return super().of(row, payload=json.loads(row.payload), **more)


class DeliveryList(_Record):
    """A page of deliveries."""

    deliveries: list[Delivery]
    next: int | None = Field(description="`cursor` of the page that follows; none on the last.")


class Redelivered(_Record):
    """How many are sent again."""

    deliveries: int


class JobEventData(_Record):
    """What became of a job."""

    job: str = Field(description="Its id.")
    status: Literal["done", "failed"]
    verdict: Verdict | None = Field(description="Null where it failed, like `score`.")
    score: float | None
    decision: dict[str, Any] | None = Field(description="As in the answer; null where no policy was asked.")
    error: ErrorBody | None = Field(description="Why it failed.")
    links: dict[str, str] = Field(description="Paths of this service: `job`, with the whole answer.")


class JobEvent(_Record):
    """The body of a message about a job."""

    type: EventType
    timestamp: datetime = Field(description="When it happened; the header says when it was sent.")
    data: JobEventData


class FeedbackEventData(_Record):
    """What somebody said of an answer, without the note."""

    job: str = Field(description="Its id.")
    source: Source = Field(description="`review`: an operator, at the queue.")
    opinion: Opinion | None = Field(
        description="Of the answer. Null: it was inconclusive, and the label is known."
    )
    label: Label | None = Field(description="What the video is, if that is known.")
    verdict: Verdict = Field(description="Of the answer, like `score`.")
    score: float
    links: dict[str, str] = Field(description="Paths of this service: `job`, with the whole answer.")


class FeedbackEvent(_Record):
    """The body of a message about feedback."""

    type: EventType
    timestamp: datetime = Field(description="When it happened; the header says when it was sent.")
    data: FeedbackEventData


Note = Annotated[
    str,
    # PostgreSQL takes no NUL, and nobody wants the others.
    Field(max_length=1000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$", description="In words."),
]


class FeedbackGiven(_Record):
    """What somebody says of an answer."""

    verdict: Opinion = Field(description="Whether the answer is right.")
    label: Label | None = Field(None, description="What the video is, if that is known.")
    note: Note = ""


class Decision(_Record):
    """What an operator says of a video."""

    label: Label | Literal["unsure"] = Field(description="What it is.")
    note: Note = ""


class Feedback(_Record):
    """What was said of an answer."""

    verdict: Opinion | None = Field(
        description="Of the answer. `null`: it was inconclusive, and the label is known."
    )
    label: Label | None
    note: str
    source: Source = Field(description="`review`: an operator, at the queue.")
    created_at: datetime

    @classmethod
    def of(cls, row: FeedbackRow) -> "Feedback":
        """Without who said it."""
        return cls(
            verdict=row.opinion,
            label=row.label,
            note=row.note,
            source=row.source,
            created_at=datetime.fromtimestamp(row.created_at, UTC),
        )


class FeedbackSummary(_Record):
    """What was said of a job's answer and counts: the latest of each key, at most."""

    right: int
    wrong: int
    unsure: int
    mine: Feedback | None = Field(description="What came with the key that asks, operators' decisions aside.")
    decision: Feedback | None = Field(description="The latest decision of an operator.")

    @classmethod
    def of(cls, rows: Sequence[FeedbackRow], *, actor: str) -> "FeedbackSummary":
        """Of all that counts, the latest first, for this actor."""
        counted = Counter(row.opinion for row in rows)
        mine = (row for row in rows if row.source == "user" and row.actor == actor)
        decisions = (row for row in rows if row.source == "review")
        return cls(
            right=counted["right"],
            wrong=counted["wrong"],
            unsure=counted["unsure"],
            mine=next(map(Feedback.of, mine), None),
            decision=next(map(Feedback.of, decisions), None),
        )


class ReviewItem(_Record):
    """An answer that waits for an operator."""

    job: Job = Field(description="Without its `result`.")
    verdict: Verdict
    margin: float = Field(description="Distance of the score from the nearer threshold, 0..1.")
    reports: list[Feedback] = Field(description="What was said against it, or in doubt.")


class ReviewQueue(_Record):
    """What waits, the most urgent first."""

    items: list[ReviewItem]
    waiting: int = Field(description="How many wait in all.")
    next: str | None = Field(description="`cursor` of the page that follows; none on the last.")


class Measured(_Record):
    """What a policy did to clips of cameras and generators that the model had not seen."""

    n_generated: int
    n_real: int
    generated_called_generated: float = Field(description="Share of the generated clips.")
    generated_called_generated95: tuple[float, float] | None = Field(
        description="Its 95% interval, over sources; where it was worked out."
    )
    camera_called_generated: float = Field(description="Share of the camera clips.")
    generated_called_authentic: float
    camera_called_authentic: float
    calibration_error: float = Field(description="Expected calibration error of the score, 0..1.")


class ModelInfo(_Record):
    """A registered model."""

    name: str
    version: str
    licence: str
    summary: str
    sha256: str = Field(description="Of its weights file; empty where none is shipped.")
    present: bool = Field(description="Whether its weights are on this machine.")
    active: bool = Field(description="Whether this service scores with it.")


class ModelList(_Record):
    """Every registered model."""

    models: list[ModelInfo]


class PolicyInfo(_Record):
    """Which scores become which verdict, and what that costs in false alarms."""

    name: str
    active: bool
    threshold: Threshold
    measured: Measured | None = Field(description="On clips as delivered; `null`: it was not.")


class PolicyList(_Record):
    """The policies of the active model."""

    policies: list[PolicyInfo]


class Health(_Record):
    """Liveness."""

    status: str = Field(examples=["ok"])
    version: str
    queued: int = Field(description="Clips that wait for the model.")
    oldest_wait_s: float = Field(description="How long the first of them has waited, in seconds.")
    forward_s: float = Field(description="How long the model has been at the present batch, in seconds.")


class Readiness(_Record):
    """Readiness."""

    status: str = Field(examples=["ready"])
    model: str
    device: str
    warm_up_ms: float


class Version(_Record):
    """What software answers, and with which model."""

    version: str
    commit: str | None = Field(description="Of the software, where it is known.")
    model: Model | None = Field(description="The model in use; null until it is loaded.")


class ProblemDocument(BaseModel):
    """A refusal (RFC 9457)."""

    type: str = Field(examples=["/docs#error-not_a_video"])
    title: str = Field(examples=["Not a video"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The content is of no container that is opened here."])
    code: str = Field(description="Stable.", examples=["not_a_video"])
    errors: list[dict[str, Any]] | None = Field(None, description="Which parts of the request are not valid.")
