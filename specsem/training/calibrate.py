"""Fits what turns logits into probabilities and verdicts, on files that the model never saw.

Source: method, section 2, finding 7: thresholds are stated as a false-positive rate with its bound.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from specsem.calibration import Calibration, DomainLimits
from specsem.evaluation.conditions import QUICK
from specsem.evaluation.files import FileScore
from specsem.evaluation.metrics import proportion_upper95
from specsem.result import Threshold

__all__ = ["CALIBRATION_CONDITIONS", "POLICIES", "calibrate", "calibrate_headlines"]

Floats = npt.NDArray[np.float64]


STATIC_MOTION = 0.02
"""Stills through x264 move by 0.00 to 0.01 (of 255), the slowest camera clip of ``val`` by up to 0.03."""
CALIBRATION_CONDITIONS = QUICK
"""A rate that is stated holds for files delivered in any of these ways."""
POLICIES = {"default": 0.01, "review": 0.10}
"""The false-positive rate that each policy asks for: one to act on, one for queues that people look at."""


def calibrate(
    scores: Sequence[FileScore], *, policies: Mapping[str, float] = POLICIES, max_miss: float = 0.05
) -> Calibration:
    """Platt scaling with both classes weighted alike, and the thresholds of each policy.

    ``scores`` may hold a clip under several conditions. It is one clip all the same: it counts as a false
    alarm if any condition gives one, so the stated rate holds for clips delivered in any of these ways.

    Scores of several folds come from as many networks, whose features follow one another in ``feature_mean``.

    ``generated`` begins above all camera clips but a share of the policy's rate. ``fpr_upper95`` is what that
    supports on so many clips; where the policy asks for less, ``max_fpr`` promises no more than the bound.
    ``authentic`` ends where a share of ``max_miss`` of the generated clips would pass as authentic.
    """
    usable = [s for s in scores if s.windows]
    logit = np.array([s.logit for s in usable])
    generated = np.array([s.item.generated for s in usable])
    platt = LogisticRegression(class_weight="balanced", C=1e6).fit(logit[:, None], generated)
    slope, intercept = float(platt.coef_[0, 0]), float(platt.intercept_[0])

    def probability(x: Floats) -> Floats:
        return 1 / (1 + np.exp(-(slope * x + intercept)))

    highest_real = np.sort(_per_clip(usable, generated=False, reduce=max))
    n = len(highest_real)
    lowest_generated = _per_clip(usable, generated=True, reduce=min)
    lower = float(probability(np.quantile(lowest_generated, [max_miss]))[0])

    def threshold(max_fpr: float) -> Threshold:
        edge = float(highest_real[n - 1 - int(max_fpr * n)])
        above = float(np.nextafter(probability(np.array([edge]))[0], 1.0))
        false_alarms = int((highest_real > edge).sum())
        bound = proportion_upper95(false_alarms, n)
        supported = false_alarms > 0 or bound <= max_fpr
        return Threshold(
            value=above,
            lower=min(lower, above),
            max_fpr=max_fpr if supported else bound,
            fpr_upper95=bound,
            calibration_n=n,
        )

    folds = sorted({s.fold for s in usable}, key=lambda fold: (len(fold), fold))
    known = {fold: _spread_of([s for s in usable if s.fold == fold]) for fold in folds}
    return Calibration(
        slope=slope,
        intercept=intercept,
        policies={name: threshold(max_fpr) for name, max_fpr in policies.items()},
        domain=_domain_limits(usable, known),
        feature_mean=tuple(np.concatenate([mean for mean, _ in known.values()]).round(5).tolist()),
        feature_std=tuple(np.concatenate([std for _, std in known.values()]).round(5).tolist()),
    )


def calibrate_headlines(scores: Sequence[FileScore]) -> Calibration:
    """``calibrate`` on ``CALIBRATION_CONDITIONS``; on what there is, where the scores are of none of them."""
    return calibrate([s for s in scores if s.condition in CALIBRATION_CONDITIONS] or scores)


def _features(score: FileScore) -> Floats:
    mean_D: Floats = np.mean([w.features_D for w in score.windows], axis=0)
    return mean_D


def _spread_of(scores: Sequence[FileScore]) -> tuple[Floats, Floats]:
    """Mean and deviation of the features of a fold's clips: every network has features of its own."""
    features = np.array([_features(s) for s in scores])
    return features.mean(axis=0), features.std(axis=0) + 1e-3


def _domain_limits(scores: Sequence[FileScore], known: Mapping[str, tuple[Floats, Floats]]) -> DomainLimits:
    """Where the calibration clips lie, with room: a file beyond is one that nobody measured."""
    detail = [max(w.detail for w in s.windows) for s in scores]
    distance = [np.sqrt((((_features(s) - known[s.fold][0]) / known[s.fold][1]) ** 2).mean()) for s in scores]
    return DomainLimits(
        min_motion=STATIC_MOTION,
        min_detail=float(min(detail) / 2),
        max_distance=float(max(distance) * 1.25),
        min_side=96,
        min_analysed_s=0.0,
    )


def _per_clip(
    scores: Sequence[FileScore], *, generated: bool, reduce: Callable[[list[float]], float]
) -> Floats:
    """One logit a clip, over its conditions."""
    by_clip: dict[str, list[float]] = {}
    for score in scores:
        if score.item.generated == generated:
            by_clip.setdefault(str(score.item.path), []).append(score.logit)
    return np.array([reduce(logits) for logits in by_clip.values()])
