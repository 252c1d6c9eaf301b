"""Scaling laws: what falls with size as a power law, how sure that is, and the size that a target asks for.

Source: method, section 4 (Relative-Based Scaling Law, arXiv 2510.20387; What Scales in Cross-Entropy Scaling
Law?, arXiv 2510.04067). Nothing here knows of video: K outcomes may be generators, two verdicts or tokens.

Shape suffixes: N samples, K outcomes, E levels of rank that occur, M runs (one size each), B draws.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.special import logsumexp
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from specsem.errors import SpecSemError

__all__ = [
    "ErrorEntropy",
    "FloorLaw",
    "Forecast",
    "PowerLaw",
    "auc",
    "chain_probability",
    "error_entropy",
    "fit_floor_law",
    "fit_power_law",
    "forecast",
    "rank_based_error",
    "rbp",
    "truth_rank",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TOTAL_OF_ROUNDING = 1e-20
"""Values whose logarithms differ by less (sum of squares) are one value: alpha is 0."""
MIN_SIZES = 3
"""Two sizes always lie on a line: nothing would be left to judge it by."""


# -- what is measured of one run ----------------------------------------------------------------------------


def truth_rank(p_NK: Floats, truth_N: Ints) -> Ints:
    """R_N: how many outcomes are at least as probable as the truth; 1 = top, ties count against the model."""
    rank_N: Ints = np.sum(p_NK >= np.take_along_axis(p_NK, truth_N[:, None], axis=1), axis=1)
    return rank_N


def rank_based_error(p_NK: Floats, truth_N: Ints) -> Ints:
    """RBE_N: how many outcomes are more probable than the truth; 0 = top, ties count for the model."""
    rbe_N: Ints = np.sum(p_NK > np.take_along_axis(p_NK, truth_N[:, None], axis=1), axis=1)
    return rbe_N


def rbp(rank_N: Ints, ks: Sequence[int], weight_N: Floats | None = None) -> Floats:
    """RBP_k = Pr(R <= k) for each k of ``ks``: (len(ks),). ``weight_N``: how often each sample counts."""
    within = rank_N[:, None] <= np.asarray(ks)
    return np.average(within, axis=0, weights=weight_N)


@dataclass(frozen=True, slots=True)
class ErrorEntropy:
    """Cross-entropy (nats) and its three parts, of which it is the sum."""

    cross_entropy: float
    error_entropy: float
    """Of the distribution of RBE: where in the ranking the truth ends. The one part that follows a law."""
    self_alignment: float
    """How far the probabilities given to each rank are from how often the truth has it."""
    confidence: float
    """-log of the probability given to truths, summed over ranks; below 0 if that exceeds 1."""


def error_entropy(rbe_N: Ints, score_N: Floats, weight_N: Floats | None = None) -> ErrorEntropy:
    """Cross-entropy = Error-Entropy + Self-Alignment + Confidence; all in log space.

    ``score_N``: the probability given to the truth. A probability of 0 makes cross-entropy and self-alignment
    infinite, and confidence too where every level of RBE holds one; error-entropy needs the ranks only. The
    identity holds for infinite parts as well.
    """
    weight_N = np.ones(len(rbe_N)) if weight_N is None else weight_N
    drawn = weight_N > 0
    rbe_N, weight_N = rbe_N[drawn], weight_N[drawn]
    with np.errstate(divide="ignore"):
        log_score_N = np.log(score_N[drawn])
    mass = np.bincount(rbe_N, weight_N)
    occurs = mass > 0
    mass_E = mass[occurs]
    log_p_E = np.log(mass_E / mass_E.sum())
    log_Q_E = np.bincount(rbe_N, weight_N * log_score_N)[occurs] / mass_E  # of the geometric mean
    log_C = float(logsumexp(log_Q_E))
    p_E = np.exp(log_p_E)
    return ErrorEntropy(
        cross_entropy=-float((weight_N * log_score_N).sum() / mass_E.sum()),
        error_entropy=-float((p_E * log_p_E).sum()) + 0.0,  # no -0.0
        self_alignment=math.inf if math.isinf(log_C) else float((p_E * (log_p_E - log_Q_E + log_C)).sum()),
        confidence=-log_C,
    )


def auc(positive_N: Bools, score_N: Floats, weight_N: Floats | None = None) -> float:
    """Area under the ROC curve, ties counted half; NaN if one side has no weight."""
    weight_N = np.ones(len(score_N)) if weight_N is None else weight_N
    _, level_N = np.unique(score_N, return_inverse=True)
    levels = int(level_N.max()) + 1
    above_E, below_E = (np.bincount(level_N, weight_N * side, levels) for side in (positive_N, ~positive_N))
    pairs = above_E.sum() * below_E.sum()
    return float((above_E * (below_E.cumsum() - below_E / 2)).sum() / pairs) if pairs else math.nan


# -- the power law ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """value = c * size ** -alpha, a straight line in the logarithms."""

    c: float
    alpha: float
    alpha_interval: tuple[float, float]
    """95%, by the t distribution of the slope: from how the runs scatter about the line."""
    alpha_interval_samples: tuple[float, float] | None
    """95%, by bootstrap: from the samples that each run was measured on. None without their draws."""
    r_squared: float
    runs: int
    left_out: int
    """Runs whose value has no logarithm: 0 (as -log RBP_k where RBP_k = 1), below 0, or infinite."""
    size_range: tuple[float, float]
    residual: float
    """Standard deviation of a run about the line, in log value."""
    log_size_mean: float
    log_size_spread: float
    """Sum of squared deviations of log size; with the weights, if any."""

    @property
    def t95(self) -> float:
        """Quantile of the t distribution for two-sided 95% intervals of this fit."""
        return float(t_distribution.ppf(0.975, self.runs - 2))

    def predict(self, size: Floats) -> Floats:
        """The line's value at each size."""
        return np.exp(math.log(self.c) - self.alpha * np.log(size))

    def band(self, size: Floats) -> tuple[Floats, Floats]:
        """95% interval of the line, not of a run, at each size."""
        deviation = np.log(size) - self.log_size_mean
        half = self.t95 * self.residual * np.sqrt(1 / self.runs + deviation**2 / self.log_size_spread)
        return self.predict(size) * np.exp(-half), self.predict(size) * np.exp(half)


