"""Figures of merit: scikit-learn, torchmetrics and SciPy for each, and all of them at once under a bootstrap.

The figures of one condition (``summary``) are the libraries'. Their intervals need thousands of them, so
``resampled`` computes the same figures for many weightings of the clips in a few matrix operations; the tests
hold it to the libraries' values. Whole sources are drawn, for clips of one source are alike.

Shape letters: N clips, R weightings (bootstrap rounds), U different scores, B bins, S sources.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    roc_auc_score,
    roc_curve,
)
from torchmetrics.functional.classification import binary_calibration_error

__all__ = [
    "RiskCoverage",
    "draw_sources",
    "expected_calibration_error",
    "intervals",
    "macro",
    "proportion_upper95",
    "resampled",
    "risk_coverage",
    "summary",
    "tpr_at_fpr",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
BINS = 10
"""Equal-width bins of the calibration error."""
_SIDES = (True, False)


def proportion_upper95(count: int, n: int) -> float:
    """Upper bound of a proportion at 95% confidence, one-sided, Clopper-Pearson; 0 of n gives about 3/n."""
    if n == 0:
        return 1.0
    return float(binomtest(count, n, alternative="less").proportion_ci(0.95, "exact").high)


def tpr_at_fpr(generated: Bools, score: Floats, fpr: float) -> float:
    """The greatest true-positive rate at a false-positive rate of at most ``fpr``."""
    rates, recalls, _ = roc_curve(generated, score, drop_intermediate=False)
    return float(recalls[rates <= fpr].max())


def expected_calibration_error(generated: Bools, score: Floats, bins: int = BINS) -> float:
    """Mean gap of score and frequency over equal-width bins, weighted by size (Guo et al. 2017)."""
    preds, target = torch.from_numpy(np.array(score)), torch.from_numpy(np.array(generated, np.int64))
    return float(binary_calibration_error(preds, target, n_bins=bins, norm="l1"))


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """What is answered, and how often wrongly, as the band that is left ``inconclusive`` around .5 widens.

    Row k: the clips whose score is at least ``half_width[k]`` from .5 are answered, as the nearer side says.
    From the widest band (few answers) to none (all are answered).
    """

    half_width: Floats
    coverage: Floats
    risk: Floats
    """Share of the answers that are wrong."""

    @property
    def aurc(self) -> float:
        """Area under the risk over the coverage (Geifman & El-Yaniv 2017); less is better."""
        steps = np.diff(self.coverage, prepend=0.0)
        return float((steps * self.risk).sum())


def risk_coverage(generated: Bools, score: Floats) -> RiskCoverage:
    """Risk against coverage; clips equally far from .5 are answered together."""
    far = _distance(score)
    wrong = (score >= 0.5) != generated
    widths = np.unique(far)[::-1]
    answered = np.array([far >= width for width in widths])
    counts = answered.sum(axis=1)
    return RiskCoverage(widths, counts / len(score), (answered & wrong).sum(axis=1) / counts)


def summary(generated: Bools, score: Floats, *, threshold: float | Floats) -> dict[str, float]:
    """The figures of one condition.

    Args:
        generated, score: The truth and the probability of each clip (N).
        threshold: Where ``generated`` begins: one for all, or each clip's own (N; cross-fitted calibrations).
    """
    said, half = score >= threshold, score >= 0.5
    return {
        "n_generated": int(generated.sum()),
        "n_real": int((~generated).sum()),
        "auc": float(roc_auc_score(generated, score)),
        "ap": float(average_precision_score(generated, score)),
        "accuracy_at_threshold": float(accuracy_score(generated, said)),
        "accuracy_at_half": float(accuracy_score(generated, half)),
        "balanced_accuracy_at_threshold": float(balanced_accuracy_score(generated, said)),
        "balanced_accuracy_at_half": float(balanced_accuracy_score(generated, half)),
        "f1_at_threshold": float(f1_score(generated, said, zero_division=0.0)),
        "f1_at_half": float(f1_score(generated, half, zero_division=0.0)),
        "tpr_at_threshold": float(said[generated].mean()),
        "fpr_at_threshold": float(said[~generated].mean()),
        "tpr_at_1pct_fpr": tpr_at_fpr(generated, score, 0.01),
        "tpr_at_0.1pct_fpr": tpr_at_fpr(generated, score, 0.001),
        "ece": expected_calibration_error(generated, score),
        "brier": float(brier_score_loss(generated, score)),
        "aurc": risk_coverage(generated, score).aurc,
    }


def macro(columns: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Mean of each figure over generators, each counting once: from their columns, without ``n``."""
    names = [name for name in next(iter(columns.values()), {}) if name != "n"]
    return {name: float(np.mean([column[name] for column in columns.values()])) for name in names}


