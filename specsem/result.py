"""The answer for one file, the same for the command line, the service and every job (design, section 3)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Coverage",
    "ErrorBody",
    "FailedFile",
    "Media",
    "Model",
    "Provenance",
    "Reason",
    "ScoredFile",
    "Segment",
    "Threshold",
    "Verdict",
]

Verdict = Literal["generated", "authentic", "inconclusive"]
Reason = Literal[
    "between_thresholds", "too_short", "too_small", "low_quality", "static", "out_of_domain", "unstable"
]


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


class Provenance(_Record):
    """Signed origin claims, beside the score and never inside it."""

    c2pa: dict[str, str] = Field(default_factory=lambda: {"status": "not_checked"})


class Model(_Record):
    """Which weights gave the score."""

    name: str
    version: str
    sha256: str


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
    model: Model
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
