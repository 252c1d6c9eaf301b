"""Learning from aggregate observations: facts about a group, where no label of an instance is known.

Source: UUM (ICML 2023, arXiv 2306.11343). For any loss l the risk stays unbiased when every label of every
instance is weighted with its posterior given the group's observation z::

    R(f) = E[ (1/m) sum_i sum_k w_ik l(f(x_i), k) ],   w_ik = P(y_i = k | x_1..x_m, z)

Each ``weights_*`` function computes w and log P(z | x) for one kind of observation, in float64 and without
gradient; ``aggregate_risk`` takes w to any loss. With cross-entropy the gradient of the risk is that of
-log P(z | x) / m. ``read_observations`` reads the group lines of manifests.

Shape letters: G any batch of groups (``...``, also none), m instances of a group, K classes (binary: 0 real,
1 generated).
"""

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from specsem.errors import SpecSemError

__all__ = [
    "GroupWeights",
    "Observation",
    "ObservationKind",
    "aggregate_risk",
    "log_probabilities",
    "read_observations",
    "weights_any",
    "weights_count",
    "weights_different",
    "weights_enumerated",
    "weights_for",
    "weights_rank",
    "weights_same",
    "weights_triplet",
]

ObservationKind = Literal["any", "count", "same", "different", "triplet", "rank"]

_LARGEST_LOGIT = 1e6
_MOST_LABELLINGS = 65_536
_NEGLIGIBLE = 40.0
"""Terms below exp(-40) = 4e-18 of what they are added to are left out: float64 would not keep them."""


@dataclass(frozen=True, slots=True)
class GroupWeights:
    """What an observation says of a group.

    A group whose observation has probability 0 under the model (only exact zeros in class probabilities do
    that; finite logits never) has ``log_p_G`` = -inf and all weights 0: it teaches nothing.
    """

    w_GmK: Tensor
    """P(y_i = k | x, z), float64; over k it sums to 1, or to 0 for padding and impossible groups."""
    log_p_G: Tensor
    """log P(z | x), float64."""


def aggregate_risk(loss_GmK: Tensor, w_GmK: Tensor) -> Tensor:
    """The unbiased risk, a scalar: (1/m) sum_i sum_k w_ik loss_ik, averaged over the groups.

    Args:
        loss_GmK: (..., m, K), the loss of each instance if its label were k; for cross-entropy
            ``-log_probabilities(logit_Gm)``. It need not be bounded where the weight is 0.
        w_GmK: (..., m, K) of a ``weights_*`` function. Carries no gradient. An instance of padding does not
            count in m.

    Raises:
        ValueError: the shapes differ.
    """
    if loss_GmK.shape != w_GmK.shape:
        raise ValueError(f"losses {tuple(loss_GmK.shape)} and weights {tuple(w_GmK.shape)} must match")
    w_GmK = w_GmK.detach().to(loss_GmK)
    # Selected before multiplied: 0 * inf would be NaN.
    weighted_G = (w_GmK * torch.where(w_GmK > 0, loss_GmK, 0.0)).sum((-2, -1))
    size_G = (w_GmK.sum(-1) > 0.5).sum(-1).clamp(min=1)
    return (weighted_G / size_G).mean()


def log_probabilities(logit_Gm: Tensor) -> Tensor:
    """Binary logits (...) -> log-probabilities (..., 2) of the labels 0 and 1; keeps gradient and dtype."""
    return torch.stack([F.logsigmoid(-logit_Gm), F.logsigmoid(logit_Gm)], dim=-1)


# -- binary groups of any size ------------------------------------------------------------------------------