def fit_power_law(
    size_M: Floats, value_M: Floats, *, weight_M: Floats | None = None, draws_BM: Floats | None = None
) -> PowerLaw:
    """Least squares of log value on log size.

    Ordinary, or weighted by ``weight_M``: 1 / variance of log value, up to a factor. Values that have no
    logarithm are left out and counted. ``draws_BM``: the values of the same runs over samples drawn anew, for
    the second interval of alpha.

    Raises:
        SpecSemError: fewer than 3 different sizes are left.
    """
    usable = np.isfinite(value_M) & (value_M > 0)
    x, value = np.log(size_M[usable]), value_M[usable]
    sizes = len(np.unique(x))
    if sizes < MIN_SIZES:
        raise SpecSemError(
            f"A power law needs a positive, finite value at {MIN_SIZES} different sizes; here are {sizes}."
        )
    weight = np.ones(len(x)) if weight_M is None else weight_M[usable] / weight_M[usable].mean()
    y, n = np.log(value), len(x)
    slope, intercept, x_mean, spread = (float(v) for v in _line(x, y, weight))
    rest = float((weight * (y - intercept - slope * x) ** 2).sum())
    total = float((weight * (y - np.average(y, weights=weight)) ** 2).sum())
    if total < TOTAL_OF_ROUNDING:
        slope, rest, total = -0.0, 0.0, 0.0
    half = float(t_distribution.ppf(0.975, n - 2)) * math.sqrt(rest / (n - 2) / spread)
    return PowerLaw(
        c=math.exp(intercept),
        alpha=-slope,
        alpha_interval=(-slope - half, -slope + half),
        alpha_interval_samples=None
        if draws_BM is None
        else _basic_interval(-slope, x, draws_BM[:, usable], weight),
        r_squared=1 - rest / total if total > 0 else 0.0,
        runs=n,
        left_out=len(value_M) - n,
        size_range=(float(size_M[usable].min()), float(size_M[usable].max())),
        residual=math.sqrt(rest / (n - 2)),
        log_size_mean=x_mean,
        log_size_spread=spread,
    )


