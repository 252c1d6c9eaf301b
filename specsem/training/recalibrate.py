"""Fits scores and thresholds anew from feedback: labels of single videos, and counts of which nobody knows
which ("of these 64, 12 were upheld").

Source: UUM (arXiv 2306.11343) through ``specsem.training.aggregate``. A count weights each label of each
video with its posterior given the count, and the risk so weighted is unbiased for any loss:

- With cross-entropy, it is fitted for the scores' scale: its gradient is that of -log P(all counts).
- With the loss "a camera video lies above t", it is the false-positive rate at t, and thresholds follow.

Feedback is never a fair sample: operators look at what was reported or nearly flagged. Where it is known what
all was scored meanwhile, observations are weighted to be like that, by strata of the logit. That is right if,
of videos that score alike, those with feedback are like those without.

Shape letters: G groups, m videos of a group, N videos of all groups, K labels (0 real, 1 generated).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from specsem.calibration import Basis, Calibration, Confirmation
from specsem.errors import SpecSemError
from specsem.intervals import exact_upper95
from specsem.result import Threshold
from specsem.training.aggregate import aggregate_risk, log_probabilities, weights_count

__all__ = ["TooLittleFeedback", "recalibrate"]

Floats = npt.NDArray[np.float64]

MIN_REAL = 50
"""So many camera videos, at least, for a threshold; and as many as 1 / rate."""
MIN_BOTH = 30
"""So many of each kind, at least, for the scores' scale and for the threshold of ``authentic``."""
MAX_MISS = 0.05
"""Share of the generated videos that ``authentic`` may let pass, as ``specsem.training.calibrate`` has it."""
SLOPE_SPREAD = 0.5
"""Of the logarithm of the slope, before any feedback: half to twice as steep is likely, ten times is not."""
STRATUM = 10
"""Observed videos in a stratum, at least: fewer would each speak for too many."""


class TooLittleFeedback(SpecSemError):
    """Nothing can be fitted from what is there."""

    code = "too_little_feedback"


@dataclass(frozen=True, slots=True)
class _Observed:
    """All observations, padded to the size of the largest group."""

    logit_Gm: Tensor
    mask_Gm: Tensor
    flip_Gm: Tensor
    """True where the count is of those that are real."""
    count_G: Tensor

    @classmethod
    def of(cls, confirmations: Sequence[Confirmation]) -> "_Observed":
        size = max(len(c.jobs) for c in confirmations)

        def padded(rows: Sequence[Sequence[float]]) -> Tensor:
            return torch.tensor([[*row, *[0.0] * (size - len(row))] for row in rows], dtype=torch.float64)

        return cls(
            logit_Gm=padded([c.logits for c in confirmations]),
            mask_Gm=padded([[1.0] * len(c.jobs) for c in confirmations]).bool(),
            flip_Gm=padded(
                [[float(not holds) for holds in c.holds_if_generated] for c in confirmations]
            ).bool(),
            count_G=torch.tensor([c.count for c in confirmations]),
        )

    def flat(self, x_Gm: Tensor) -> Tensor:
        """(N,) of (G, m), without padding."""
        return x_Gm[self.mask_Gm]

    def weights(self, believed_Gm: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K) the posterior of each video's label, and () log P of all counts, if these logits hold."""
        sign_Gm = torch.where(self.flip_Gm, -1.0, 1.0).double()
        found = weights_count(sign_Gm * believed_Gm, self.count_G, self.mask_Gm)
        w_GmK = torch.where(self.flip_Gm[..., None], found.w_GmK.flip(-1), found.w_GmK)
        return w_GmK[self.mask_Gm], found.log_p_G.sum()