@torch.no_grad()
def weights_any(
    logit_Gm: Tensor, value_G: Tensor | bool = True, mask_Gm: Tensor | None = None
) -> GroupWeights:
    """Multiple-instance learning: whether any instance is of class 1.

    Args:
        logit_Gm: (..., m) logits of class 1.
        value_G: (...) what was seen: some instance is of class 1, or none.
        mask_Gm: (..., m) True where there is an instance, False for padding; default: everywhere.

    Returns:
        w (..., m, 2) with w_i1 = p_i / (1 - prod_j (1 - p_j)) or 0, and log P(z | x) (...).

    Raises:
        ValueError: an empty group, a logit that is not finite or beyond 1e6, or shapes that don't fit.
    """
    logit_Gm, mask_Gm = _checked_logits(logit_Gm, mask_Gm)
    value_G = _per_group(value_G, logit_Gm).bool()
    log_q_Gm = F.logsigmoid(-logit_Gm).masked_fill(~mask_Gm, 0.0)
    log_none_G = log_q_Gm.sum(-1)
    # 1 - exp(s) of a tiny s is -s (1 + s/2), and -s = sum_i softplus(logit_i), which may itself underflow.
    log_minus_log_q_Gm = torch.where(logit_Gm < -_NEGLIGIBLE, logit_Gm, (-log_q_Gm).log())
    log_minus_s_G = log_minus_log_q_Gm.masked_fill(~mask_Gm, -torch.inf).logsumexp(-1)
    exact_G = (-torch.expm1(log_none_G)).log()
    log_any_G = torch.where(log_none_G > -1e-6, log_minus_s_G + log_none_G / 2, exact_G)

    generated_Gm = (F.logsigmoid(logit_Gm) - log_any_G[..., None]).exp().clamp(max=1.0)
    generated_Gm = torch.where(value_G[..., None], generated_Gm, 0.0)
    w_GmK = torch.stack([1.0 - generated_Gm, generated_Gm], dim=-1) * mask_Gm[..., None]
    return GroupWeights(w_GmK, torch.where(value_G, log_any_G, log_none_G))


@torch.no_grad()
def weights_count(logit_Gm: Tensor, count_G: Tensor | int, mask_Gm: Tensor | None = None) -> GroupWeights:
    """Learning from label proportions: how many instances are of class 1.

    With PB(c; p) the Poisson-binomial probability of c, w_i1 = p_i PB(c - 1; p without i) / PB(c; p).
    Two steps keep it exact, in O(m) time and memory:

    - Tilting. The weights do not change when one t is added to all logits. The t under which c is the
      expected count makes c the most probable count too, of probability >= 1 / (m + 1): nothing underflows.
    - The characteristic function, phi(theta) = prod_j (q_j + p_j e^(i theta)), at the N-th roots of unity
      gives PB(c). N need only reach beyond the distribution's tails, and phi dies away like a bell: some 30
      roots are left, whatever m is. To leave an instance out is to divide by its factor.

    Args:
        logit_Gm: (..., m) logits of class 1.
        count_G: (...) integers, or one for all groups.
        mask_Gm: (..., m) True where there is an instance, False for padding; default: everywhere.

    Returns:
        w (..., m, 2), of which w_i1 sums to the count, and log P(z | x) (...).

    Raises:
        ValueError: a count below 0 or above the size of its group, or not an integer; an empty group; a logit
            that is not finite or beyond 1e6; shapes that don't fit.
    """
    logit_Gm, mask_Gm = _checked_logits(logit_Gm, mask_Gm)
    count_G = _per_group(count_G, logit_Gm)
    size_G = mask_Gm.sum(-1)
    if count_G.is_floating_point() or count_G.dtype == torch.bool:
        raise ValueError("a count must be an integer")
    if ((count_G < 0) | (count_G > size_G)).any():
        raise ValueError(f"a count lies outside 0..{int(size_G.max())}, the size of its group")

    # Counts 0 and m are reached at t = -inf and +inf only. There one labelling is left; the general way is
    # walked with a count in between, for its shape, and not used.
    edge_G = (count_G == 0) | (count_G == size_G)
    t_G = _tilt(logit_Gm, torch.minimum(count_G.double().clamp(min=0.5), size_G - 0.5), mask_Gm)
    tilted_Gm = logit_Gm + t_G[..., None]
    p_Gm = tilted_Gm.sigmoid().masked_fill(~mask_Gm, 0.0)
    q_Gm = (-tilted_Gm).sigmoid().masked_fill(~mask_Gm, 1.0)
    pb_G, fewer_Gm, equal_Gm = _poisson_binomial(p_Gm, q_Gm, count_G, size_G)
    one_Gm, zero_Gm = p_Gm * fewer_Gm, q_Gm * equal_Gm
    generated_Gm = one_Gm / (one_Gm + zero_Gm)
    all_or_none_Gm = (count_G > 0).double()[..., None].expand_as(logit_Gm)
    generated_Gm = torch.where(edge_G[..., None], all_or_none_Gm, generated_Gm)
    w_GmK = torch.stack([1.0 - generated_Gm, generated_Gm], dim=-1) * mask_Gm[..., None]

    # log PB(c; p) = log PB(c; tilted) - c t + sum_j (log q_j - log tilted q_j). Where the tilted label is
    # probably 1, log q + logit is put for log q on both sides, which takes one t off c t: no large terms.
    likely_Gm = (tilted_Gm > 0) & mask_Gm
    sign_Gm = torch.where(likely_Gm, 1.0, -1.0).double()
    change_Gm = F.logsigmoid(sign_Gm * logit_Gm) - F.logsigmoid(sign_Gm * tilted_Gm)
    rest_G = t_G * (count_G - likely_Gm.sum(-1))
    log_p_G = pb_G.log() + change_Gm.masked_fill(~mask_Gm, 0.0).sum(-1) - rest_G
    certain_Gm = F.logsigmoid(torch.where(count_G[..., None] > 0, logit_Gm, -logit_Gm))
    certain_G = certain_Gm.masked_fill(~mask_Gm, 0.0).sum(-1)
    return GroupWeights(w_GmK, torch.where(edge_G, certain_G, log_p_G))


