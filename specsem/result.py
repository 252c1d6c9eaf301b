"""The answer for one file, the same for the command line, the service and every job (design, section 3)."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Action",
    "ActionThreshold",
    "Attribution",
    "C2pa",
    "C2paStatus",
    "CalibrationUsed",
    "Coverage",
    "Decision",
    "ErrorBody",
    "Evidence",
    "FailedFile",
    "Family",
    "Finding",
    "Media",
    "Model",
    "Moment",
    "Provenance",
    "Reason",
    "Reshipping",
    "ScoredFile",
    "Segment",
    "Share",
    "Stability",
    "Threshold",
    "Trail",
    "Verdict",
    "View",
]

Verdict = Literal["generated", "authentic", "inconclusive"]
Reason = Literal[
    "between_thresholds", "too_short", "too_small", "low_quality", "static", "out_of_domain", "unstable"
]
Action = Literal["allow", "label", "review", "block"]
"""What is to be done about a video."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Threshold(_Record):
    """Where ``generated`` begins, and what that costs in false alarms on camera video."""

    value: float = Field(ge=0, le=1, description="Scores at or above it are `generated`.")
    lower: float = Field(ge=0, le=1, description="Scores below it are `authentic`.")
    max_fpr: float = Field(ge=0, le=1, description="The false-positive rate that the policy asks for.")
    fpr_upper95: float = Field(
        ge=0, le=1, description="Upper 95% confidence bound of the false-positive rate at `value`."
    )
    calibration_n: int = Field(ge=0, description="Camera clips, unseen in training, behind the bound.")


class Segment(_Record):
    """One window of the time line."""

    start_s: float = Field(ge=0)
    end_s: float = Field(ge=0)
    score: float = Field(ge=0, le=1)


class Coverage(_Record):
    """How much of the time line was looked at."""

    analysed_s: float
    duration_s: float
    fraction: float = Field(ge=0, le=1)


class Media(_Record):
    """Facts of the file as decoded."""

    container: str
    codec: str
    width: int
    height: int
    fps: float | None
    duration_s: float
    frames_scored: int


C2paStatus = Literal["not_checked", "absent", "trusted", "valid", "invalid", "unsupported", "failed"]


class C2pa(_Record):
    """What the file's signed manifests claim (C2PA 2.x), over all manifests and ingredients."""

    status: C2paStatus = Field(
        "not_checked",
        description="`trusted`: signed by one of the operator's list. `valid`: well signed, by somebody "
        "who is on no list here. `invalid`: changed since, or badly signed. `absent` is no evidence of "
        "anything. `unsupported`: not a container that is read. `failed`: the reader gave up. "
        "`not_checked`: it is elsewhere, or nobody looked.",
    )
    detail: str = Field("", description="One sentence for people.")
    signer: str | None = Field(None, description="Whom the certificate of the active manifest names.")
    signed_at: datetime | None = None
    claim_generator: str | None = Field(None, description="The software that made the claim.")
    actions: list[str] = Field([], description="Distinct, as `c2pa.created`; the oldest manifest's first.")
    digital_source_types: list[str] = Field(
        [], description="Last part of the IPTC terms, such as `trainedAlgorithmicMedia`."
    )
    says_generated: bool = Field(
        False,
        description="Whether any manifest says that a trained model made the content, part of it, or an "
        "ingredient of it.",
    )
    trust_list: str | None = Field(None, description="Name and date of the list that was asked.")


class Trail(_Record):
    """Facts of container and encoding. They say how a file was written, not what it shows."""

    muxer: str | None = Field(None, description="As the file names the software that wrote it.")
    encoder: str | None = None
    created_at: datetime | None = Field(None, description="As the file says.")
    brands: list[str] = []
    profile: str | None = None
    pixel_format: str | None = None
    gop: str | None = Field(
        None, description="Types of the first frames that were decoded, as shown: `IBBPBBP`."
    )
    keyframe_interval: float | None = Field(
        None, description="Frames from keyframe to keyframe: median, where two were seen."
    )
    edit_lists: int = 0
    tracks: list[str] = Field([], description="Every track in order, as `video h264` or `audio aac`.")
    trailing_bytes: int | None = Field(
        None,
        description="Bytes after the end of the container's own structure; null where that is not known.",
    )


class Provenance(_Record):
    """Where the file says that it comes from, beside the score and never inside it."""

    c2pa: C2pa = C2pa()
    trail: Trail | None = None


class Share(_Record):
    """A window's logit in its parts: they add up to it."""

    spectral: float = Field(description="What the gated spectral branch says.")
    semantic: float = Field(description="What the semantic heads say.")


class Moment(_Record):
    """One frame of the time line."""

    pts_s: float
    score: float = Field(ge=0, le=1, description="Of the window that it was taken from.")