def _line(x_M: Floats, y_M: Floats, weight_M: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Slope, intercept, mean of x and spread of x, over the last axis."""
    mass = weight_M.sum(-1)
    x_mean, y_mean = (weight_M * x_M).sum(-1) / mass, (weight_M * y_M).sum(-1) / mass
    deviation = x_M - x_mean[..., None]
    spread = (weight_M * deviation**2).sum(-1)
    slope = (weight_M * deviation * y_M).sum(-1) / spread
    return slope, y_mean - slope * x_mean, x_mean, spread


def _basic_interval(
    alpha: float, x_M: Floats, draws_BM: Floats, weight_M: Floats
) -> tuple[float, float] | None:
    """Basic bootstrap interval: quantiles would double the bias that entropies of small samples have.

    In a draw a run may lose its logarithm (no error was drawn): that draw's line goes without it.
    """
    usable_BM = np.isfinite(draws_BM) & (draws_BM > 0)
    draws = usable_BM.sum(axis=1) >= MIN_SIZES
    y_BM = np.log(np.where(usable_BM, draws_BM, 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        alphas = -_line(x_M, y_BM, weight_M * usable_BM)[0]
    alphas = alphas[draws & np.isfinite(alphas)]
    if len(alphas) == 0:
        return None
    low, high = np.quantile(alphas, [0.025, 0.975])
    return float(2 * alpha - high), float(2 * alpha - low)


def chain_probability(law: PowerLaw, size: float, decisions: int) -> float:
    """Probability that N decisions in a row are in the top k, exp(-C N S^-alpha); ``law``: -log RBP_k's."""
    return math.exp(-decisions * float(law.predict(np.array([size]))[0]))


# -- how much more for a target -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forecast:
    """The size at which the law meets a target."""

    target: float
    size: float | None
    """None: there is no forecast, and ``reason`` says why."""
    interval: tuple[float, float] | None
    """95% for one new run, by Fieller's theorem: where its value could still be the target."""
    more: float | None
    """Beyond the largest size that was run; below 0 if less is enough."""
    extrapolation: float | None
    """Size over the largest (above 1) or over the smallest (below 1) that was run; 1 within the range."""
    reason: str = ""


def forecast(law: PowerLaw, target: float) -> Forecast:
    """The size at which ``law`` reaches ``target``; none where an interval of alpha does not lie above 0.

    Raises:
        SpecSemError: the target isn't positive and finite.
    """
    if not (math.isfinite(target) and target > 0):
        raise SpecSemError("A power law comes to positive, finite values only; the target must be one.")
    nothing = Forecast(target=target, size=None, interval=None, more=None, extrapolation=None)
    for low, high in (law.alpha_interval, law.alpha_interval_samples or law.alpha_interval):
        if high < 0:
            return replace(nothing, reason="the value grows with size")
        if low <= 0:
            why = (
                f"the 95% interval of alpha, {low:.3g} to {high:.3g}, includes 0: no effect of size is shown"
            )
            return replace(nothing, reason=why)
    # In u = log size - mean: (d - b u)^2 <= t^2 s^2 (1 + 1/n + u^2 / spread), with d the target's log value
    # less the line's at the mean. It opens upwards exactly where the slope's interval excludes 0.
    b = -law.alpha
    d = math.log(target) - (math.log(law.c) + b * law.log_size_mean)
    variance = (law.t95 * law.residual) ** 2
    a = b**2 - variance / law.log_size_spread
    root = math.sqrt(d**2 * variance / law.log_size_spread + a * variance * (1 + 1 / law.runs))
    size, low, high = (_exp(law.log_size_mean + u) for u in (d / b, (b * d - root) / a, (b * d + root) / a))
    smallest, largest = law.size_range
    return Forecast(
        target=target,
        size=size,
        interval=(low, high),
        more=size - largest,
        extrapolation=size / min(max(size, smallest), largest),
    )


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


# -- the law with a floor -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FloorLaw:
    """value = c * size ** -alpha + floor: more of the same stops helping."""

    c: float
    alpha: float
    floor: float
    r_squared: float
    p_value: float
    """Of the power law without a floor, by the F test of the two: below 0.05 the floor is called for."""

    def size_for(self, target: float) -> float | None:
        """The size that reaches ``target``; None if the floor lies above it."""
        return _exp(-math.log((target - self.floor) / self.c) / self.alpha) if target > self.floor else None


def fit_floor_law(size_M: Floats, value_M: Floats) -> FloorLaw | None:
    """Least squares in log value; None with fewer than 5 sizes, or where nothing falls towards a floor."""
    usable = np.isfinite(value_M) & (value_M > 0)
    x, y, n = np.log(size_M[usable]), np.log(value_M[usable]), int(usable.sum())
    if len(np.unique(x)) < MIN_SIZES + 2:
        return None
    slope, intercept, *_ = (float(v) for v in _line(x, y, np.ones(n)))

    def law(x: Floats, log_c: float, alpha: float, log_floor: float) -> Floats:
        return np.logaddexp(log_c - alpha * x, log_floor)

    try:
        with warnings.catch_warnings(action="ignore", category=OptimizeWarning):  # its covariance isn't used
            found, _ = curve_fit(law, x, y, p0=(intercept, max(-slope, 0.01), y.min() - 1), maxfev=2000)
    except RuntimeError:  # it did not converge
        return None
    log_c, alpha, log_floor = (float(v) for v in found)
    rest, straight = (float(((y - fitted) ** 2).sum()) for fitted in (law(x, *found), intercept + slope * x))
    if alpha <= 0 or not rest < straight:
        return None
    f = (straight - rest) / (rest / (n - 3)) if rest > 0 else math.inf
    return FloorLaw(
        c=_exp(log_c),
        alpha=alpha,
        floor=_exp(log_floor),
        r_squared=1 - rest / float(((y - y.mean()) ** 2).sum()),
        p_value=float(f_distribution.sf(f, 1, n - 3)),
    )
