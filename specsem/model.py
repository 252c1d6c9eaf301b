"""SpecSemNet: a spectral branch on the high-pass residual, gated layer by layer by a frozen semantic twin.

Source: SpecSem-Net (arXiv 2605.17311). Two shapes of it come from one config:

- ``spectral="tower"``: as published. Both branches are the same CLIP tower on the same resized frame; token
  by token, layer by layer, the semantic tower gates the spectral one.
- ``spectral="conv"``: compact. The spectral branch is a small convolutional net on native-resolution crops;
  each of its stages is gated by the semantic tokens that lie under the crop.

Shape letters: B windows, T frames, N crops of a frame, C colours, H height, W width, L tokens (class token
first), D width, h and w the sides of a feature map.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from specsem.media import SamplePlan
from specsem.merging import Merging, MergingKind
from specsem.semantic import KernelHead, build_tower, embed, freeze, layers, tokens_after_layers
from specsem.spectral import ConvStage, SpectralStem, full_precision, high_pass, normalize_residual
from specsem.temporal import TemporalHead, TemporalKind

__all__ = ["Judgement", "SpecSemConfig", "SpecSemNet", "TowerConfig", "motion_image"]

Pooling = Literal["mean", "mean-std", "cls"]


@dataclass(frozen=True, slots=True)
class TowerConfig:
    """An open_clip vision transformer. The default is CLIP ViT-B/32."""

    image_size: int = 224
    patch_size: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    output_dim: int = 512
    quick_gelu: bool = True
    no_ln_pre: bool = False
    """Without the norm that CLIP has before its first block: as the ImageNet ViT that teaches a small one."""


@dataclass(frozen=True, slots=True)
class SpecSemConfig:
    """Everything that fixes the computation. The defaults are the published architecture."""

    spectral: Literal["tower", "conv"] = "tower"
    semantic: TowerConfig = TowerConfig()
    merging: MergingKind = "gate"
    gate_hidden: int = 384
    """The paper's stated cost fits 1536 -> 384 -> 768 a token."""
    gate_bias: float = -4.0
    semantic_dropout: float = 0.0
    """Share of windows that train without semantics (a map of zeros), so that the gate can't learn the few
    scenes of a small pack by heart (``spectral="conv"``)."""
    semantic_head: bool = False
    """Add to the spectral logit one of a kernel machine on what the frozen tower says of the frame, of the
    crops and of what moves in them (``spectral="conv"``); the paper has none. A plain classifier on frozen
    features carries over to unseen generators better than a trained net (Ojha et al., CVPR 2023)."""
    semantic_supports: int = 1
    """Support vectors of each semantic head."""
    frames: int = 8
    """T."""
    radius: float = 32.0
    """In cycles per 224 pixels; see ``spectral.high_pass``."""
    residual_norm: str = "fixed"
    spectral_stride: int = 1
    """The spectral branches look at every so-manieth frame of a window (``spectral="conv"``): what they see
    hardly changes from frame to frame, and most of the cost is theirs."""
    temporal_difference: bool = False
    """Also show the spectral branch R(t) - R(t - 1): a camera's noise is new in each frame."""
    conv_widths: tuple[int, ...] = (24, 48, 96, 160)
    """Stem, then one stage each (``spectral="conv"``)."""
    conv_depths: tuple[int, ...] = (1, 1, 1)
    pooling: Pooling = "mean"
    temporal: TemporalKind = "transformer"
    temporal_width: int = 0
    """0: the width of the pooled features."""
    temporal_depth: int = 2
    temporal_heads: int = 8
    dropout: float = 0.0
    crop_side: int = 0
    crops: int = 1
    frame_fit: Literal["squash", "crop"] = "crop"
    windows: int = 4
    members: int = 1
    """Spectral branches whose logits are averaged: a deep ensemble. They share the semantic tower."""

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "SpecSemConfig":
        """The config that ``to_dict`` wrote, as read from JSON."""
        lists = {k: tuple(v) for k, v in fields.items() if isinstance(v, list)}
        return cls(**{**fields, **lists, "semantic": TowerConfig(**fields["semantic"])})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def plan(self, *, thorough: bool = False) -> SamplePlan:
        """Which pixels of a file this model wants."""
        return SamplePlan(
            windows=self.windows,
            frames=self.frames,
            crop_side=self.crop_side,
            crops=self.crops if self.crop_side else 0,
            frame_side=self.semantic.image_size,
            frame_fit=self.frame_fit,
            thorough=thorough,
        )

    def variant(self, **changes: Any) -> "SpecSemConfig":
        """This config with some fields changed: an ablation."""
        return replace(self, **changes)


