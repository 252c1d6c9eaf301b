"""What the service says of videos, jobs, opinions and refusals: JSON records, one definition for both ends.

``app`` answers with them, ``specsem.client`` reads them. The answer for a file is in ``specsem.result``. Data
only: nothing here knows how it travels.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from specsem.policy import Rule
from specsem.result import (
    Action,
    ActionThreshold,
    CalibrationUsed,
    Decision,
    ErrorBody,
    Model,
    ScoredFile,
    Threshold,
    Verdict,
)

if TYPE_CHECKING:  # brings PyAV, which no client needs
    from specsem.media import MediaInfo

__all__ = [
    "Agreement",
    "Alert",
    "AlertName",
    "Basis",
    "CalibrationInfo",
    "CalibrationList",
    "Delivery",
    "DeliveryList",
    "DeliveryStatus",
    "DisabledBecause",
    "Drift",
    "EventType",
    "Feedback",
    "FeedbackEvent",
    "FeedbackEventData",
    "FeedbackSummary",
    "GroupFeedback",
    "GroupFeedbackList",
    "GroupKind",
    "HistogramBin",
    "Job",
    "JobEvent",
    "JobEventData",
    "JobLinks",
    "JobList",
    "JobProgress",
    "Label",
    "Measured",
    "ModelInfo",
    "ModelList",
    "OperatingPoint",
    "Opinion",
    "PolicyInfo",
    "PolicyList",
    "PolicyRule",
    "ProblemDocument",
    "Readiness",
    "Redelivered",
    "Reliability",
    "ReviewItem",
    "ReviewQueue",
    "ScoreWeek",
    "SentDelivery",
    "SimilarJob",
    "SimilarJobs",
    "Source",
    "Status",
    "Version",
    "Video",
    "VideoMedia",
    "Webhook",
    "WebhookList",
    "WebhookWithSecret",
]

Status = Literal["queued", "running", "done", "failed", "expired"]
"""Of a job."""
Opinion = Literal["right", "wrong", "unsure"]
Label = Literal["real", "generated"]
Source = Literal["user", "review"]
"""Who says so: somebody who asked for the answer, or an operator at the queue."""
EventType = Literal["job.done", "job.failed", "decision.review", "decision.block", "feedback.created"]
"""What an endpoint may ask for."""
DeliveryStatus = Literal["pending", "delivered", "dead"]
DisabledBecause = Literal["requested", "gone"]
GroupKind = Literal["upheld", "generated"]
"""What a count is of: answers that were right, or videos that are generated."""
AlertName = Literal["scores_shifted", "operators_disagree", "false_positives"]


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
    def of(cls, info: "MediaInfo") -> "VideoMedia":
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
    similar: str = Field("", description="Others that look like it, once it is done.")
    report: str = Field(description="Signed, once it is done; with `?format=html` or `pdf` for people.")
    statement: str | None = Field(None, description="Statement of reasons, once it is done.")
    appeal_of: str | None = Field(None, description="The job at whose video this is a second look.")
    appeal: str | None = Field(None, description="The second look at this one's; not in lists and events.")


class Job(_Record):
    """A job."""

    id: str = Field(
        description="128 random bits in hexadecimal.", examples=["4bf5122f344554c53bde2ebb8cd2b7e3"]
    )
    status: Status
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
    surface: str = Field("", description="Where the video is to appear, as the request said.")
    action: Action | None = Field(None, description="What the policy decided: of a job that is done.")
    from_store: bool = Field(description="Answered by an earlier job for the same bytes.")
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="The answer is removed at this time.")
    feedback: "FeedbackSummary | None" = Field(
        None, description="What was said of the answer; not in lists and events."
    )
    links: JobLinks

    @property
    def answer(self) -> ScoredFile | None:
        """``result`` as a record; None where there is none.

        Fields that only another version knows are left out. Raises ``pydantic.ValidationError`` where one
        that this version needs is missing or means something else there.
        """
        return None if self.result is None else ScoredFile.model_validate(self.result, extra="ignore")

    @property
    def over(self) -> bool:
        """Whether it has ended: nothing more will come of it."""
        return self.status in {"done", "failed", "expired"}


class JobList(_Record):
    """A page of jobs."""

    jobs: list[Job]
    next: str | None = Field(description="`cursor` of the page that follows; none on the last.")


class JobEventData(_Record):
    """What became of a job."""

    job: str = Field(description="Its id.")
    status: Literal["done", "failed"]
    verdict: Verdict | None = Field(description="Null where it failed, like `score`.")
    score: float | None
    decision: Decision | None = Field(description="As in the answer; null where no policy was asked.")
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


class Feedback(_Record):
    """What was said of an answer."""

    verdict: Opinion | None = Field(
        description="Of the answer. `null`: it was inconclusive, and the label is known."
    )
    label: Label | None
    note: str
    source: Source = Field(description="`review`: an operator, at the queue.")
    created_at: datetime


class FeedbackSummary(_Record):
    """What was said of a job's answer and counts: the latest of each key, at most."""

    right: int
    wrong: int
    unsure: int
    mine: Feedback | None = Field(description="What came with the key that asks, operators' decisions aside.")
    decision: Feedback | None = Field(description="The latest decision of an operator.")


