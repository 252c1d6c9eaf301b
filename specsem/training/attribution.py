"""Fits the head that names families of generators, and measures how good it is on sources it has not seen.

Nearest class mean in whitened principal components of what the frozen semantic tower sees. Each source is
left out once: what the head then says of its clips, many of a family that it doesn't know, calibrates the
probability of each family and of none.

Shape letters: N files, D features, Q components, K families, L families and none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from specsem.attribution import NAMED_FROM, Attributor
from specsem.errors import SpecSemError
from specsem.evaluation.files import FileScore
from specsem.training.semantic_head import shown_features

__all__ = ["MIN_CLIPS", "MIN_SOURCES", "AttributionFigures", "fit_attributor"]

Floats = npt.NDArray[np.float64]

MIN_CLIPS = 10
MIN_SOURCES = 2
"""Of a family that is known: from one source alone nobody could tell the family from the source."""
COMPONENTS = 48


@dataclass(frozen=True, slots=True)
class AttributionFigures:
    """How good guesses were on clips of sources that the head had not seen."""

    clips: int
    sources: int
    families: int
    known_families: int
    guessable: int
    """Clips whose family the head knew from other sources."""
    guessable_right: int
    """Of those, how many are nearest to their own family."""
    named: int
    """Clips for which a family was likelier than all else."""
    named_right: int

    @property
    def sentence(self) -> str:
        """For people."""
        guessed = f"{self.guessable_right} of {self.guessable} clips of known families were nearest to theirs"
        named = (
            f"a family was named for {self.named} of {self.clips} clips, rightly for {self.named_right}"
            if self.named
            else f"no family was likely enough to be named for any of {self.clips} clips"
        )
        return f"On sources it had not seen, {guessed}, and {named}."


def fit_attributor(scores: Sequence[FileScore]) -> tuple[Attributor, AttributionFigures]:
    """A head from the scores of generated files as they were delivered; others are passed over.

    Raises:
        SpecSemError: they hold no features, or fewer than two families of enough clips and sources.
    """
    usable = [s for s in scores if s.windows and s.item.generated and s.condition == "as-is"]
    if not usable or not usable[0].windows[0].shown_D.size:
        raise SpecSemError("These scores hold no semantic features of generated clips.")
    shown_ND = shown_features(usable)
    family_N = np.array([s.item.group for s in usable])
    source_N = np.array([s.item.source for s in usable])
    families = _known(family_N, source_N)
    if len(families) < 2:
        raise SpecSemError(
            f"Fewer than two families have {MIN_CLIPS} clips or more from {MIN_SOURCES} sources or more."
        )
    cosine_NK = np.full((len(usable), len(families)), -np.inf)  # of a family that was left out: never
    truth_N = np.full(len(usable), -1)
    for source in sorted(set(source_N)):
        out_N = source_N == source
        head = _nearest_means(shown_ND[~out_N], family_N[~out_N], families)
        at = [families.index(name) for name in head.families]
        for n in np.flatnonzero(out_N):
            cosine_NK[n, at] = head.cosines(shown_ND[n])
            if family_N[n] in head.families:
                truth_N[n] = families.index(family_N[n])
    sharpness, unknown = _calibrate(cosine_NK, truth_N)
    log_NL = _log_probabilities(cosine_NK, sharpness, unknown)
    named_N = np.exp(log_NL[:, :-1]).max(1) >= NAMED_FROM
    right_N = cosine_NK.argmax(1) == truth_N
    known_N = truth_N >= 0
    figures = AttributionFigures(
        clips=len(usable),
        sources=len(set(source_N)),
        families=len(set(family_N)),
        known_families=len(families),
        guessable=int(known_N.sum()),
        guessable_right=int((right_N & known_N).sum()),
        named=int(named_N.sum()),
        named_right=int((named_N & right_N).sum()),
    )
    head = _nearest_means(
        shown_ND,
        family_N,
        families,
        sharpness=sharpness,
        unknown=unknown,
        basis=figures.sentence,
    )
    return head, figures


def _known(family_N: npt.NDArray[np.str_], source_N: npt.NDArray[np.str_]) -> tuple[str, ...]:
    return tuple(
        str(family)
        for family in sorted(set(family_N))
        if (family_N == family).sum() >= MIN_CLIPS and len(set(source_N[family_N == family])) >= MIN_SOURCES
    )


def _nearest_means(
    shown_ND: Floats,
    family_N: npt.NDArray[np.str_],
    families: Sequence[str],
    *,
    sharpness: float = 1.0,
    unknown: float = 0.0,
    basis: str = "",
) -> Attributor:
    """Of those families that are there. Clips of all families say in which directions clips differ."""
    mean_D, deviation_D = shown_ND.mean(0), shown_ND.std(0) + 1e-6
    standard_ND = (shown_ND - mean_D) / deviation_D
    variance_N, across_NN = np.linalg.eigh(standard_ND @ standard_ND.T)  # clips are fewer than features
    kept = min(COMPONENTS, int((variance_N > 1e-9 * variance_N[-1]).sum()))
    largest = slice(None, -kept - 1, -1)
    whiten_DQ = standard_ND.T @ across_NN[:, largest] / variance_N[largest] * np.sqrt(len(shown_ND))
    project_DQ = whiten_DQ / deviation_D[:, None]
    offset_Q = mean_D @ project_DQ
    present = tuple(family for family in families if family in family_N)
    own_NQ = shown_ND @ project_DQ - offset_Q
    mean_KQ = np.array([own_NQ[family_N == family].mean(0) for family in present])
    mean_KQ /= np.linalg.norm(mean_KQ, axis=1, keepdims=True)
    return Attributor(present, project_DQ, offset_Q, mean_KQ, sharpness, unknown, basis)


def _log_probabilities(cosine_NK: Floats, sharpness: float, unknown: float) -> Floats:
    logit_NL = np.append(sharpness * cosine_NK, np.full((len(cosine_NK), 1), unknown), axis=1)
    log_NL: Floats = logit_NL - np.logaddexp.reduce(logit_NL, axis=1, keepdims=True)
    return log_NL


def _calibrate(cosine_NK: Floats, truth_N: npt.NDArray[np.int_]) -> tuple[float, float]:
    """Sharpness and the logit of none, by maximum likelihood. A truth of -1 is none."""

    def loss(parameters: Floats) -> float:
        log_NL = _log_probabilities(cosine_NK, float(np.exp(parameters[0])), float(parameters[1]))
        return -float(log_NL[np.arange(len(truth_N)), truth_N].mean())

    fitted = minimize(loss, np.zeros(2), method="Nelder-Mead")
    return float(np.exp(fitted.x[0])), float(fitted.x[1])