class Judgement(NamedTuple):
    """What the network makes of B windows."""

    logit_B: Tensor
    """Above 0 speaks for ``generated``; the mean of the members."""
    features_BD: Tensor
    """What the last linear layers of the spectral branches see, member after member."""
    semantic_logit_B: Tensor
    """The semantic heads' part of ``logit_B``; 0 without them."""
    shown_BD: Tensor
    """What the semantic heads see: (B, 0) without them."""
    gate_BNhw: Tensor | None
    """How far semantics opened spectral evidence in each place of each crop (of the whole frame as published:
    N = 1), 0..1: the mean over frames, channels, layers and members. None where it wasn't asked for (it costs
    some percent of a forward), and without a gate."""


class SpecSemNet(nn.Module):
    """Windows in, one logit each out; above 0 speaks for ``generated``. See the module."""

    def __init__(self, config: SpecSemConfig) -> None:
        super().__init__()
        if config.temporal_difference and config.spectral == "tower":
            raise ValueError("the tower has three input channels: no temporal difference")
        if config.spectral_stride > 1 and (config.spectral == "tower" or config.temporal_difference):
            raise ValueError("only the compact model's branches, without differences, leave out frames")
        if config.semantic_head and (config.spectral == "tower" or config.merging == "spectral-only"):
            raise ValueError("the semantic head reads the compact model's semantic tower")
        self.config = config
        tower = asdict(config.semantic)
        quick_gelu = tower.pop("quick_gelu")
        self.semantic = build_tower(tower, quick_gelu=quick_gelu)
        freeze(self.semantic)
        branch = _TowerBranch if config.spectral == "tower" else _ConvBranch
        self.branches = nn.ModuleList(branch(config) for _ in range(config.members))

    @property
    def feature_width(self) -> int:
        """D of ``judge``."""
        width = self.config.temporal_width or _pooled_width(self.config)
        return width * self.config.members

    def train(self, mode: bool = True) -> "SpecSemNet":
        """The semantic twin stays in evaluation mode."""
        super().train(mode)
        self.semantic.eval()
        return self

    def forward(self, crops_BTNHWC: Tensor, frames_BTHWC: Tensor, boxes_BN4: Tensor) -> Tensor:
        """uint8 RGB pixels and crop boxes, as ``media.Window`` holds them, to logits (B,)."""
        return self.judge(crops_BTNHWC, frames_BTHWC, boxes_BN4).logit_B

    def judge(
        self,
        crops_BTNHWC: Tensor,
        frames_BTHWC: Tensor,
        boxes_BN4: Tensor,
        *,
        semantics: list[Tensor] | None = None,
        gates: bool = False,
    ) -> Judgement:
        """Logits, and what they stand on.

        ``semantics``: what ``look`` said of these frames, where it is known already. ``gates``: show them.
        """
        whole = self.config.spectral == "tower"
        stride = self.config.spectral_stride
        seen = frames_BTHWC if whole else crops_BTNHWC[:, stride // 2 :: stride]
        residual = self.residual(seen)  # (B, T, [N,] C, H, W)
        B = frames_BTHWC.shape[0]  # not len(): an export would take it for a constant
        shown_BD = residual.new_zeros(B, 0)
        if self.config.semantic_head:
            semantics, shown_BD = self._look_closely(crops_BTNHWC, frames_BTHWC)
        elif semantics is None:
            semantics = self.look(frames_BTHWC)
        features, logits, semantic_logits, maps = [], [], [], []
        for branch in self.branches:
            shown: list[Tensor] | None = [] if gates else None
            features_BD, spectral_B, semantic_B = branch(residual, semantics, boxes_BN4, shown_BD, shown)
            features.append(features_BD)
            maps += shown or []
            logits.append(spectral_B + semantic_B)
            semantic_logits.append(semantic_B)
        return Judgement(
            torch.stack(logits).mean(0),
            torch.cat(features, dim=-1),
            torch.stack(semantic_logits).mean(0),
            shown_BD,
            _mean_of_maps(maps),
        )

    def residual(self, x_BTHWC: Tensor) -> Tensor:
        """What the spectral branches see: uint8 (B, T, [N,] H, W, C) to (B, T, [N,] C, H, W) float32.

        C = 3, or 6 with the temporal difference.
        """
        x_BTCHW = _to_unit(x_BTHWC)
        r_BTCHW = normalize_residual(high_pass(x_BTCHW, self.config.radius), self.config.residual_norm)
        if self.config.temporal_difference:
            before_BTCHW = torch.cat([r_BTCHW[:, 1:2], r_BTCHW[:, :-1]], dim=1)  # the first looks ahead
            r_BTCHW = torch.cat([r_BTCHW, r_BTCHW - before_BTCHW], dim=-3)
        return r_BTCHW

    def look(self, frames_BTHWC: Tensor) -> list[Tensor]:
        """What the semantic tower says of the frames, for each merging layer: the first dimension is B.

        Tokens (B, T, L, D) as published; maps of the middle frame (B, D, h, w) for ``spectral="conv"``.
        """
        if self.config.merging == "spectral-only":
            return []
        return (
            self._semantic_tokens(frames_BTHWC)
            if self.config.spectral == "tower"
            else self._semantic_maps(frames_BTHWC)
        )

    def _semantic_tokens(self, frames_BTHWC: Tensor) -> list[Tensor]:
        """Tokens of every frame after each layer: a list of (B, T, L, D)."""
        B, T = frames_BTHWC.shape[:2]
        tokens = tokens_after_layers(self.semantic, _to_unit(frames_BTHWC.flatten(0, 1)))
        return [x_NLD.reshape(B, T, *x_NLD.shape[1:]) for x_NLD in tokens]

    def _semantic_maps(self, frames_BTHWC: Tensor) -> list[Tensor]:
        """Tokens of the window's middle frame after each gating layer, as maps: a list of (B, D, h, w).

        One frame stands for all T: what is shown hardly changes within eight frames, and it costs an eighth.
        """
        return self._gating_maps(
            tokens_after_layers(self.semantic, _middle(frames_BTHWC)), frames_BTHWC.shape[0]
        )

    @torch.no_grad()
    def _look_closely(self, crops_BTNHWC: Tensor, frames_BTHWC: Tensor) -> tuple[list[Tensor], Tensor]:
        """What ``look`` says, and the features of the semantic head, (B, D), from one run of the tower.

        Those are the class token and the mean of the others, after half of the layers and after the last: of
        the middle frame; of its crops (at their own resolution), averaged over them; and of what moves in the
        crops, likewise.
        """
        B, _, N = crops_BTNHWC.shape[:3]
        side = self.config.semantic.image_size
        views_BNCHW = torch.cat([_middle(crops_BTNHWC), motion_image(crops_BTNHWC)], dim=1)
        views_NCHW = views_BNCHW.flatten(0, 1)
        if views_NCHW.shape[-1] != side:
            views_NCHW = nn.functional.interpolate(views_NCHW, (side, side), mode="bilinear", antialias=True)
        tokens = tokens_after_layers(self.semantic, torch.cat([_middle(frames_BTHWC), views_NCHW]))
        said = []
        for x_NLD in (tokens[(len(tokens) - 1) // 2], tokens[-1]):
            normed_NLD = nn.functional.layer_norm(x_NLD, x_NLD.shape[-1:])
            said_ND = torch.cat([normed_NLD[:, 0], normed_NLD[:, 1:].mean(1)], dim=-1)
            said += [said_ND[:B], said_ND[B:].reshape(B, 2, N, -1).mean(2).flatten(1)]
        return self._gating_maps(tokens, B), torch.cat(said, dim=-1)

    def _gating_maps(self, tokens: list[Tensor], B: int) -> list[Tensor]:
        """The first B images' tokens after each gating layer, as maps: a list of (B, D, h, w)."""
        gating_layers = _spread(self.config.semantic.layers, len(self.config.conv_widths) - 1)
        return [self._as_map(tokens[i][:B]) for i in gating_layers]

    def _as_map(self, x_BLD: Tensor) -> Tensor:
        """Tokens (B, L, D), normalised, without the class token, where they lie: (B, D, h, w)."""
        normed_BLD = nn.functional.layer_norm(x_BLD, x_BLD.shape[-1:])
        return normed_BLD[:, 1:].transpose(1, 2).reshape(x_BLD.shape[0], -1, *self.semantic.grid_size)


class _Branch(nn.Module):
    """What both shapes of a spectral branch share: gates, and the way from pooled frames to a logit."""

    def __init__(self, config: SpecSemConfig, widths: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.merging = nn.ModuleList(
            Merging(config.merging, config.semantic.width, width, config.gate_hidden, config.gate_bias)
            for width in widths
        )
        pooled = _pooled_width(config)
        width = config.temporal_width or pooled
        self.pool_norm = nn.LayerNorm(pooled)
        self.project = nn.Linear(pooled, width) if width != pooled else nn.Identity()
        self.temporal = TemporalHead(
            config.temporal,
            width,
            depth=config.temporal_depth,
            heads=config.temporal_heads,
            frames=config.frames,
            dropout=config.dropout,
        )
        self.drop = nn.Dropout(config.dropout)
        self.head = nn.Linear(width, 1)
        if config.semantic_head:
            self.semantic_head = KernelHead(_shown_width(config), config.semantic_supports)

    def forward(
        self,
        residual: Tensor,
        semantics: list[Tensor],
        boxes_BN4: Tensor,
        shown_BD: Tensor,
        gates: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, D), the spectral logits (B,) and the semantic head's (B,).

        ``gates`` takes each layer's mean gate, (B, N, h, w), where it is given.
        """
        pooled_BTD = self.pooled(residual, semantics, boxes_BN4, gates).to(self.pool_norm.weight.dtype)
        # A bfloat16 logit near 4 has steps of 0.016, which show.
        with full_precision(pooled_BTD.device):
            features_BD: Tensor = self.drop(self.temporal(self.project(self.pool_norm(pooled_BTD))))
            spectral_B: Tensor = self.head(features_BD).squeeze(-1)
            semantic_B = torch.zeros_like(spectral_B)
            if self.config.semantic_head:
                semantic_B = self.semantic_head(shown_BD)
        return features_BD, spectral_B, semantic_B

    def pooled(
        self,
        residual: Tensor,
        semantics: list[Tensor],
        boxes_BN4: Tensor,
        gates: list[Tensor] | None = None,
    ) -> Tensor:
        """One vector a frame: (B, T, D). ``gates``: see ``forward``."""
        raise NotImplementedError


class _TowerBranch(_Branch):
    """As published: the semantic tower's twin on the residual of the whole frame, gated token by token."""

    def __init__(self, config: SpecSemConfig) -> None:
        super().__init__(config, [config.semantic.width] * config.semantic.layers)
        tower = asdict(config.semantic)
        quick_gelu = tower.pop("quick_gelu")
        self.tower = build_tower(tower, quick_gelu=quick_gelu)
        self.tower.ln_post = nn.Identity()  # the head reads tokens: CLIP's own head has no use
        self.tower.proj = None

    def pooled(
        self,
        residual: Tensor,
        semantics: list[Tensor],
        boxes_BN4: Tensor,  # noqa: ARG002
        gates: list[Tensor] | None = None,
    ) -> Tensor:
        """See ``_Branch``; ``residual`` is (B, T, C, H, W), ``semantics`` a list of (B, T, L, D)."""
        B, T = residual.shape[:2]
        spec_NLD = embed(self.tower, residual.flatten(0, 1))  # (B T, C, H, W) -> (B T, L, D)
        for i, (block, merge) in enumerate(zip(layers(self.tower), self.merging, strict=True)):
            spec_NLD = block(spec_NLD)
            if semantics:
                merging = cast(Merging, merge)
                seen_NLD = merging.project(semantics[i].flatten(0, 1))
                spec_NLD, gate_NLD = merging.merge(seen_NLD, spec_NLD)
                if gate_NLD is not None and gates is not None:
                    gate_BTL = gate_NLD[:, 1:].mean(-1).reshape(B, T, -1)
                    gates.append(gate_BTL.mean(1).reshape(B, 1, *self.tower.grid_size))
        match self.config.pooling:
            case "cls":
                pooled_ND = spec_NLD[:, 0]
            case "mean-std":
                pooled_ND = torch.cat([spec_NLD[:, 1:].mean(1), spec_NLD[:, 1:].std(1)], dim=-1)
            case _:
                pooled_ND = spec_NLD[:, 1:].mean(1)
        return pooled_ND.reshape(B, T, -1)


class _ConvBranch(_Branch):
    """Compact: convolutions on native-resolution crops, gated by the semantics that lie under each crop."""

    def __init__(self, config: SpecSemConfig) -> None:
        super().__init__(config, config.conv_widths[1:])
        self.stem = SpectralStem(6 if config.temporal_difference else 3, config.conv_widths[0])
        self.stages = nn.ModuleList(
            ConvStage(before, after, depth)
            for before, after, depth in zip(
                config.conv_widths, config.conv_widths[1:], config.conv_depths, strict=False
            )
        )

    def pooled(
        self,
        residual: Tensor,
        semantics: list[Tensor],
        boxes_BN4: Tensor,
        gates: list[Tensor] | None = None,
    ) -> Tensor:
        """See ``_Branch``; ``residual`` is (B, T, N, C, H, W), ``semantics`` a list of (B, D, h, w)."""
        B, T, N = residual.shape[:3]
        x_NCHW = self.stem(residual.flatten(0, 2))  # (B T N, D, h, w)
        if self.training and self.config.semantic_dropout:
            kept_B111 = (torch.rand(B, 1, 1, 1, device=x_NCHW.device) >= self.config.semantic_dropout).float()
            semantics = [sem_BDhw * kept_B111 for sem_BDhw in semantics]
        for i, (stage, merge) in enumerate(zip(self.stages, self.merging, strict=True)):
            x_NCHW = stage(x_NCHW)
            if semantics:
                side = (x_NCHW.shape[-2], x_NCHW.shape[-1])
                merging = cast(Merging, merge)
                seen_BDhw = merging.project(semantics[i].movedim(1, -1)).movedim(-1, 1)
                seen_BNhwD = _under_crops(seen_BDhw, boxes_BN4, side)
                seen_B1NhwD = seen_BNhwD[:, None]  # not expanded: it stands for all T
                spec_BTNhwD = x_NCHW.reshape(B, T, N, *x_NCHW.shape[1:]).movedim(3, -1)
                merged_BTNhwD, gate_BTNhwD = merging.merge(seen_B1NhwD, spec_BTNhwD)
                if gate_BTNhwD is not None and gates is not None:
                    gates.append(gate_BTNhwD.mean(-1).mean(1))
                x_NCHW = merged_BTNhwD.movedim(-1, 3).flatten(0, 2)

        mean_ND11 = x_NCHW.mean((2, 3), keepdim=True)
        pooled_ND = mean_ND11.flatten(1)
        if self.config.pooling == "mean-std":
            # Not Tensor.var: over channels-last places it takes five times as long.
            places = x_NCHW.shape[2] * x_NCHW.shape[3]
            var_ND = (x_NCHW - mean_ND11).square().sum((2, 3)) / max(1, places - 1)
            pooled_ND = torch.cat([pooled_ND, var_ND.add(1e-5).sqrt()], dim=-1)
        pooled_BTD: Tensor = pooled_ND.reshape(B, T, N, -1).mean(2)  # crops of a frame count alike
        return pooled_BTD


def motion_image(x_BTHWC: Tensor) -> Tensor:
    """What changed from the frame before the middle one to the middle one, as an image around mid-gray.

    uint8 (B, T, ..., H, W, C) -> float32 0..1 (B, ..., C, H, W); 17 of 255 go half the way to the end.
    """
    before = _to_unit(x_BTHWC[:, max(x_BTHWC.shape[1] // 2 - 1, 0)])
    return 0.5 + 0.5 * torch.tanh(8.0 * (_middle(x_BTHWC) - before))


def _mean_of_maps(maps: list[Tensor]) -> Tensor | None:
    """The mean of maps (B, N, h, w) of several sizes, at that of the last, which is the smallest."""
    if not maps:
        return None
    side = (maps[-1].shape[-2], maps[-1].shape[-1])
    return torch.stack([nn.functional.adaptive_avg_pool2d(map_BNhw, side) for map_BNhw in maps]).mean(0)


def _pooled_width(config: SpecSemConfig) -> int:
    width = config.semantic.width if config.spectral == "tower" else config.conv_widths[-1]
    return width * (2 if config.pooling == "mean-std" else 1)


def _shown_width(config: SpecSemConfig) -> int:
    return 12 * config.semantic.width


def _spread(count: int, wanted: int) -> tuple[int, ...]:
    """``wanted`` of ``count`` layers, evenly, the last one included."""
    return tuple(round((i + 1) * count / wanted) - 1 for i in range(wanted))


def _to_unit(x_HWC: Tensor) -> Tensor:
    """uint8 (..., H, W, C) -> float32 0..1 (..., C, H, W)."""
    return x_HWC.movedim(-1, -3).float().div(255.0)


def _middle(x_BTHWC: Tensor) -> Tensor:
    """The middle frame of each window: uint8 (B, T, ..., H, W, C) -> float32 0..1 (B, ..., C, H, W)."""
    return _to_unit(x_BTHWC[:, x_BTHWC.shape[1] // 2])


def _under_crops(map_BDhw: Tensor, boxes_BN4: Tensor, side: tuple[int, int]) -> Tensor:
    """The part of a map of the whole frame that lies under each crop, bilinear: (B, N, h, w, D)."""
    B, N = boxes_BN4.shape[:2]
    height, width = side
    along_y = (torch.arange(height, device=map_BDhw.device, dtype=map_BDhw.dtype) + 0.5) / height
    along_x = (torch.arange(width, device=map_BDhw.device, dtype=map_BDhw.dtype) + 0.5) / width
    x0, y0, x1, y1 = boxes_BN4.to(map_BDhw.dtype).unbind(-1)  # each (B, N)
    y_BNh = y0[..., None] + (y1 - y0)[..., None] * along_y
    x_BNw = x0[..., None] + (x1 - x0)[..., None] * along_x
    grid_BNhw2 = torch.stack(
        [x_BNw[:, :, None, :].expand(B, N, height, width), y_BNh[..., None].expand(B, N, height, width)],
        dim=-1,
    )
    sampled_BDKw = nn.functional.grid_sample(
        map_BDhw, (grid_BNhw2 * 2 - 1).flatten(1, 2), padding_mode="border", align_corners=False
    )
    return sampled_BDKw.reshape(B, -1, N, height, width).movedim(1, -1)
