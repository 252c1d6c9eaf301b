"""Figures of merit, by scikit-learn and SciPy, with bootstrap intervals over sources."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

__all__ = ["expected_calibration_error", "interval", "proportion_upper95", "summary", "tpr_at_fpr"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def proportion_upper95(count: int, n: int) -> float:
    """Upper bound of a proportion at 95% confidence, one-sided, Clopper-Pearson; 0 of n gives about 3/n."""
    if n == 0:
        return 1.0
    return float(binomtest(count, n, alternative="less").proportion_ci(0.95, "exact").high)


def tpr_at_fpr(generated: Bools, score: Floats, fpr: float) -> float:
    """The greatest true-positive rate at a false-positive rate of at most ``fpr``."""
    rates, recalls, _ = roc_curve(generated, score, drop_intermediate=False)
    return float(recalls[rates <= fpr].max())


def expected_calibration_error(generated: Bools, score: Floats, bins: int = 10) -> float:
    """Mean gap of score and frequency over equal-width bins, weighted by size (Guo et al. 2017)."""
    index = np.minimum((score * bins).astype(int), bins - 1)
    total = 0.0
    for b in range(bins):
        inside = index == b
        if inside.any():
            total += inside.mean() * abs(score[inside].mean() - generated[inside].mean())
    return float(total)


def summary(generated: Bools, score: Floats, *, threshold: float) -> dict[str, float]:
    """The figures of one condition. ``score``: probabilities; ``threshold``: where ``generated`` begins."""
    said = score >= threshold
    recall, fpr = said[generated].mean(), said[~generated].mean()
    half = score >= 0.5
    return {
        "n_generated": int(generated.sum()),
        "n_real": int((~generated).sum()),
        "auc": float(roc_auc_score(generated, score)),
        "ap": float(average_precision_score(generated, score)),
        "tpr_at_threshold": float(recall),
        "fpr_at_threshold": float(fpr),
        "balanced_accuracy_at_threshold": float((recall + 1 - fpr) / 2),
        "balanced_accuracy_at_half": float((half[generated].mean() + 1 - half[~generated].mean()) / 2),
        "tpr_at_1pct_fpr": tpr_at_fpr(generated, score, 0.01),
        "ece": expected_calibration_error(generated, score),
        "brier": float(brier_score_loss(generated, score)),
    }


def interval(
    generated: Bools,
    score: Floats,
    source: Sequence[str],
    *,
    figure: Callable[[Bools, Floats], float] = roc_auc_score,
    rounds: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95% bootstrap interval of a figure: whole sources are drawn, for clips of one source are alike."""
    rng = np.random.default_rng(seed)
    keys = list(zip(generated.tolist(), source, strict=True))
    rows = {key: np.flatnonzero([k == key for k in keys]) for key in dict.fromkeys(keys)}
    sides = [[key for key in rows if key[0] is side] for side in (True, False)]
    values = []
    for _ in range(rounds):
        drawn = [side[i] for side in sides for i in rng.integers(0, len(side), len(side))]
        index = np.concatenate([rows[key] for key in drawn])
        values.append(figure(generated[index], score[index]))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