def recalibrate(
    base: Calibration,
    confirmations: Sequence[Confirmation],
    *,
    stream: Mapping[float, int] | None = None,
    now: float | None = None,
) -> Calibration:
    """A calibration for the videos that ``confirmations`` speak of; version 0 until somebody keeps it.

    Of a video that several speak of, the label counts, else the latest group. What too little is known of is
    kept from ``base``, its threshold at the same logit.

    ``fpr_upper95`` takes the expected number of camera videos, after the weighting, for one of labels: it is
    right for labels and for counts of none or all, and says a little too much of the others.

    Args:
        base: The calibration whose thresholds and scale are to be fitted anew.
        confirmations: What is known, all by the same model.
        stream: How many videos were scored in all meanwhile, by the lower edge of their logit's bin. None, or
            fewer than are spoken of: the observations are taken for a fair sample.
        now: Seconds since the epoch; the clock's, if nothing else is said.

    Raises:
        TooLittleFeedback: not one threshold can be fitted.
    """
    usable, left_out = _resolved(confirmations)
    if not usable:
        raise TooLittleFeedback("There is no feedback from which anything could be fitted.")
    observed = _Observed.of(usable)
    logit_N = observed.flat(observed.logit_Gm).numpy()
    weighted = stream is not None and sum(stream.values()) >= len(logit_N)
    share_N = _like(stream, logit_N) if stream and weighted else np.full(len(logit_N), 1 / len(logit_N))

    slope, w_NK = _posterior(observed, base)
    real_N, generated_N = share_N * w_NK[:, 0], share_N * w_NK[:, 1]
    n_real, n_generated = _effective(share_N, w_NK[:, 0]), _effective(share_N, w_NK[:, 1])
    refitted: list[str] = []
    fitted = base
    if min(n_real, n_generated) >= MIN_BOTH:
        fitted = replace(base, slope=slope, intercept=_intercept(slope, logit_N, w_NK, share_N))
        refitted.append("scores")
    lower = None
    if n_generated >= MIN_BOTH:
        lower = fitted.probability(_quantile(logit_N, generated_N, MAX_MISS))
    policies = {}
    for name, kept in base.policies.items():
        threshold = _moved(kept, base, fitted)
        if n_real >= max(MIN_REAL, 1 / max(kept.max_fpr, 1e-9)):
            threshold = _threshold(kept.max_fpr, logit_N, real_N, n_real, fitted, lower=threshold.lower)
            refitted.append(name)
        if lower is not None:
            threshold = threshold.model_copy(update={"lower": min(lower, threshold.value)})
        policies[name] = threshold
    if not refitted:
        raise TooLittleFeedback(
            f"What is known stands for {n_real:.0f} camera videos and "
            f"{n_generated:.0f} generated ones. A threshold needs {MIN_REAL} camera videos, and as "
            f"many as 1 / its false-positive rate."
        )
    basis = Basis(
        based_on=base.version,
        fitted_at=_iso(datetime.now(UTC).timestamp() if now is None else now),
        since=_iso(min(c.at for c in usable)),
        until=_iso(max(c.at for c in usable)),
        labels=sum(len(c.jobs) == 1 for c in usable),
        groups=sum(len(c.jobs) > 1 for c in usable),
        grouped=sum(len(c.jobs) for c in usable if len(c.jobs) > 1),
        left_out=left_out,
        real=round(float(w_NK[:, 0].sum()), 1),
        generated=round(float(w_NK[:, 1].sum()), 1),
        weighted=weighted,
        refitted=tuple(refitted),
    )
    return replace(fitted, policies=policies, version=0, basis=basis)


def _resolved(confirmations: Sequence[Confirmation]) -> tuple[list[Confirmation], int]:
    """Each video in one observation, and how many were left out for that."""
    labels: dict[str, Confirmation] = {}
    for c in sorted((c for c in confirmations if len(c.jobs) == 1), key=lambda c: c.at):
        labels[c.jobs[0]] = c
    known = {job: (c.count == 1) == c.holds_if_generated[0] for job, c in labels.items()}
    left_out = sum(len(c.jobs) == 1 for c in confirmations) - len(labels)
    usable, taken = list(labels.values()), set(labels)
    groups = [c for c in confirmations if len(c.jobs) > 1]
    for c in sorted(groups, key=lambda c: c.at, reverse=True):
        if any(job in taken and job not in known for job in c.jobs):
            left_out += 1
            continue
        # What is labelled is taken out, with its part of the count.
        held = sum(
            known[j] == holds for j, holds in zip(c.jobs, c.holds_if_generated, strict=True) if j in known
        )
        rest = [i for i, job in enumerate(c.jobs) if job not in known]
        count = c.count - held
        if not 0 <= count <= len(rest):
            left_out += 1  # it contradicts the labels, which say which
            continue
        if rest:
            usable.append(
                Confirmation(
                    jobs=tuple(c.jobs[i] for i in rest),
                    logits=tuple(c.logits[i] for i in rest),
                    holds_if_generated=tuple(c.holds_if_generated[i] for i in rest),
                    count=count,
                    at=c.at,
                )
            )
            taken.update(c.jobs)
    return usable, left_out


def _posterior(observed: _Observed, base: Calibration) -> tuple[float, Floats]:
    """The slope that explains the observations best, and (N, K) the labels' posterior under it.

    The risk is minimised over slope and intercept, the slope held near the one before. Of the intercept,
    posteriors given a count know nothing: it may run away where all are of one kind, and does no harm.
    """
    log_slope = torch.zeros((), dtype=torch.float64, requires_grad=True)
    intercept = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [log_slope, intercept], max_iter=30, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )
    size = int(observed.mask_Gm.sum())

    def believed() -> Tensor:
        return base.slope * log_slope.exp() * observed.logit_Gm + base.intercept + intercept

    def loss() -> Tensor:
        optimizer.zero_grad()
        belief_Gm = believed()
        w_NK, log_p = observed.weights(belief_Gm.detach())
        # Each video a group of its own: its weights know of the others already.
        risk = aggregate_risk(-log_probabilities(observed.flat(belief_Gm))[:, None], w_NK[:, None])
        # The risk has the gradient of -log P, not its value; the line search needs both.
        exact = risk + (-log_p / size - risk).detach()
        prior = (log_slope / SLOPE_SPREAD).square() / 2 + (intercept / 10.0).square() / 2
        objective: Tensor = exact + prior / size
        objective.backward()  # type: ignore[no-untyped-call]
        return objective

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        w_NK, _ = observed.weights(believed())
    return base.slope * math.exp(log_slope.item()), w_NK.numpy()


