"""Requests and answers of /v1. What clients read as records is in ``specsem.records``; a scored file is
``specsem.result.ScoredFile``, the command line's own."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.jobs.table import DeliveryRow, FeedbackRow, GroupRow, WebhookRow
from specsem.pipeline import Options
from specsem.policy import SURFACE
from specsem.records import (
    Delivery,
    EventType,
    Feedback,
    FeedbackEvent,
    FeedbackEventData,
    FeedbackSummary,
    GroupFeedback,
    GroupKind,
    Job,
    JobEvent,
    JobEventData,
    JobLinks,
    JobList,
    JobProgress,
    Label,
    Measured,
    ModelInfo,
    ModelList,
    Opinion,
    PolicyInfo,
    PolicyList,
    PolicyRule,
    ProblemDocument,
    Readiness,
    SentDelivery,
    Video,
    VideoMedia,
    Webhook,
    WebhookWithSecret,
)

__all__ = [
    "OPTIONS",
    "AppealAsked",
    "Feedback",
    "FeedbackEvent",
    "FeedbackEventData",
    "FeedbackGiven",
    "FeedbackSummary",
    "GroupFeedbackGiven",
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
    "OperatorDecision",
    "PolicyInfo",
    "PolicyList",
    "PolicyRule",
    "ProblemDocument",
    "Readiness",
    "Rotation",
    "Video",
    "VideoMedia",
    "WebhookChange",
    "delivery_of",
    "feedback_of",
    "group_of",
    "sent_delivery_of",
    "summary_of",
    "webhook_of",
    "webhook_with_secret_of",
]


OPTIONS = {
    "thorough": "Scan the whole time line instead of a few windows.",
    "evidence": "Say what the score stands on and which family of generators it looks like; a job draws what "
    "the model saw as well.",
    "stability": "Score it again after cheap deliveries (half size, re-encode, crop, flip, fewer frames): a "
    "verdict that turns into its opposite becomes `inconclusive`. Takes some five times as long.",
}
"""What may be asked for beyond the fast path: names of ``specsem.pipeline.Options``."""


Surface = Annotated[
    str,
    Field(
        description="Where the video is to appear, by a name of yours, such as `ads`: policies may ask.",
        pattern=f"{SURFACE}|^$",
        examples=["ads"],
    ),
]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
    surface: Surface = ""

    @property
    def options(self) -> Options:
        """What of the answer is asked for."""
        return Options(thorough=self.thorough, evidence=self.evidence, stability=self.stability)

    @model_validator(mode="after")
    def _one_of_them(self) -> "NamedVideo":
        if (self.video is None) == (self.url is None):
            raise ValueError("say either `video` or `url`")
        return self


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


class Rotation(_Record):
    """How a secret is replaced."""

    overlap_s: float | None = Field(
        None,
        ge=0,
        le=30 * 86400,
        description="For so many seconds the old secret signs too; 0 ends it at once. Not said: as the "
        "operator has set it.",
    )


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


class OperatorDecision(_Record):
    """What an operator says of a video."""

    label: Label | Literal["unsure"] = Field(description="What it is.")
    note: Note = ""


def feedback_of(row: FeedbackRow) -> Feedback:
    """What was said, without who said it."""
    return Feedback(
        verdict=row.opinion,
        label=row.label,
        note=row.note,
        source=row.source,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
    )


def summary_of(rows: Sequence[FeedbackRow], *, actor: str) -> FeedbackSummary:
    """Of all that counts, the latest first, for this actor."""
    counted = Counter(row.opinion for row in rows)
    mine = (row for row in rows if row.source == "user" and row.actor == actor)
    decisions = (row for row in rows if row.source == "review")
    return FeedbackSummary(
        right=counted["right"],
        wrong=counted["wrong"],
        unsure=counted["unsure"],
        mine=next(map(feedback_of, mine), None),
        decision=next(map(feedback_of, decisions), None),
    )


class AppealAsked(_Record):
    """A second look at a job's video, which is named instead of sent again."""

    video: str | None = Field(
        None,
        description="Id of a stored video with the same bytes; not needed while the job's file is kept.",
        examples=["9f86d081884c7d659a2feaa0c55ad015"],
    )


def group_of(row: GroupRow) -> GroupFeedback:
    """A count, without who gave it."""
    return GroupFeedback(
        id=row.id,
        kind=row.kind,
        count=row.count,
        jobs=row.jobs,
        note=row.note,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
    )


def webhook_of(row: WebhookRow) -> Webhook:
    """An endpoint, without its secret."""
    return Webhook.model_validate(_webhook(row))


def webhook_with_secret_of(row: WebhookRow) -> WebhookWithSecret:
    """An endpoint with its secret: for whoever made or rotated it, this once."""
    return WebhookWithSecret.model_validate(_webhook(row) | {"secret": row.secret})


def delivery_of(row: DeliveryRow) -> Delivery:
    """What became of an event."""
    return Delivery.model_validate(_delivery(row))


def sent_delivery_of(row: DeliveryRow) -> SentDelivery:
    """The same, with what is sent."""
    return SentDelivery.model_validate(_delivery(row) | {"payload": json.loads(row.payload)})


def _webhook(row: WebhookRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "url": row.url,
        "events": row.events.split(),
        "description": row.description,
        "enabled": row.disabled_at is None,
        "disabled_because": row.disabled_because,
        "created_at": row.created_at,
        "old_secret_until": row.old_secret_until,
    }


def _delivery(row: DeliveryRow) -> dict[str, Any]:
    return {
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
    }


class GroupFeedbackGiven(_Record):
    """A count over jobs, of which nobody says which."""

    jobs: list[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]] = Field(
        description="Ids of jobs that are done, all by one model.", min_length=1, max_length=1000
    )
    upheld: int | None = Field(None, ge=0, description="Of so many, the answer was right.", examples=[12])
    generated: int | None = Field(None, ge=0, description="So many of the videos are generated.")
    note: Note = ""

    @property
    def kind(self) -> GroupKind:
        """What the count is of."""
        return "generated" if self.upheld is None else "upheld"

    @property
    def count(self) -> int:
        """The one of the two that is said."""
        return self.upheld if self.upheld is not None else self.generated or 0

    @model_validator(mode="after")
    def _one_of_them(self) -> "GroupFeedbackGiven":
        if (self.upheld is None) == (self.generated is None):
            raise ValueError("say either `upheld` or `generated`")
        return self


class Health(_Record):
    """Liveness."""

    status: str = Field(examples=["ok"])
    version: str
    queued: int = Field(description="Clips that wait for the model.")
    oldest_wait_s: float = Field(description="How long the first of them has waited, in seconds.")
    forward_s: float = Field(description="How long the model has been at the present batch, in seconds.")
