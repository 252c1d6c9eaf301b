"""From logit to probability, and from probability to a verdict at a stated false-positive rate.

Fitting is in ``specsem.training.calibrate``; here a fitted calibration is read and applied.

Source: method, section 1 ("AP barely moves where accuracy drops by 20 points: the threshold
shifts, the ranking holds") and section 2, finding 7.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from specsem.errors import SpecSemError, UnknownPolicy
from specsem.result import CalibrationUsed, Reason, Threshold, Verdict

__all__ = [
    "Basis",
    "Calibration",
    "CalibrationUnusable",
    "Confirmation",
    "DomainLimits",
    "sigmoid",
    "verdict_at",
]

CALIBRATION_FILE = "calibration.json"


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def verdict_at(threshold: Threshold, score: float, outside: Sequence[Reason]) -> tuple[Verdict, list[Reason]]:
    """The verdict on a score, and why it is inconclusive if it is. What is ``outside`` of the model's domain
    gets none, whatever the score says."""
    if outside:
        return "inconclusive", list(outside)
    if score >= threshold.value:
        return "generated", []
    if score < threshold.lower:
        return "authentic", []
    return "inconclusive", ["between_thresholds"]


@dataclass(frozen=True, slots=True)
class DomainLimits:
    """Outside of these a score says little, and the verdict is ``inconclusive``."""

    min_motion: float = 0.0
    """Mean absolute difference of frames in a row, 0..255; if most windows are below it: ``static``."""
    min_detail: float = 0.0
    """Standard deviation of the high-pass residual, 0..255; below it the clip is ``low_quality``."""
    max_distance: float = 1e9
    """Distance of the features from those seen in training (``distance``); beyond it: ``out_of_domain``."""
    min_side: int = 0
    """Pixels; a smaller frame is ``too_small``."""
    min_analysed_s: float = 0.0
    """Seconds; less is ``too_short``."""


class CalibrationUnusable(SpecSemError):
    """A calibration that can't be read, or belongs to another model."""

    code = "calibration_unusable"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What is known of the videos of some jobs together: of how many of them something holds, not of which.

    A label of one video is the same with one job.

    Raises:
        ValueError: no job, lists of unequal length, or a count that can't be.
    """

    jobs: tuple[str, ...]
    logits: tuple[float, ...]
    """What the model said of each."""
    holds_if_generated: tuple[bool, ...]
    """What holds of each: that it is generated, or (an ``authentic`` that was upheld) that it is not."""
    count: int
    """Of how many it holds."""
    at: float
    """When this was said, in seconds since the epoch."""

    def __post_init__(self) -> None:
        size = len(self.jobs)
        if not size or {len(self.logits), len(self.holds_if_generated)} != {size}:
            raise ValueError("a confirmation names its jobs, with a logit and what holds of each")
        if not 0 <= self.count <= size:
            raise ValueError(f"it can't hold of {self.count} of {size}")


@dataclass(frozen=True, slots=True)
class Basis:
    """What a calibration that was fitted from feedback stands on."""

    based_on: int
    """Version of the calibration that it was fitted from."""
    fitted_at: str
    """ISO 8601, like the others."""
    since: str
    until: str
    """When the first and the last observation were made."""
    labels: int
    """Videos of which each was labelled."""
    groups: int
    """Groups of which a count is known."""
    grouped: int
    """Videos in them."""
    left_out: int
    """Observations that contradict others, or speak of the same videos as later ones."""
    real: float
    """Camera videos among all, as expected where only counts are known."""
    generated: float
    weighted: bool
    """Whether observations were weighted to be like all that was scored meanwhile."""
    refitted: tuple[str, ...]
    """Policies with new thresholds, and ``scores`` where the scores' scale is new too; all else was kept, for
    too little is known of it."""


@dataclass(frozen=True)
class Calibration:
    """Platt scaling of the file's logit, thresholds by operating point, and the domain in which they hold."""

    slope: float
    intercept: float
    policies: dict[str, Threshold]
    """The operating points. Policies of ``specsem.policy`` build on them."""
    domain: DomainLimits = field(default_factory=DomainLimits)
    feature_mean: tuple[float, ...] = ()
    feature_std: tuple[float, ...] = ()
    version: int = 0
    """0: as it came with the model. Others are numbered by the service that keeps them."""
    basis: Basis | None = None
    """Of one that was fitted from feedback."""

    def probability(self, logit: float) -> float:
        """Calibrated probability that the file is generated, 0..1, at even prior odds."""
        return sigmoid(self.slope * logit + self.intercept)

    def threshold(self, operating_point: str) -> Threshold:
        """The thresholds of an operating point.

        Raises:
            UnknownPolicy: the model has none of this name.
        """
        if operating_point not in self.policies:
            known = ", ".join(self.policies)
            raise UnknownPolicy(f"The model has no operating point {operating_point!r}; it has: {known}.")
        return self.policies[operating_point]

    def distance(self, features: Sequence[float]) -> float:
        """Root mean square of the standardised features: about 1 inside the training domain."""
        if not self.feature_mean:
            return 0.0
        standardised = zip(features, self.feature_mean, self.feature_std, strict=True)
        squares = [((f - m) / s) ** 2 for f, m, s in standardised]
        return math.sqrt(sum(squares) / len(squares))

    @cached_property
    def used(self) -> CalibrationUsed:
        """What an answer says of the calibration that made it."""
        return CalibrationUsed(
            version=self.version, sha256=hashlib.sha256(self.to_json().encode()).hexdigest()
        )

    @classmethod
    def load(cls, folder: Path) -> "Calibration":
        """The calibration that lies beside a model's weights."""
        return cls.from_json((folder / CALIBRATION_FILE).read_text(encoding="utf-8"))

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """A calibration from a file of any name.

        Raises:
            CalibrationUnusable: it can't be read, or holds none.
        """
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise CalibrationUnusable(f"{path} can't be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise CalibrationUnusable(f"{path} holds no calibration.") from error

    @classmethod
    def from_json(cls, text: str) -> "Calibration":
        """What ``to_json`` wrote.

        Raises:
            CalibrationUnusable: it isn't one.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            basis = fields.get("basis")
            return cls(
                slope=float(fields["slope"]),
                intercept=float(fields["intercept"]),
                policies={name: Threshold(**values) for name, values in fields["policies"].items()},
                domain=DomainLimits(**fields["domain"]),
                feature_mean=tuple(fields["feature_mean"]),
                feature_std=tuple(fields["feature_std"]),
                version=int(fields.get("version", 0)),
                basis=Basis(**basis | {"refitted": tuple(basis["refitted"])}) if basis else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
            raise CalibrationUnusable("This is no calibration, or one of another version.") from error

    def to_json(self) -> str:
        """As a file has it. What only a fitted one has is left out of one that came with a model."""
        fields = asdict(self) | {"policies": {name: t.model_dump() for name, t in self.policies.items()}}
        if self.version == 0:
            del fields["version"]
        if self.basis is None:
            del fields["basis"]
        return json.dumps(fields, indent=1, allow_nan=False) + "\n"

    def save(self, folder: Path) -> None:
        """Write it beside the weights."""
        (folder / CALIBRATION_FILE).write_text(self.to_json(), encoding="utf-8")