def _intercept(slope: float, logit_N: Floats, w_NK: Floats, share_N: Floats) -> float:
    """Which makes a score the probability at even odds: of both kinds' mean risk, the minimum.

    The weighted kinds are made equally heavy, as in the balanced fit of ``specsem.training.calibrate``; what
    is left to be found is one number, at which the slope of a convex function changes its sign.
    """
    real_N = share_N * w_NK[:, 0] / (share_N * w_NK[:, 0]).sum()
    generated_N = share_N * w_NK[:, 1] / (share_N * w_NK[:, 1]).sum()
    low, high = -60.0, 60.0
    for _ in range(80):
        middle = (low + high) / 2
        p_N = 1 / (1 + np.exp(-np.clip(slope * logit_N + middle, -700, 700)))
        too_high = (real_N * p_N).sum() > (generated_N * (1 - p_N)).sum()
        low, high = (low, middle) if too_high else (middle, high)
    return (low + high) / 2


def _threshold(
    rate: float, logit_N: Floats, real_N: Floats, n_real: float, fitted: Calibration, *, lower: float
) -> Threshold:
    """Above all camera videos but a share of them, as ``specsem.training.calibrate`` has it."""
    edge = -_quantile(-logit_N, real_N, rate)
    value = float(np.nextafter(fitted.probability(edge), 1.0))
    n = int(n_real)
    above = float(real_N[logit_N > edge].sum() / real_N.sum())
    # At least one: a video that stands for more than the rate hides those above it.
    false_alarms = min(n, max(1, math.ceil(above * n - 1e-9)))
    return Threshold(
        value=value,
        lower=min(lower, value),
        max_fpr=rate,
        fpr_upper95=exact_upper95(false_alarms, n),
        calibration_n=n,
    )


def _quantile(x_N: Floats, weight_N: Floats, share: float) -> float:
    """The least x below which more than ``share`` of the weight lies, itself included."""
    order = np.argsort(x_N, kind="stable")
    reached = np.cumsum(weight_N[order]) / weight_N.sum()
    return float(x_N[order][min(int(np.searchsorted(reached, share + 1e-12, side="right")), len(x_N) - 1)])


def _effective(share_N: Floats, w_N: Floats) -> float:
    """How many labels of this kind would say as much: Kish's number, of expected ones."""
    total = float((share_N * w_N).sum())
    return total**2 / float((share_N**2 * w_N).sum()) if total > 0 else 0.0


def _moved(kept: Threshold, base: Calibration, fitted: Calibration) -> Threshold:
    """The same thresholds on the new scale of scores."""
    if fitted is base:
        return kept

    def moved(score: float) -> float:
        if not 0 < score < 1:
            return score
        return fitted.probability((math.log(score / (1 - score)) - base.intercept) / base.slope)

    return kept.model_copy(update={"value": moved(kept.value), "lower": moved(kept.lower)})


def _like(stream: Mapping[float, int], logit_N: Floats) -> Floats:
    """What share of the stream each observation stands for: those of a stratum share what was scored in it.

    Strata are the stream's bins, from the top, joined until each has enough observations; so what nobody
    looked at (low scores, mostly) is spoken for by what scores next to it.
    """
    lower = sorted(stream)
    bin_N = np.clip(np.searchsorted(lower, logit_N, side="right") - 1, 0, len(lower) - 1)
    observed = np.bincount(bin_N, minlength=len(lower))
    share_N = np.zeros(len(logit_N))
    edges, seen = [len(lower)], 0
    for index in range(len(lower) - 1, -1, -1):
        seen += int(observed[index])
        if seen >= STRATUM:
            edges.append(index)
            seen = 0
    # What is left over joins the lowest stratum.
    edges = [*(edges[:-1] if len(edges) > 1 else edges), 0]
    total = sum(stream.values())
    for above, below in pairwise(edges):
        inside_N = (bin_N >= below) & (bin_N < above)
        if inside_N.any():
            share_N[inside_N] = sum(stream[lower[i]] for i in range(below, above)) / total / inside_N.sum()
    return share_N


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
