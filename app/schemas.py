"""Requests and answers of /v1. A scored file is ``specsem.result.ScoredFile``, the command line's own."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from app.jobs.table import DeliveryRow, DeliveryStatus, DisabledBecause, EventType, WebhookRow
from specsem.media import MediaInfo
from specsem.result import ErrorBody, Model, Threshold, Verdict

__all__ = [
    "Delivery",
    "DeliveryList",
    "Health",
    "Job",
    "JobEvent",
    "JobEventData",
    "JobLinks",
    "JobList",
    "JobProgress",
    "ModelInfo",
    "ModelList",
    "NamedVideo",
    "NewWebhook",
    "PolicyInfo",
    "PolicyList",
    "ProblemDocument",
    "Readiness",
    "Redelivered",
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
    thorough: bool = Field(False, description="Scan the whole time line instead of a few windows.")

    @model_validator(mode="after")
    def _one_of_them(self) -> "NamedVideo":
        if (self.video is None) == (self.url is None):
            raise ValueError("say either `video` or `url`")
        return self


class JobProgress(_Record):
    """How far a job is."""

    stage: str = Field(
        description="queued, starting, fetch, decode, score or scan; then as the state.", examples=["scan"]
    )
    fraction: float = Field(ge=0, le=1, description="Of all the work.")
    eta_s: float | None = Field(description="Seconds left, as the time so far lets expect.")


class JobLinks(_Record):
    """Where more is."""

    self: str
    events: str = Field(description="Server-sent events while it is under way.")


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
    from_store: bool = Field(description="Answered by an earlier job for the same bytes.")
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="The answer is removed at this time.")
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
