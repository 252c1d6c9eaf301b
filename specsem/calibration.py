"""From logit to probability, and from probability to a verdict at a stated false-positive rate.

Fitting is in ``specsem.training.calibrate``; here a fitted calibration is read and applied.

Source: method, section 1 ("AP barely moves where accuracy drops by 20 points: the threshold
shifts, the ranking holds") and section 2, finding 7.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from specsem.errors import UnknownPolicy
from specsem.result import Reason, Threshold, Verdict

__all__ = ["Calibration", "DomainLimits", "sigmoid", "verdict_at"]

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


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling of the file's logit, thresholds by operating point, and the domain in which they hold."""

    slope: float
    intercept: float
    policies: dict[str, Threshold]
    """The operating points. Policies of ``specsem.policy`` build on them."""
    domain: DomainLimits = field(default_factory=DomainLimits)
    feature_mean: tuple[float, ...] = ()
    feature_std: tuple[float, ...] = ()

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

    @classmethod
    def load(cls, folder: Path) -> "Calibration":
        """The calibration that lies beside a model's weights."""
        fields: dict[str, Any] = json.loads((folder / CALIBRATION_FILE).read_text(encoding="utf-8"))
        return cls(
            slope=fields["slope"],
            intercept=fields["intercept"],
            policies={name: Threshold(**values) for name, values in fields["policies"].items()},
            domain=DomainLimits(**fields["domain"]),
            feature_mean=tuple(fields["feature_mean"]),
            feature_std=tuple(fields["feature_std"]),
        )

    def save(self, folder: Path) -> None:
        """Write it beside the weights."""
        fields = asdict(self) | {"policies": {name: t.model_dump() for name, t in self.policies.items()}}
        text = json.dumps(fields, indent=1, allow_nan=False)
        (folder / CALIBRATION_FILE).write_text(text + "\n", encoding="utf-8")