def draw_sources(
    generated: Bools, source: Sequence[str], *, rounds: int = 1000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Weights (R, N): how often each clip was drawn. Within each class as many whole sources as there are."""
    rng = np.random.default_rng(seed)
    weights_RN = np.zeros((rounds, len(generated)))
    names = np.asarray(source)
    for side in _SIDES:
        rows = np.flatnonzero(generated == side)
        sources, index = np.unique(names[rows], return_inverse=True)
        times_RS = rng.multinomial(len(sources), np.full(len(sources), 1 / len(sources)), rounds)
        weights_RN[:, rows] = times_RS[:, index]
    return weights_RN


def resampled(
    generated: Bools,
    score: Floats,
    weights_RN: Floats,
    *,
    threshold: float | Floats,
    source: Sequence[str] | None = None,
) -> dict[str, Floats]:
    """The figures of ``summary`` for each weighting of the clips, each (R); with sources ``macro_auc`` too.

    ``macro_auc`` is the mean over generators of each one's AUC against all camera clips; weights must then be
    the same for all clips of a source.
    """
    real_RN, generated_RN = weights_RN * ~generated, weights_RN * generated
    n_real, n_generated = real_RN.sum(axis=1), generated_RN.sum(axis=1)
    n = n_real + n_generated

    values, place = np.unique(score, return_inverse=True)
    tied_NU = np.eye(len(values))[place]
    real_RU, generated_RU = real_RN @ tied_NU, generated_RN @ tied_NU
    below_RU = np.cumsum(real_RU, axis=1) - real_RU
    auc = (generated_RU * (below_RU + real_RU / 2)).sum(axis=1) / (n_generated * n_real)

    # Both from the strictest threshold to the mildest, as roc_curve has them.
    hits_RU = np.cumsum(generated_RU[:, ::-1], axis=1)
    alarms_RU = np.cumsum(real_RU[:, ::-1], axis=1)
    precision_RU = hits_RU / np.maximum(hits_RU + alarms_RU, 1e-12)
    ap = (generated_RU[:, ::-1] * precision_RU).sum(axis=1) / n_generated
    fpr_RU = alarms_RU / n_real[:, None]

    def recall_at(fpr: float) -> Floats:
        allowed = np.where(fpr_RU <= fpr + 1e-12, hits_RU, 0.0)
        recall: Floats = allowed.max(axis=1) / n_generated
        return recall

    def at(said: Bools) -> tuple[Floats, Floats, Floats, Floats]:
        """Accuracy, F1, true-positive and false-positive rate."""
        hits, alarms = generated_RN @ said, real_RN @ said
        accuracy = (hits + n_real - alarms) / n
        f1 = 2 * hits / (n_generated + hits + alarms)
        return accuracy, f1, hits / n_generated, alarms / n_real

    accuracy, f1, tpr, fpr = at(score >= threshold)
    accuracy_half, f1_half, tpr_half, fpr_half = at(score >= 0.5)
    figures = {
        "auc": auc,
        "ap": ap,
        "accuracy_at_threshold": accuracy,
        "accuracy_at_half": accuracy_half,
        "balanced_accuracy_at_threshold": (tpr + 1 - fpr) / 2,
        "balanced_accuracy_at_half": (tpr_half + 1 - fpr_half) / 2,
        "f1_at_threshold": f1,
        "f1_at_half": f1_half,
        "tpr_at_threshold": tpr,
        "fpr_at_threshold": fpr,
        "tpr_at_1pct_fpr": recall_at(0.01),
        "tpr_at_0.1pct_fpr": recall_at(0.001),
        "ece": _calibration_errors(generated, score, weights_RN),
        "brier": weights_RN @ (score - generated) ** 2 / n,
        "aurc": _areas_under_risk(generated, score, weights_RN),
    }
    if source is not None:
        beaten_RU = (below_RU + real_RU / 2) / n_real[:, None]  # share of camera clips below each score
        names, index = np.unique(np.asarray(source)[generated], return_inverse=True)
        member_NS = np.eye(len(names))[index]
        share_US = tied_NU[generated].T @ (member_NS / member_NS.sum(axis=0))
        times_RS = weights_RN[:, generated] @ (member_NS / member_NS.sum(axis=0))
        figures["macro_auc"] = (times_RS * (beaten_RU @ share_US)).sum(axis=1) / times_RS.sum(axis=1)
    return figures


def intervals(
    generated: Bools,
    score: Floats,
    source: Sequence[str],
    *,
    threshold: float | Floats,
    rounds: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95% bootstrap intervals over sources of every figure of ``resampled``."""
    weights_RN = draw_sources(generated, source, rounds=rounds, seed=seed)
    figures = resampled(generated, score, weights_RN, threshold=threshold, source=source)
    return {name: _middle95(values) for name, values in figures.items()}


def _distance(score: Floats) -> Floats:
    """How far from .5; rounded, so that .2 is as far as .8."""
    far: Floats = np.abs(score - 0.5).round(12)
    return far


def _middle95(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _calibration_errors(generated: Bools, score: Floats, weights_RN: Floats) -> Floats:
    bounds = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)  # torchmetrics' own: 1.0 has a bin to itself
    bin_N = torch.bucketize(torch.from_numpy(score), bounds, right=True).numpy() - 1
    inside_NB = np.eye(BINS + 1)[bin_N]
    gap_RB = weights_RN @ (inside_NB * (score - generated)[:, None])
    errors: Floats = np.abs(gap_RB).sum(axis=1) / weights_RN.sum(axis=1)
    return errors


def _areas_under_risk(generated: Bools, score: Floats, weights_RN: Floats) -> Floats:
    far, place = np.unique(-_distance(score), return_inverse=True)
    tied_NU = np.eye(len(far))[place]
    wrong_N = (score >= 0.5) != generated
    added_RU = weights_RN @ tied_NU
    answered_RU = np.cumsum(added_RU, axis=1)
    wrong_RU = np.cumsum((weights_RN * wrong_N) @ tied_NU, axis=1)
    risk_RU = wrong_RU / np.maximum(answered_RU, 1e-12)
    areas: Floats = (added_RU * risk_RU).sum(axis=1) / weights_RN.sum(axis=1)
    return areas