class View(_Record):
    """A picture of what the model looked at in one window."""

    name: str = Field(examples=["3-residual"], description="Its address is the job's `views` link and this.")
    kind: Literal["frame", "residual", "spectrum", "reference_spectrum", "gate"]
    segment: int = Field(ge=0, description="Index in `segments`.")
    pts_s: float
    width: int
    height: int
    caption: str


class Evidence(_Record):
    """Where the score comes from."""

    peak: int = Field(ge=0, description="Index in `segments` of the highest score.")
    highest: Moment
    lowest: Moment
    shares: list[Share] = Field(description="One a segment.")
    gate: list[float] = Field(
        [], description="Mean of the gate in each segment, 0..1: how far semantics opened spectral evidence."
    )
    views: list[View] = Field([], description="Pictures; jobs only.")


class Reshipping(_Record):
    """The same clip after a cheap change that a delivery might make."""

    name: Literal["half_size", "reencode", "crop", "flip", "fewer_frames"]
    score: float = Field(ge=0, le=1)
    verdict: Verdict


class Stability(_Record):
    """Whether the verdict survives delivery."""

    stable: bool = Field(description="No re-shipping turned the verdict into its opposite.")
    spread: float = Field(ge=0, le=1, description="Highest score minus lowest, the original included.")
    tried: list[Reshipping]
    score: float | None = Field(
        None, description="Of the file as it is, on the sampled windows that the tried ones have too."
    )
    verdict: Verdict | None = Field(None, description="That goes with `score`: what the tried ones turn.")


class Family(_Record):
    """One family of generators."""

    name: str
    probability: float = Field(ge=0, le=1)


class Attribution(_Record):
    """Which family of generators it looks like most."""

    family: str = Field(description="`unknown` where none is likely enough.")
    probability: float = Field(ge=0, le=1, description="Calibrated, of `family`.")
    candidates: list[Family] = Field(description="The most likely first, at most three.")
    basis: str = Field(description="How good such guesses were on unseen clips, in figures.")


class Finding(_Record):
    """One reason in plain words, that follows from its figures."""

    code: str = Field(description="Stable, as `score_above_threshold`.")
    text: str
    figures: dict[str, float]


class ActionThreshold(_Record):
    """From which score on a rule acts, and what stands behind that."""

    value: float = Field(ge=0, le=1, description="Scores at or above it.")
    max_fpr: float = Field(ge=0, le=1, description="The false-positive rate that the rule asks for, at most.")
    fpr_upper95: float = Field(
        ge=0, le=1, description="Upper 95% confidence bound of the false-positive rate at `value`."
    )
    calibration_n: int = Field(ge=0, description="Camera clips, unseen in training, behind the bound.")


class Decision(_Record):
    """What a policy makes of the answer (``specsem.policy``)."""

    action: Action
    policy: str = Field(description="Its name.", examples=["default"])
    version: int = Field(ge=1, description="Of the policy.")
    rule: str | None = Field(description="The rule that applies; `null`: none does, so it is `otherwise`.")
    threshold: ActionThreshold | None = Field(
        description="Of the score, where the rule asks for one; else the rule rests on something else."
    )
    reasons: list[Finding] = Field(description="Why, each with its figures.")
    surface: str = Field("", description="Where the video is to appear, as the request said.")


class Model(_Record):
    """Which weights gave the score."""

    name: str
    version: str
    sha256: str


class CalibrationUsed(_Record):
    """What made a probability and thresholds of the model's logit."""

    version: int = Field(ge=0, description="0: as it came with the model; else fitted from feedback.")
    sha256: str = Field(description="Of its file.")


class ScoredFile(_Record):
    """A file that was scored."""

    path: str
    sha256: str
    verdict: Verdict
    score: float = Field(
        ge=0, le=1, description="Calibrated probability that the file is generated, at even prior odds."
    )
    logit: float
    threshold: Threshold
    reasons: list[Reason]
    segments: list[Segment]
    coverage: Coverage
    media: Media
    provenance: Provenance
    findings: list[Finding] = Field([], description="The verdict's reasons in words, each with its figures.")
    evidence: Evidence | None = Field(None, description="Where it was asked for.")
    stability: Stability | None = Field(None, description="Where it was asked for.")
    attribution: Attribution | None = Field(None, description="Where it was asked for.")
    decision: Decision | None = Field(None, description="Null in answers that no policy was asked about.")
    model: Model
    calibration: CalibrationUsed | None = Field(
        None, description="What made `score` and `threshold` of `logit`; null in answers of before."
    )
    timing_ms: dict[str, float]
    warnings: list[str]


class ErrorBody(_Record):
    """Why a file could not be scored: a stable code and one sentence."""

    code: str
    message: str


class FailedFile(_Record):
    """A file that could not be scored."""

    path: str
    error: ErrorBody