def _tilt(logit_Gm: Tensor, mean_G: Tensor, mask_Gm: Tensor) -> Tensor:
    """(...) the t for which sum_i sigmoid(logit_i + t) is ``mean_G``, by bisection; 0 < mean < m."""
    size_G = mask_Gm.sum(-1)
    # At the lower end every term is at most mean/m, at the upper one at least that.
    odds_G = (mean_G / (size_G - mean_G)).log()
    low_G = odds_G - logit_Gm.masked_fill(~mask_Gm, -torch.inf).amax(-1)
    high_G = odds_G - logit_Gm.masked_fill(~mask_Gm, torch.inf).amin(-1)
    for _ in range(64):
        t_G = (low_G + high_G) / 2
        expected_G = ((logit_Gm + t_G[..., None]).sigmoid() * mask_Gm).sum(-1)
        below_G = expected_G < mean_G
        low_G, high_G = torch.where(below_G, t_G, low_G), torch.where(below_G, high_G, t_G)
    return (low_G + high_G) / 2


def _poisson_binomial(
    p_Gm: Tensor, q_Gm: Tensor, count_G: Tensor, size_G: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """PB(c; p) (...), and PB(c - 1; p without i) and PB(c; p without i) of each i (..., m).

    The errors are absolute, of some 1e-16: the count must be near the mean, as ``_tilt`` makes it. Padding
    has p = 0 and q = 1.
    """
    variance_G = (p_Gm * q_Gm).sum(-1)
    # Bernstein: P(|count - mean| >= r) <= 2 exp(-r^2 / (2 (variance + r/3))). The roots tell counts apart
    # modulo their number, so counts N away must be negligible, or not exist. Odd: theta is never pi, where
    # the factor of p = 1/2 vanishes.
    third = _NEGLIGIBLE / 3
    reach_G = third + (third**2 + 2 * _NEGLIGIBLE * variance_G).sqrt() + 2
    roots_G = torch.minimum(reach_G.ceil().long(), size_G + 1) // 2 * 2 + 1
    # |phi| <= exp(-2 variance sin^2(theta / 2)), and one instance has at most a variance of 1/4.
    half_angle_G = (_NEGLIGIBLE / (2 * (variance_G - 0.25))).sqrt()
    half_angle_G = torch.where(variance_G < 0.25 + _NEGLIGIBLE / 2, 1.0, half_angle_G).asin()
    used_G = torch.minimum((roots_G - 1) // 2, (half_angle_G * roots_G / math.pi).ceil().long())

    pb_G = torch.ones_like(variance_G)  # the root 1, at which phi = 1
    fewer_Gm, equal_Gm = torch.ones_like(p_Gm), torch.ones_like(p_Gm)
    unit_G = 2 * math.pi / roots_G.double()
    for k in range(1, int(used_G.max()) + 1):
        turn_G1 = torch.polar(torch.ones_like(unit_G), k * unit_G)[..., None]
        factor_Gm = q_Gm + p_Gm * turn_G1
        # Twice: the conjugate root adds the conjugate. The phase is reduced in integers, to stay exact.
        weight_G = (used_G >= k).double() * 2
        back_G = torch.polar(weight_G, -unit_G * (k * count_G % roots_G))
        phi_G = factor_Gm.prod(-1) * back_G
        others_Gm = phi_G[..., None] / factor_Gm
        pb_G += phi_G.real
        equal_Gm += others_Gm.real
        fewer_Gm += (others_Gm * turn_G1).real
    roots_G1 = roots_G[..., None]
    return pb_G / roots_G, fewer_Gm.clamp(min=0.0) / roots_G1, equal_Gm.clamp(min=0.0) / roots_G1


def _checked_logits(logit_Gm: Tensor, mask_Gm: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits in float64 with 0 for padding, and the mask."""
    if mask_Gm is None:
        mask_Gm = torch.ones_like(logit_Gm, dtype=torch.bool)
    if logit_Gm.ndim < 1 or mask_Gm.shape != logit_Gm.shape or mask_Gm.dtype != torch.bool:
        raise ValueError("logits must be (..., m), and a mask of bool of the same shape")
    if not mask_Gm.any(-1).all():
        raise ValueError("a group has no instance")
    logit_Gm = logit_Gm.double().masked_fill(~mask_Gm, 0.0)
    if not (logit_Gm.abs() <= _LARGEST_LOGIT).all():  # so written, NaN is refused too
        raise ValueError(f"a logit is not finite, or beyond {_LARGEST_LOGIT:g}")
    return logit_Gm, mask_Gm


def _per_group(value_G: Tensor | int, logit_Gm: Tensor) -> Tensor:
    value_G = torch.as_tensor(value_G, device=logit_Gm.device)
    if value_G.ndim and value_G.shape != logit_Gm.shape[:-1]:
        raise ValueError(f"observations {tuple(value_G.shape)} do not fit logits {tuple(logit_Gm.shape)}")
    return value_G.expand(logit_Gm.shape[:-1])


# -- pairs and triplets of any number of classes ------------------------------------------------------------


@torch.no_grad()
def weights_same(log_p_G2K: Tensor) -> GroupWeights:
    """A pair of the same class: w_ik = p_k q_k / S for both, P = S = sum_k p_k q_k.

    Args:
        log_p_G2K: (..., 2, K) log-probabilities or logits of a softmax.

    Returns:
        w (..., 2, K) and log P(z | x) (...).

    Raises:
        ValueError: another shape, K < 2, or an instance without a finite log-probability.
    """
    p_GK, q_GK = _checked_classes(log_p_G2K, 2).unbind(-2)
    both_GK = p_GK + q_GK
    return _normalised(both_GK, both_GK)


@torch.no_grad()
def weights_different(log_p_G2K: Tensor) -> GroupWeights:
    """A pair of two classes: w_1k = p_k (1 - q_k) / (1 - S), w_2k = q_k (1 - p_k) / (1 - S), P = 1 - S.

    Arguments, result and errors as of ``weights_same``.
    """
    p_GK, q_GK = _checked_classes(log_p_G2K, 2).unbind(-2)
    return _normalised(p_GK + _log_others(q_GK), q_GK + _log_others(p_GK))


@torch.no_grad()
def weights_triplet(log_p_G3K: Tensor) -> GroupWeights:
    """The first two (a, b) of the same class, the third (c) of another.

    w_a = w_b = a_k b_k (1 - c_k) / Z, w_c = c_k (sum_j a_j b_j - a_k b_k) / Z, with
    P = Z = sum_k a_k b_k (1 - c_k). Arguments, result and errors as of ``weights_same``, with 3 for 2.
    """
    a_GK, b_GK, c_GK = _checked_classes(log_p_G3K, 3).unbind(-2)
    both_GK = a_GK + b_GK
    pair_GK = both_GK + _log_others(c_GK)
    return _normalised(pair_GK, pair_GK, c_GK + _log_others(both_GK))


@torch.no_grad()
def weights_rank(log_p_G2K: Tensor) -> GroupWeights:
    """The first (a) of a higher class than the second (b).

    w_ak = a_k P(b < k) / Z, w_bk = b_k P(a > k) / Z, P = Z = sum_k a_k P(b < k). Arguments, result and errors
    as of ``weights_same``.
    """
    a_GK, b_GK = _checked_classes(log_p_G2K, 2).unbind(-2)
    return _normalised(a_GK + _log_before(b_GK), b_GK + _log_before(a_GK.flip(-1)).flip(-1))


def _checked_classes(log_p_GmK: Tensor, size: int | None = None) -> Tensor:
    """Log-probabilities in float64, normalised: that also serves logits, and float32's rounding."""
    if log_p_GmK.ndim < 2 or log_p_GmK.shape[-1] < 2 or size not in (None, log_p_GmK.shape[-2]):
        raise ValueError(
            f"shape {tuple(log_p_GmK.shape)}: expected (..., {size or 'm'}, K) with K of 2 or more"
        )
    log_p_GmK = log_p_GmK.double()
    if not log_p_GmK.amax(-1).isfinite().all():  # +inf and NaN come out of the maximum, as does a row of -inf
        raise ValueError("an instance has a log-probability of NaN or infinity, or no class that is possible")
    return log_p_GmK.log_softmax(-1)


def _log_before(x_GK: Tensor) -> Tensor:
    """(..., K) log sum_{j < k} exp(x_j)."""
    return F.pad(x_GK.logcumsumexp(-1)[..., :-1], (1, 0), value=-torch.inf)


def _log_others(x_GK: Tensor) -> Tensor:
    """(..., K) log sum_{j != k} exp(x_j); 1 - p_k without cancellation."""
    return torch.logaddexp(_log_before(x_GK), _log_before(x_GK.flip(-1)).flip(-1))


def _normalised(*joint_GK: Tensor) -> GroupWeights:
    """From log P(y_i = k, z | x) of each instance; all have the same sum, P(z | x)."""
    joint_GmK = torch.stack(joint_GK, dim=-2)
    log_p_G = joint_GmK[..., 0, :].logsumexp(-1)
    # Each instance by its own sum, so that its weights sum to 1 to the last digit.
    w_GmK = joint_GmK.softmax(-1)
    return GroupWeights(torch.where(log_p_G[..., None, None] == -torch.inf, 0.0, w_GmK), log_p_G)


# -- any observation of a small group -----------------------------------------------------------------------


@torch.no_grad()
def weights_enumerated(log_p_GmK: Tensor, consistent: Callable[[tuple[int, ...]], bool]) -> GroupWeights:
    """Any observation, by going through all K^m labellings.

    Args:
        log_p_GmK: (..., m, K) log-probabilities or logits of a softmax; K^m up to 65,536.
        consistent: whether a labelling (y_1, .., y_m) agrees with what was seen: T(y) = z.

    Returns:
        w (..., m, K) and log P(z | x) (...).

    Raises:
        ValueError: no labelling is consistent, there are too many, a wrong shape, or an instance without a
            finite log-probability.
    """
    log_p_GmK = _checked_classes(log_p_GmK)
    m, classes = log_p_GmK.shape[-2:]
    if m == 0 or m * math.log(classes) > math.log(_MOST_LABELLINGS) + 1e-9:
        raise ValueError(f"{classes}^{m} labellings: a group is enumerated up to {_MOST_LABELLINGS} of them")
    labellings = [y for y in itertools.product(range(classes), repeat=m) if consistent(y)]
    if not labellings:
        raise ValueError("the observation is impossible: no labelling is consistent with it")
    label_mL = torch.tensor(labellings, device=log_p_GmK.device).T
    joint_GL = sum(
        (log_p_GmK[..., i, :].index_select(-1, label_mL[i]) for i in range(m)),
        start=torch.zeros((), dtype=torch.float64, device=log_p_GmK.device),
    )
    log_p_G = joint_GL.logsumexp(-1)
    posterior_GL = torch.where(log_p_G[..., None] == -torch.inf, 0.0, joint_GL.softmax(-1))
    w_GmK = torch.zeros_like(log_p_GmK)
    for i in range(m):
        w_GmK[..., i, :].index_add_(-1, label_mL[i], posterior_GL)
    return GroupWeights(w_GmK, log_p_G)


# -- manifests ----------------------------------------------------------------------------------------------


_SIZES = {"same": 2, "different": 2, "triplet": 3, "rank": 2}


@dataclass(frozen=True, slots=True)
class Observation:
    """A group line of a manifest: what is known of some videos together.

    Raises:
        ValueError: an unknown kind, or a group or value that does not fit the kind.
    """

    paths: tuple[Path, ...]
    """In the manifest's order, which matters to ``triplet`` and ``rank``."""
    kind: ObservationKind
    value: int | None = None
    """``any``: 1 or 0, whether any is generated; ``count``: how many are; else None."""
    split: str = "train"
    facts: dict[str, Any] = field(default_factory=dict, compare=False)
    """The whole line."""

    def __post_init__(self) -> None:
        size = len(self.paths)
        if self.kind not in get_args(ObservationKind):
            raise ValueError(f"the kind must be one of {', '.join(get_args(ObservationKind))}")
        if not size or len(set(self.paths)) < size:
            raise ValueError("a group must name its videos, each once")
        if size != _SIZES.get(self.kind, size):
            raise ValueError(f"kind {self.kind} takes a group of {_SIZES[self.kind]}, not of {size}")
        largest = {"any": 1, "count": size}.get(self.kind)
        if largest is None and self.value is not None:
            raise ValueError(f"kind {self.kind} takes no value")
        if largest is not None and (self.value is None or not 0 <= self.value <= largest):
            raise ValueError(f"the value of kind {self.kind} lies in 0..{largest}, for a group of {size}")


def weights_for(observation: Observation, logit_Gm: Tensor) -> GroupWeights:
    """The weights (..., m, 2) of the observation's members, from the logits (..., m) of "generated".

    Raises:
        ValueError: another number of logits than of members, or logits that the kind's function refuses.
    """
    if logit_Gm.shape[-1:] != (len(observation.paths),):
        raise ValueError(f"{tuple(logit_Gm.shape)} logits for a group of {len(observation.paths)}")
    match observation.kind:
        case "any":
            return weights_any(logit_Gm, bool(observation.value))
        case "count":
            return weights_count(logit_Gm, observation.value or 0)
        case "same":
            return weights_same(log_probabilities(logit_Gm.double()))
        case "different":
            return weights_different(log_probabilities(logit_Gm.double()))
        case "triplet":
            return weights_triplet(log_probabilities(logit_Gm.double()))
        case "rank":
            return weights_rank(log_probabilities(logit_Gm.double()))


def read_observations(*manifests: Path, split: str | None = None) -> list[Observation]:
    """The group lines of manifests (design, section 3), optionally of one split.

    ``{"group": [paths...], "observation": {"kind": ...}}``, paths relative to the manifest. Kinds: ``any``
    (``"value"``: true, the default, or false), ``count`` (``"value"``: how many are generated), and of exact
    sizes ``same`` and ``different`` (2), ``triplet`` (3: the first two the same, the third other), ``rank``
    (2: the first is generated, the second is not).

    Raises:
        SpecSemError: a line that is no JSON object, an unknown kind or field, or a group or value that does
            not fit the kind. The message names the manifest and the line.
    """
    observations = []
    for manifest in manifests:
        for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("not a JSON object")
                if "group" in row and split in (None, row.get("split")):
                    observations.append(_observation(row, manifest.parent))
            except ValueError as error:  # JSONDecodeError is one
                raise SpecSemError(f"{manifest.name}, line {number}: {error}") from error
    return observations


def _observation(row: dict[str, Any], folder: Path) -> Observation:
    group, seen = row["group"], row.get("observation")
    if not isinstance(group, list) or not all(isinstance(path, str) and path for path in group):
        raise ValueError("group must be a list of paths")
    if not isinstance(seen, dict):
        raise ValueError("observation must be an object with a kind")
    unknown = seen.keys() - {"kind", "value"}
    if unknown:
        raise ValueError(f"an observation has no field {', '.join(sorted(unknown))}")
    kind = seen.get("kind")
    value = seen.get("value", True if kind == "any" else None)
    if value is not None and type(value) is not (bool if kind == "any" else int):
        raise ValueError("the value of kind any is true or false, that of kind count an integer")
    return Observation(
        paths=tuple(folder / path for path in group),
        kind=cast("ObservationKind", kind),
        value=None if value is None else int(value),
        split=row.get("split", "train"),
        facts=row,
    )
