"""Fits the semantic heads: what is shown, as the frozen tower sees it, weighed beside the spectral logit.

A head is a support vector machine on the tower's features: with a few hundred clips a convex fit does better
than a trained net. Each fold's network gets the head of the other folds' clips, and the two logits are
weighed by clips that neither the head nor the network has seen.

Source: Ojha et al., "Towards Universal Fake Image Detectors that Generalize Across Generative Models" (CVPR
2023): a plain classifier on frozen features; method, section 2, finding 7: calibrating apart from training.

Shape letters: N scored files, D features, S support vectors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from specsem.errors import SpecSemError
from specsem.evaluation.files import FileScore
from specsem.model import SpecSemNet
from specsem.semantic import KernelHead
from specsem.training.data import balanced_weights
from specsem.training.export import reconfigured

__all__ = [
    "MIN_FOLDS_OF_HEADS",
    "SemanticHead",
    "apply_heads",
    "fit_semantic_heads",
    "shown_features",
]

Floats = npt.NDArray[np.float64]
GAMMA = 0.3
"""Of the kernel ``exp(-gamma |x - y|_1 / D)`` on features of deviation 1; .6 and 1 do about as well."""
PENALTY = 20.0
"""Of a clip on the wrong side of its margin. So many features keep the classes apart: more is the same."""
INNER_FOLDS = 4
MIN_FOLDS_OF_HEADS = 3


@dataclass(frozen=True, slots=True, eq=False)
class SemanticHead:
    """``gain * spectral logit + a kernel machine of what is shown`` (``specsem.semantic.KernelHead``)."""

    gain: float
    scale_D: Floats
    support_SD: npt.NDArray[np.float16]
    """Features divided by their scale, of the clips that carry it."""
    alpha_S: Floats
    gamma: float
    bias: float

    def apply(self, score: FileScore) -> FileScore:
        """The same file as the network scores it with this head in it."""
        shown_WD = np.array([w.shown_D for w in score.windows], np.float64).reshape(-1, len(self.scale_D))
        distance_WS = _distance(shown_WD / self.scale_D, self.support_SD)
        semantic_W = np.exp(-self.gamma * distance_WS) @ self.alpha_S + self.bias
        windows = []
        for window, semantic in zip(score.windows, semantic_W.tolist(), strict=True):
            spectral = window.logit - window.semantic_logit
            windows.append(replace(window, logit=self.gain * spectral + semantic, semantic_logit=semantic))
        return replace(score, windows=windows)

    def installed(self, net: SpecSemNet, supports: int) -> SpecSemNet:
        """A network of one member whose head has said nothing so far, with this one in it, filled up to so
        many support vectors by ones that count nothing."""
        net = reconfigured(net, net.config.variant(semantic_supports=supports))
        branch = net.branches[0]
        last, head = branch.head, branch.semantic_head
        assert isinstance(last, nn.Linear)  # noqa: S101
        assert isinstance(head, KernelHead)  # noqa: S101
        own = len(self.alpha_S)
        with torch.no_grad():
            last.weight.mul_(self.gain)
            last.bias.mul_(self.gain)
            head.scale_D.copy_(torch.from_numpy(self.scale_D))
            head.support_SD[:own].copy_(torch.from_numpy(self.support_SD))
            head.alpha_S[:own].copy_(torch.from_numpy(self.alpha_S))
            head.gamma.fill_(self.gamma)
            head.bias.fill_(self.bias)
        return net


def shown_features(scores: Sequence[FileScore]) -> Floats:
    """What the semantic head sees of each file, the mean of its windows: (N, D)."""
    return np.array([np.mean([w.shown_D for w in s.windows], axis=0) for s in scores], np.float64)


def fit_semantic_heads(scores: Sequence[FileScore]) -> dict[str, SemanticHead]:
    """A head for each fold's network, from the scores of the other folds' files.

    ``scores`` come from networks whose heads say nothing yet. A file may be there under several conditions.

    Raises:
        SpecSemError: the scores are of fewer than three folds, or hold no features.
    """
    usable = [s for s in scores if s.windows]
    folds = sorted({s.fold for s in usable})
    if len(folds) < MIN_FOLDS_OF_HEADS:
        raise SpecSemError(f"Semantic heads are fitted to scores of {MIN_FOLDS_OF_HEADS} folds or more.")
    if not usable[0].windows[0].shown_D.size:
        raise SpecSemError("These scores hold no semantic features.")
    return {fold: _fit([s for s in usable if s.fold != fold]) for fold in folds}


def _fit(scores: Sequence[FileScore]) -> SemanticHead:
    shown_ND = shown_features(scores)
    generated_N = np.array([s.item.generated for s in scores])
    weight_N = balanced_weights([s.item for s in scores])
    weight_N = weight_N / weight_N.mean()
    group_N = np.array([f"{s.item.generated} {s.item.group}" for s in scores])
    scale_D = StandardScaler().fit(shown_ND).scale_
    support_ND = (shown_ND / scale_D).astype(np.float16)  # as it is kept
    kernel_NN = np.exp(-GAMMA * _distance(support_ND, support_ND))
    machine = SVC(C=PENALTY, kernel="precomputed")

    unseen_N = np.zeros(len(scores))
    for inside, outside in GroupKFold(INNER_FOLDS).split(shown_ND, generated_N, group_N):
        machine.fit(kernel_NN[np.ix_(inside, inside)], generated_N[inside], weight_N[inside])
        unseen_N[outside] = machine.decision_function(kernel_NN[np.ix_(outside, inside)])
    spectral_N = np.array([np.mean([w.logit - w.semantic_logit for w in s.windows]) for s in scores])
    both_N2 = np.stack([spectral_N, unseen_N], axis=1)
    mix = LogisticRegression(C=1e3).fit(both_N2, generated_N, sample_weight=weight_N)
    gain, share = np.maximum(mix.coef_[0], 0.0)
    machine.fit(kernel_NN, generated_N, weight_N)
    return SemanticHead(
        gain=float(gain),
        scale_D=scale_D,
        support_SD=support_ND[machine.support_],
        alpha_S=share * machine.dual_coef_[0],
        gamma=GAMMA,
        bias=float(share * machine.intercept_[0] + mix.intercept_[0]),
    )


def _distance(x_ND: npt.NDArray[Any], y_SD: npt.NDArray[Any]) -> Floats:
    """Mean absolute difference over the features: (N, S)."""
    distance_NS: Floats = cdist(x_ND.astype(np.float64), y_SD.astype(np.float64), "cityblock") / x_ND.shape[1]
    return distance_NS


def apply_heads(scores: Sequence[FileScore], heads: Mapping[str, SemanticHead]) -> list[FileScore]:
    """Each file's score with its fold's head."""
    return [heads[score.fold].apply(score) for score in scores]
