"""Fits the semantic heads: what is shown, as the frozen tower sees it, weighed beside the spectral logit.

A head is a logistic regression on the tower's features: with a few hundred clips a convex fit with a strong
ridge does better than a trained net. Each fold's network gets the head of the other folds' clips, and the two
logits are weighed by clips that neither the head nor the network has seen.

Source: Ojha et al., "Towards Universal Fake Image Detectors that Generalize Across Generative Models" (CVPR
2023): a linear layer on frozen features; method, section 2, finding 7 for calibrating apart from training.

Shape letters: N scored files, D features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler
from torch import nn

from specsem.errors import SpecSemError
from specsem.evaluation.files import FileScore
from specsem.model import SpecSemNet
from specsem.training.data import balanced_weights

__all__ = [
    "MIN_FOLDS_OF_HEADS",
    "STRENGTHS",
    "SemanticHead",
    "apply_heads",
    "fit_semantic_heads",
    "shown_features",
]

Floats = npt.NDArray[np.float64]
STRENGTHS = (1.0, 3.0, 10.0, 30.0)
"""Inverse ridges to choose from, for the mean loss, by the AUC of clips that are left out."""
INNER_FOLDS = 4
MIN_FOLDS_OF_HEADS = 3


@dataclass(frozen=True, slots=True, eq=False)
class SemanticHead:
    """``gain * spectral logit + weight_D . shown_D + bias``."""

    gain: float
    weight_D: Floats
    bias: float

    def apply(self, score: FileScore) -> FileScore:
        """The same file as the network scores it with this head in it."""
        windows = []
        for window in score.windows:
            spectral = window.logit - window.semantic_logit
            semantic = float(self.weight_D @ window.shown_D) + self.bias
            windows.append(replace(window, logit=self.gain * spectral + semantic, semantic_logit=semantic))
        return replace(score, windows=windows)

    def install(self, net: SpecSemNet) -> None:
        """Put it into a network of one member whose head has said nothing so far."""
        branch = net.branches[0]
        last, head = branch.head, branch.semantic_head
        assert isinstance(last, nn.Linear)  # noqa: S101
        assert isinstance(head, nn.Linear)  # noqa: S101
        with torch.no_grad():
            last.weight.mul_(self.gain)
            last.bias.mul_(self.gain)
            head.weight.copy_(torch.from_numpy(self.weight_D)[None])
            head.bias.fill_(self.bias)


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
    unseen = {strength: np.zeros(len(scores)) for strength in STRENGTHS}
    for inside, outside in GroupKFold(INNER_FOLDS).split(shown_ND, generated_N, group_N):
        for strength, logit_N in unseen.items():
            weight_D, bias = _ridge(shown_ND[inside], generated_N[inside], weight_N[inside], strength)
            logit_N[outside] = shown_ND[outside] @ weight_D + bias
    best = max(STRENGTHS, key=lambda strength: roc_auc_score(generated_N, unseen[strength]))
    spectral_N = np.array([np.mean([w.logit - w.semantic_logit for w in s.windows]) for s in scores])
    both_N2 = np.stack([spectral_N, unseen[best]], axis=1)
    mix = LogisticRegression(C=1e3).fit(both_N2, generated_N, sample_weight=weight_N)
    gain, share = np.maximum(mix.coef_[0], 0.0)
    weight_D, bias = _ridge(shown_ND, generated_N, weight_N, best)
    return SemanticHead(float(gain), share * weight_D, float(share * bias + mix.intercept_[0]))


def _ridge(
    shown_ND: Floats, generated_N: npt.NDArray[np.bool_], weight_N: Floats, strength: float
) -> tuple[Floats, float]:
    """Weights and bias on the features as they are; the ridge is on standardised ones."""
    scaler = StandardScaler().fit(shown_ND)
    fitted = LogisticRegression(C=strength / len(shown_ND), max_iter=1000).fit(
        scaler.transform(shown_ND), generated_N, sample_weight=weight_N
    )
    weight_D: Floats = fitted.coef_[0] / scaler.scale_
    return weight_D, float(fitted.intercept_[0] - weight_D @ scaler.mean_)


def apply_heads(scores: Sequence[FileScore], heads: Mapping[str, SemanticHead]) -> list[FileScore]:
    """Each file's score with its fold's head."""
    return [heads[score.fold].apply(score) for score in scores]
