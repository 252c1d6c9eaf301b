"""The semantic branch: a frozen open_clip image tower, read layer by layer.

Shape letters: N images, C channels, H height, W width, L tokens (class token first), D width.
"""

from collections.abc import Iterator
from typing import Any, cast

import open_clip
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from specsem.errors import WeightsMissing

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "VitConfig",
    "build_tower",
    "clip_normalize",
    "embed",
    "freeze",
    "layers",
    "load_clip_tower",
    "tokens_after_layers",
]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

VitConfig = dict[str, Any]
"""Arguments of ``open_clip.transformer.VisionTransformer``."""


def build_tower(config: VitConfig, *, quick_gelu: bool = False) -> VisionTransformer:
    """An untrained tower. OpenAI's towers need ``quick_gelu``."""
    act = open_clip.transformer.QuickGELU if quick_gelu else nn.GELU
    return VisionTransformer(**{"mlp_ratio": 4.0, "output_dim": 512, "act_layer": act, **config})


def load_clip_tower(model: str = "ViT-B-32-quickgelu", pretrained: str = "openai") -> VisionTransformer:
    """The image tower of a CLIP model through open_clip: a tag that lies in its cache, or a local file.

    Raises:
        WeightsMissing: neither a file nor to be had through open_clip.
    """
    try:
        clip = open_clip.create_model(model, pretrained=pretrained)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsMissing(f"open_clip could not load {model!r} from {pretrained!r}.") from error
    return cast("VisionTransformer", clip.visual)


def freeze(tower: nn.Module) -> None:
    """The semantic twin stays as it is: no gradient, no dropout."""
    tower.requires_grad_(False)
    tower.eval()


def embed(tower: VisionTransformer, x_NCHW: Tensor) -> Tensor:
    """Patches to tokens, as open_clip does it before its first block: (N, C, H, W) -> (N, L, D)."""
    x_NDhw = tower.conv1(x_NCHW)
    x_NLD = x_NDhw.flatten(2).transpose(1, 2)
    cls_N1D = tower.class_embedding.to(x_NLD.dtype).expand(len(x_NLD), 1, -1)
    x_NLD = torch.cat([cls_N1D, x_NLD], dim=1) + tower.positional_embedding.to(x_NLD.dtype)
    tokens: Tensor = tower.ln_pre(x_NLD)
    return tokens


def clip_normalize(x_NCHW: Tensor) -> Tensor:
    """Images of 0..1 as CLIP's towers want them."""
    mean, std = (torch.tensor(v, device=x_NCHW.device, dtype=x_NCHW.dtype) for v in (CLIP_MEAN, CLIP_STD))
    return (x_NCHW - mean[:, None, None]) / std[:, None, None]


def tokens_after_layers(tower: VisionTransformer, x_NCHW: Tensor) -> list[Tensor]:
    """Images of 0..1 to the tower's tokens after each layer: a list of (N, L, D)."""
    x_NLD = embed(tower, clip_normalize(x_NCHW))
    tokens = []
    for block in layers(tower):
        x_NLD = block(x_NLD)
        tokens.append(x_NLD)
    return tokens


def layers(tower: VisionTransformer) -> Iterator[nn.Module]:
    """The transformer blocks; each maps (N, L, D) to (N, L, D)."""
    yield from tower.transformer.resblocks
