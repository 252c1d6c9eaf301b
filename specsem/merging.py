"""The gated merging mechanism: semantics opens or closes spectral evidence, and is never changed itself.

Source: SpecSem-Net (arXiv 2605.17311): ``g = sigmoid(MLP([sem; spec]))``, ``spec <- spec * (1 + g)`` at every
layer. The variants are those of its ablation and two controls.

Shape letters: ``...`` any batch, L tokens (or places of a feature map), D width.
"""

from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Merging", "MergingKind"]

MergingKind = Literal["gate", "suppress", "concat", "spectral-only", "semantic-only"]


class _Pair(nn.Module):
    """A linear map of the concatenation [sem; spec], kept as two maps and their sum.

    The same function as ``Linear(cat([sem, spec]))``; but semantics that stand for several frames (a batch
    dimension of size 1) are mapped once.
    """

    def __init__(self, sem_width: int, spec_width: int, out_width: int) -> None:
        super().__init__()
        joint = nn.Linear(sem_width + spec_width, out_width)  # initialised as the joint map would be
        self.sem = nn.Linear(sem_width, out_width)
        self.spec = nn.Linear(spec_width, out_width, bias=False)
        with torch.no_grad():
            self.sem.weight.copy_(joint.weight[:, :sem_width])
            self.sem.bias.copy_(joint.bias)
            self.spec.weight.copy_(joint.weight[:, sem_width:])

    def forward(self, seen_LD: Tensor, spec_LD: Tensor) -> Tensor:
        """``seen_LD`` is what ``sem`` made of the semantic features."""
        y_LD: Tensor = self.spec(spec_LD) + seen_LD
        return y_LD


class Merging(nn.Module):
    """One merging layer: (..., D_sem) semantic and (..., D_spec) spectral features -> (..., D_spec).

    ``gate``: spec * (1 + g), amplifies only. ``suppress``: spec * 2g, may also close. ``concat``: spec plus a
    linear map of both. ``spectral-only``: spec. ``semantic-only``: a linear map of sem.

    The last layer starts at weight 0 and bias ``gate_bias``: with a default start, (1 + g) would multiply the
    stream by about 1.5 a layer, 130-fold over 12 layers.
    """

    def __init__(
        self, kind: MergingKind, sem_width: int, spec_width: int, hidden: int, gate_bias: float = -4.0
    ) -> None:
        super().__init__()
        self.kind = kind
        if kind in ("gate", "suppress"):
            self.pair = _Pair(sem_width, spec_width, hidden)
            self.last = nn.Linear(hidden, spec_width)
            nn.init.zeros_(self.last.weight)
            nn.init.constant_(self.last.bias, gate_bias if kind == "gate" else 0.0)
        elif kind == "concat":
            self.pair = _Pair(sem_width, spec_width, spec_width)
            for parameter in self.pair.parameters():
                nn.init.zeros_(parameter)
        elif kind == "semantic-only":
            self.last = nn.Linear(sem_width, spec_width)

    def project(self, sem_LD: Tensor) -> Tensor:
        """What a merge takes of the semantics: a linear map of them, (..., D_sem) -> (..., hidden).

        Being linear (and affine interpolation commuting with it), it may be taken before they are sampled at
        more places than they were made for, which costs a fraction.
        """
        match self.kind:
            case "spectral-only":
                return sem_LD
            case "semantic-only":
                projected_LD: Tensor = self.last(sem_LD)
            case _:
                projected_LD = self.pair.sem(sem_LD)
        return projected_LD

    def gate(self, sem_LD: Tensor, spec_LD: Tensor) -> Tensor:
        """g in 0..1, of the shape of ``spec_LD``: the evidence map of this layer."""
        return self._gate(self.project(sem_LD), spec_LD)

    def _gate(self, seen_LD: Tensor, spec_LD: Tensor) -> Tensor:
        return torch.sigmoid(self.last(nn.functional.gelu(self.pair(seen_LD, spec_LD))))

    def forward(self, sem_LD: Tensor, spec_LD: Tensor) -> Tensor:
        """See the class."""
        return self.merge(self.project(sem_LD), spec_LD)[0]

    def merge(self, seen_LD: Tensor, spec_LD: Tensor) -> tuple[Tensor, Tensor | None]:
        """What ``forward`` gives, and the gate, where the kind has one; of semantics that are projected."""
        match self.kind:
            case "gate":
                g_LD = self._gate(seen_LD, spec_LD)
                return torch.addcmul(spec_LD, spec_LD, g_LD), g_LD
            case "suppress":
                g_LD = self._gate(seen_LD, spec_LD)
                return spec_LD * (2.0 * g_LD), g_LD
            case "concat":
                y_LD: Tensor = spec_LD + self.pair(seen_LD, spec_LD)
                return y_LD, None
            case "semantic-only":
                return seen_LD.expand_as(spec_LD), None
            case "spectral-only":
                return spec_LD, None