class GroupFeedback(_Record):
    """A count over jobs."""

    id: int
    kind: GroupKind
    count: int
    jobs: int = Field(description="How many.")
    note: str
    created_at: datetime


class GroupFeedbackList(_Record):
    """A page of counts, the latest first."""

    groups: list[GroupFeedback]
    next: int | None = Field(description="`cursor` of the page that follows; none on the last.")


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


class SimilarJob(_Record):
    """A job whose video looks like another's."""

    job: str = Field(description="Its id.")
    share: float = Field(ge=0, le=1, description="Of the frames that match.")
    bits: int = Field(ge=0, le=256, description="In which the nearest frames differ; up to 31 is a match.")
    same_bytes: bool
    filename: str | None = Field(description="The client's name of it; null where the job has gone.")
    verdict: Verdict | None = Field(description="Of its answer; null where that has gone.")
    created_at: datetime | None
    decision: Feedback | None = Field(
        description="What an operator said of it. It is offered, and never applied: who agrees says so of "
        "this job too."
    )
    feedback: FeedbackSummary


class SimilarJobs(_Record):
    """What looks like a job's video, the most alike first."""

    hashes: list[str] = Field(
        description="PDQ of some of its frames, in hexadecimal, as vPDQ and HMA take them. None: too little "
        "is in its frames, or it was scored before hashes were kept."
    )
    jobs: list[SimilarJob]
    compared: int = Field(description="With so many of the tenant's jobs, the latest first.")
    complete: bool = Field(description="Whether that were all.")


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


class WebhookWithSecret(Webhook):
    """With the secret, which is shown this once."""

    secret: str = Field(repr=False, examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw3h5jJ0b1rEE="])


class WebhookList(_Record):
    """Every endpoint of a tenant."""

    webhooks: list[Webhook]


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


class SentDelivery(Delivery):
    """With what is sent."""

    payload: dict[str, Any]


class DeliveryList(_Record):
    """A page of deliveries."""

    deliveries: list[Delivery]
    next: int | None = Field(description="`cursor` of the page that follows; none on the last.")


class Redelivered(_Record):
    """How many are sent again."""

    deliveries: int


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


class PolicyRule(Rule):
    """A rule, and from which score on it acts with this model."""

    threshold: ActionThreshold | None = Field(
        description="Of the score, where it asks for one by `max_fpr` and the model can keep to that."
    )


class PolicyInfo(_Record):
    """What is done about which answers, and what that costs in false alarms."""

    name: str
    version: int
    active: bool = Field(description="Whether this service decides by it.")
    description: str
    sha256: str = Field(description="Of all that it says.")
    operating_point: str = Field(description="Which of the model's thresholds give the verdict.")
    threshold: Threshold | None = Field(description="These thresholds; `null`: the model has none such.")
    measured: Measured | None = Field(
        description="What they did to clips as delivered; `null`: that was not measured."
    )
    rules: list[PolicyRule] = Field(
        description="The first that applies decides. Those for other tenants alone are left out."
    )
    otherwise: Action
    refused: list[str] = Field(description="Why it can't be used with the active model; empty: it can.")


class PolicyList(_Record):
    """Every policy that is there."""

    policies: list[PolicyInfo]


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
