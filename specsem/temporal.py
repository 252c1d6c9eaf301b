"""Frames to clip: (B, T, D) features of T frames in a row -> (B, D).

Source: SpecSem-Net (arXiv 2605.17311), head: a temporal transformer with 8 heads and a 4x feed-forward; its
depth is not stated (the stated cost fits 2 to 4). ``mean`` and ``conv`` are ablations.
"""

from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["TemporalHead", "TemporalKind"]

TemporalKind = Literal["transformer", "mean", "conv"]


class TemporalHead(nn.Module):
    """See the module. ``frames`` is the longest T; shorter clips use the first positions."""

    def __init__(
        self,
        kind: TemporalKind,
        width: int,
        *,
        depth: int = 2,
        heads: int = 8,
        frames: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.kind = kind
        if kind == "transformer":
            self.position = nn.Parameter(torch.zeros(frames, width))
            nn.init.trunc_normal_(self.position, std=0.02)
            layer = nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
            self.norm = nn.LayerNorm(width)
        elif kind == "conv":
            self.conv = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, D)."""
        match self.kind:
            case "transformer":
                y_BTD = self.encoder(x_BTD + self.position[: x_BTD.shape[1]])
                y_BD: Tensor = self.norm(y_BTD).mean(dim=1)
                return y_BD
            case "conv":
                y_BDT = nn.functional.gelu(self.conv(x_BTD.transpose(1, 2)))
                return x_BTD.mean(dim=1) + y_BDT.mean(dim=-1)
            case _:
                return x_BTD.mean(dim=1)
