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
from specsem.spectral import constant

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "KernelHead",
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
    cls_D = tower.class_embedding
    x_NLD = x_NDhw.flatten(2).transpose(1, 2).to(cls_D.dtype)  # what autocast may have made of it
    x_NLD = torch.cat([cls_D.expand(x_NLD.shape[0], 1, -1), x_NLD], dim=1) + tower.positional_embedding
    tokens: Tensor = tower.ln_pre(x_NLD)
    return tokens


def clip_normalize(x_NCHW: Tensor) -> Tensor:
    """Images of 0..1 as CLIP's towers want them."""
    mean_C11, std_C11 = (constant(v, x_NCHW.device)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
    return (x_NCHW - mean_C11) / std_C11


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


class KernelHead(nn.Module):
    """A kernel machine on what the tower says: (B, D) -> logits (B,).

    ``bias + sum_s alpha_s exp(-gamma |x - x_s|_1 / D)``, each of the D features divided by its scale. Says
    nothing until it is fitted (``specsem.training.semantic_head``).

    Source: Schölkopf and Smola, Learning with Kernels (2002), sections 2.3 and 7.4; the Laplacian kernel.
    """

    scale_D: Tensor
    support_SD: Tensor
    """Divided by the scale already."""
    alpha_S: Tensor
    gamma: Tensor
    bias: Tensor

    def __init__(self, width: int, supports: int) -> None:
        super().__init__()
        self.register_buffer("scale_D", torch.ones(width))
        self.register_buffer("support_SD", torch.zeros(supports, width, dtype=torch.float16))
        self.register_buffer("alpha_S", torch.zeros(supports))
        self.register_buffer("gamma", torch.tensor(1.0))
        self.register_buffer("bias", torch.tensor(0.0))

    def forward(self, shown_BD: Tensor) -> Tensor:
        """See the class."""
        x_BD = shown_BD.float() / self.scale_D
        distance_BS = torch.cdist(x_BD, self.support_SD.float(), p=1.0) / x_BD.shape[-1]
        logit_B: Tensor = torch.exp(-self.gamma * distance_BS) @ self.alpha_S + self.bias
        return logit_B
