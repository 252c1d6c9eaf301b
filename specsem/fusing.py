"""A network made ready for judging: the same function in fewer and larger steps.

- Batch norms become part of the convolutions before them.
- On a CPU, in float32, a convolution and the GELU behind it are one oneDNN primitive: a GELU of its own goes
  through memory twice more, and costs as much as the convolution.
- A transformer block's attention takes query, key and value from one product and moves no axes about.

What is fused can't be trained further. Shape letters: N images, C channels, H height, W width, L tokens, D
width, G heads, d their width.
"""

import copy
from functools import cache

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from specsem.model import SpecSemNet
from specsem.spectral import ConvBlock, SpectralStem

__all__ = ["fuse", "lower"]


def fuse(net: SpecSemNet) -> SpecSemNet:
    """A copy of ``net`` that says the same up to rounding (1e-5 of a logit), faster.

    What it does not know how to fuse stays as it is.
    """
    fused = copy.deepcopy(net).eval().requires_grad_(False)
    for parent in list(fused.modules()):
        for name, child in list(parent.named_children()):
            if (step := _fused(child)) is not None:
                setattr(parent, name, step)
    return fused


def _fused(module: nn.Module) -> nn.Module | None:
    match module:
        case SpectralStem():
            return _ConvGelu(module.conv, module.norm)
        case ConvBlock():
            return _FusedBlock(module)
        case ResidualAttentionBlock():
            return _FusedLayer(module) if _is_plain(module) else None
        case nn.Sequential():
            match list(module):
                case [nn.Conv2d() as conv, nn.BatchNorm2d() as norm, nn.GELU()]:
                    return _ConvGelu(conv, norm)
    return None


def lower(net: SpecSemNet) -> None:
    """Keep the weights of convolutions, towers and gates in bfloat16, for a forward under autocast.

    Autocast alone would cast them anew in every forward. The transform and the residual, the sum that runs
    through a tower, and all from the pooling on stay in float32: there a rounded step shows in the score.
    """
    parts: list[nn.Module] = [net.semantic]
    for branch in net.branches:
        parts += [
            part for name, part in branch.named_children() if name in ("stem", "stages", "tower", "merging")
        ]
    for part in parts:
        for module in part.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(torch.bfloat16)


class _ConvGelu(nn.Module):
    """GELU(norm(conv(x))): (N, C, H, W) -> (N, D, h, w), channels last."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = fuse_conv_bn_eval(conv, norm).to(memory_format=torch.channels_last)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        conv = self.conv
        if _one_primitive(x_NCHW, conv.weight):
            y_NDhw: Tensor = _onednn_conv_gelu(x_NCHW, conv)
            return y_NDhw
        return nn.functional.gelu(conv(x_NCHW))


class _FusedBlock(nn.Module):
    """A residual block of two convolutions, of the same shape in and out."""

    def __init__(self, block: ConvBlock) -> None:
        super().__init__()
        self.first = _ConvGelu(block.conv1, block.norm1)
        self.second = fuse_conv_bn_eval(block.conv2, block.norm2).to(memory_format=torch.channels_last)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return nn.functional.gelu(x_NCHW + self.second(self.first(x_NCHW)))


class _FusedLayer(nn.Module):
    """An open_clip transformer block in evaluation: (N, L, D) -> (N, L, D)."""

    def __init__(self, block: ResidualAttentionBlock) -> None:
        super().__init__()
        self.ln_1, self.ln_2, self.mlp = block.ln_1, block.ln_2, block.mlp
        self.heads: int = block.attn.num_heads
        width = block.attn.embed_dim
        self.qkv = nn.Linear(width, 3 * width)
        self.qkv.weight, self.qkv.bias = block.attn.in_proj_weight, block.attn.in_proj_bias
        self.out = block.attn.out_proj

    def forward(self, x_NLD: Tensor) -> Tensor:
        qkv_NL3Gd = self.qkv(self.ln_1(x_NLD)).unflatten(-1, (3, self.heads, -1))
        q_NGLd, k_NGLd, v_NGLd = qkv_NL3Gd.permute(2, 0, 3, 1, 4).unbind()
        seen_NGLd = nn.functional.scaled_dot_product_attention(q_NGLd, k_NGLd, v_NGLd)
        x_NLD = x_NLD + self.out(seen_NGLd.transpose(1, 2).flatten(2))
        y_NLD: Tensor = x_NLD + self.mlp(self.ln_2(x_NLD))
        return y_NLD


def _is_plain(block: ResidualAttentionBlock) -> bool:
    """No scaled residuals, no cross attention, biases everywhere."""
    return (
        isinstance(block.ls_1, nn.Identity)
        and isinstance(block.ls_2, nn.Identity)
        and block.attn.in_proj_bias is not None
        and block.attn.bias_k is None
        and not hasattr(block, "ln_1_kv")
    )


def _one_primitive(x_NCHW: Tensor, weight: Tensor) -> bool:
    on_cpu = x_NCHW.device.type == "cpu" and x_NCHW.dtype == weight.dtype == torch.float32
    return on_cpu and not torch.is_autocast_enabled("cpu") and _has_conv_gelu()


def _onednn_conv_gelu(x_NCHW: Tensor, conv: nn.Conv2d) -> Tensor:
    x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
    y_NDhw: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x_NCHW,
        conv.weight,
        conv.bias,
        conv.padding,
        conv.stride,
        conv.dilation,
        conv.groups,
        "gelu",
        [],
        "none",
    )
    return y_NDhw


@cache
def _has_conv_gelu() -> bool:
    """Whether this build of PyTorch has the primitive that its own compiler emits, and it says the same.

    It is no documented interface: another version may lack it, or take other arguments.
    """
    with torch.inference_mode():
        conv = nn.Conv2d(3, 8, 3, stride=2, padding=1).to(memory_format=torch.channels_last)
        x_NCHW = torch.linspace(-3, 3, 3 * 81).reshape(1, 3, 9, 9)
        try:
            said = _onednn_conv_gelu(x_NCHW, conv)
        except (AttributeError, RuntimeError, TypeError):
            return False
        return torch.allclose(said, nn.functional.gelu(conv(x_NCHW)), atol=1e-4)
