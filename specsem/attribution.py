"""Which family of generators a generated clip looks like: the nearest mean, or none that is known.

The head is fitted by ``specsem.training.attribution`` to what the frozen semantic tower sees; its
probabilities are calibrated on clips of sources that it had not seen, many of families that it doesn't know.

Shape letters: D features, Q principal components, K families.
"""

import json
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from specsem.registry import ModelRecord
from specsem.result import Attribution, Family

__all__ = ["HEAD_FILE", "NAMED_FROM", "TENSORS_FILE", "UNKNOWN", "Attributor"]

Floats = npt.NDArray[np.floating[Any]]

HEAD_FILE = "attribution.json"
TENSORS_FILE = "attribution.safetensors"
UNKNOWN = "unknown"
NAMED_FROM = 0.5
"""A family is named where it is likelier than all else together."""
CANDIDATES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Attributor:
    """See the module."""

    families: tuple[str, ...]
    project_DQ: Floats
    """To principal components of unit variance."""
    offset_Q: Floats
    mean_KQ: Floats
    """Of each family's clips, of unit length."""
    sharpness: float
    unknown: float
    """The logit of none of them, beside ``sharpness`` times the cosines."""
    basis: str
    """How good its guesses were on clips of unseen sources, in figures."""

    @classmethod
    def load(cls, record: ModelRecord) -> Self | None:
        """The head of a model; None where it has none, or one that was fitted to other weights.

        Raises:
            WeightsCorrupt: a checksum is wrong.
        """
        head, tensors = record.verified_file(HEAD_FILE), record.verified_file(TENSORS_FILE)
        if head is None or tensors is None:
            return None
        fields = json.loads(head.read_text(encoding="utf-8"))
        if fields["weights_sha256"] != record.sha256:
            return None
        arrays = {name: array.astype(np.float32) for name, array in load_file(tensors).items()}
        return cls(
            families=tuple(fields["families"]),
            sharpness=fields["sharpness"],
            unknown=fields["unknown"],
            basis=fields["basis"],
            **arrays,
        )

    def cosines(self, shown_D: Floats) -> Floats:
        """How alike what the tower saw (``WindowScore.shown_D``, the mean of a file's) is to each family."""
        own_Q = shown_D @ self.project_DQ - self.offset_Q
        cosine_K: Floats = self.mean_KQ @ own_Q / max(float(np.linalg.norm(own_Q)), 1e-9)
        return cosine_K

    def guess(self, shown_D: Floats) -> Attribution:
        """The family, given that the clip is generated."""
        logits = np.append(self.sharpness * self.cosines(shown_D), self.unknown)
        odds = np.exp(logits - logits.max())
        *likely, none = (odds / odds.sum()).tolist()
        ranked = sorted(zip(likely, self.families, strict=True), reverse=True)[:CANDIDATES]
        candidates = [Family(name=name, probability=round(p, 4)) for p, name in ranked]
        best = candidates[0]
        named = best.probability >= NAMED_FROM
        return Attribution(
            family=best.name if named else UNKNOWN,
            probability=best.probability if named else round(none, 4),
            candidates=candidates,
            basis=self.basis,
        )
