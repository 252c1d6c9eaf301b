"""Requests and answers of /v1. What clients read as records is in ``specsem.records``; a scored file is
``specsem.result.ScoredFile``, the command line's own."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.jobs.table import (
    DeliveryRow,
    DeliveryStatus,
    DisabledBecause,
    FeedbackRow,
    GroupKind,
    GroupRow,
    WebhookRow,
)
from specsem.pipeline import Options
from specsem.policy import SURFACE
from specsem.records import (
    EventType,
    Feedback,
    FeedbackEvent,
    FeedbackEventData,
    FeedbackSummary,
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
    Video,
    VideoMedia,
)
from specsem.result import Action, CalibrationUsed, Model, Threshold, Verdict

__all__ = [
    "OPTIONS",
    "Agreement",
    "Alert",
    "AlertName",
    "AppealAsked",
    "Basis",
    "CalibrationInfo",
    "CalibrationList",
    "Delivery",
    "DeliveryList",
    "Drift",
    "Feedback",
    "FeedbackEvent",
    "FeedbackEventData",
    "FeedbackGiven",
    "FeedbackSummary",
    "GroupFeedback",
    "GroupFeedbackGiven",
    "GroupFeedbackList",
    "Health",
    "HistogramBin",
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
    "OperatingPoint",
    "OperatorDecision",
    "PolicyInfo",
    "PolicyList",
    "PolicyRule",
    "ProblemDocument",
    "Readiness",
    "Redelivered",
    "Reliability",
    "ReviewItem",
    "ReviewQueue",
    "Rotation",
    "ScoreWeek",
    "SentDelivery",
    "Version",
    "Video",
    "VideoMedia",
    "Webhook",
    "WebhookChange",
    "WebhookList",
    "WebhookWithSecret",
    "feedback_of",
    "summary_of",
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


class ReviewItem(_Record):
    """An answer that waits for an operator."""

    job: Job = Field(description="Without its `result`.")
    verdict: Verdict
    action: Action | None = Field(description="What the policy decided.")
    margin: float = Field(description="Distance of the score from the nearer threshold, 0..1.")
    reports: list[Feedback] = Field(description="What was said against it, or in doubt.")


class ReviewQueue(_Record):
    """What waits, the most urgent first."""

    items: list[ReviewItem]
    waiting: int = Field(description="How many wait in all.")
    next: str | None = Field(description="`cursor` of the page that follows; none on the last.")


class AppealAsked(_Record):
    """A second look at a job's video, which is named instead of sent again."""

    video: str | None = Field(
        None,
        description="Id of a stored video with the same bytes; not needed while the job's file is kept.",
        examples=["9f86d081884c7d659a2feaa0c55ad015"],
    )


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


class GroupFeedback(_Record):
    """A count over jobs."""

    id: int
    kind: GroupKind
    count: int
    jobs: int = Field(description="How many.")
    note: str
    created_at: datetime

    @classmethod
    def of(cls, row: GroupRow) -> "GroupFeedback":
        """Without who gave it."""
        return cls(
            id=row.id,
            kind=row.kind,
            count=row.count,
            jobs=row.jobs,
            note=row.note,
            created_at=datetime.fromtimestamp(row.created_at, UTC),
        )


class GroupFeedbackList(_Record):
    """A page of counts, the latest first."""

    groups: list[GroupFeedback]
    next: int | None = Field(description="`cursor` of the page that follows; none on the last.")


Interval = tuple[float, float]
"""At 95% (Wilson)."""


class HistogramBin(_Record):
    """How many scores lie here, in scores of the active calibration."""

    lower: float = Field(ge=0, le=1)
    upper: float = Field(ge=0, le=1)
    count: int


class ScoreWeek(_Record):
    """The scores of a week, whatever asked for them."""

    week: str = Field(description="Its Monday (UTC).", examples=["2026-11-30"])
    n: int
    generated: float = Field(description="Share of the verdicts that were `generated`.")
    generated95: Interval
    inconclusive: float
    histogram: list[HistogramBin] = Field(description="Without empty bins.")


class Agreement(_Record):
    """What was said in a week of answers, whenever they were given."""

    week: str
    right: int = Field(description="Answers that operators found right, one by one or by count.")
    wrong: int
    disagreement: float | None = Field(description="Share that is wrong.")
    disagreement95: Interval | None
    reported_right: int = Field(description="As users said.")
    reported_wrong: int
    reported_unsure: int


class Reliability(_Record):
    """Labelled videos whose scores lie in this range."""

    lower: float
    upper: float
    n: int
    expected: float = Field(
        description="Share of generated ones that the scores promise, at the odds of the labelled videos."
    )
    generated: float = Field(description="Share that is generated.")
    generated95: Interval


class OperatingPoint(_Record):
    """The active thresholds on all labelled videos."""

    threshold: Threshold
    real: int
    false_positives: int
    false_positive_rate95: Interval
    generated: int
    called_authentic: int
    called_authentic95: Interval


AlertName = Literal["scores_shifted", "operators_disagree", "false_positives"]


class Alert(_Record):
    """A figure beyond its limit."""

    name: AlertName
    value: float
    limit: float
    text: str


class Drift(_Record):
    """Whether what comes in, or what verdicts are worth, changes. Of all tenants, for the model in use."""

    calibration: CalibrationUsed
    weeks: list[ScoreWeek] = Field(description="The oldest first.")
    shift: float | None = Field(
        description="Population stability index of the latest week with 200 scores against those before it; "
        "below 0.1 is chance, above 0.2 a shift. Null: too few."
    )
    agreement: list[Agreement] = Field(description="By week, the oldest first.")
    reliability: list[Reliability]
    operating_point: OperatingPoint
    alerts: list[Alert]


class Basis(_Record):
    """What a calibration that was fitted from feedback stands on."""

    based_on: int = Field(description="Version of the calibration before.")
    fitted_at: datetime
    since: datetime
    until: datetime
    labels: int = Field(description="Videos that were labelled one by one.")
    groups: int = Field(description="Groups of which a count is known.")
    grouped: int = Field(description="Videos in them.")
    left_out: int = Field(description="Observations that contradict others, or that later ones replace.")
    real: float = Field(description="Camera videos among all, as expected where only counts are known.")
    generated: float
    weighted: bool = Field(description="Whether observations were weighted to be like all that was scored.")
    refitted: list[str] = Field(description="Policies, and `scores`; all else was kept.")


class CalibrationInfo(_Record):
    """What makes scores and thresholds of the model's logits."""

    version: int = Field(description="0: it came with the model.")
    active: bool
    model: str
    sha256: str
    created_at: datetime | None
    note: str
    slope: float
    intercept: float
    policies: dict[str, Threshold]
    basis: Basis | None


class CalibrationList(_Record):
    """The calibrations of the model in use, the latest first."""

    calibrations: list[CalibrationInfo]


class Health(_Record):
    """Liveness."""

    status: str = Field(examples=["ok"])
    version: str
    queued: int = Field(description="Clips that wait for the model.")
    oldest_wait_s: float = Field(description="How long the first of them has waited, in seconds.")
    forward_s: float = Field(description="How long the model has been at the present batch, in seconds.")


class Version(_Record):
    """What software answers, and with which model."""

    version: str
    commit: str | None = Field(description="Of the software, where it is known.")
    model: Model | None = Field(description="The model in use; null until it is loaded.")
