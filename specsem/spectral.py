"""The Fourier high-pass residual and the compact spectral branch.

Shape letters: N any batch of images, C channels, H height, W width.

Source: SpecSem-Net (arXiv 2605.17311), "spectral residual". The published branch is a CLIP ViT-B/32 on the
residual of a resized frame; ``specsem-compact`` uses a small convolutional branch on native-resolution crops
instead, because resizing removes the evidence (method, section 2, finding 1).
"""

import math
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "ConvBlock",
    "ConvStage",
    "SpectralStem",
    "constant",
    "full_precision",
    "high_pass",
    "low_pass",
    "luma",
    "normalize_residual",
]

REFERENCE_SIDE = 224
"""The side at which the paper states its radius."""


@lru_cache(maxsize=64)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """These numbers on a device, (D,) float32, made once: a copy from the host would wait for the device in
    every forward, and can't be part of a CUDA graph. Not to be written to.
    """
    with torch.inference_mode(False):  # training may use it as well
        return torch.tensor(values, device=device)


@lru_cache(maxsize=64)
def _waves(side: int, radius: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """The real Fourier basis of a row of pixels as far as the radius reaches: orthonormal cosines and sines,
    (side, K), and how many cycles per 224 pixels each has, (K,); float32.
    """
    with torch.inference_mode(False):  # as for `constant`
        cycles_K = torch.arange(side // 2 + 1, dtype=torch.float64, device=device)
        cycles_K = cycles_K[cycles_K.square() * (REFERENCE_SIDE / side) ** 2 <= _reach(radius)]
        places_S = torch.arange(side, dtype=torch.float64, device=device)
        turns_SK = 2 * math.pi / side * torch.outer(places_S, cycles_K)
        waves_SK = torch.cat([turns_SK.cos(), turns_SK.sin()], dim=1)
        length_K = waves_SK.norm(dim=0)
        there_K = length_K > 0.5  # the sines of no cycle, and of half as many as there are pixels, are zero
        rates_K = cycles_K.repeat(2) * REFERENCE_SIDE / side
        return (waves_SK / length_K)[:, there_K].float(), rates_K[there_K].float()


def _reach(radius: float) -> float:
    """The square of the radius; a frequency on the circle belongs to the disc, however it is rounded."""
    return radius**2 + 1e-3


@lru_cache(maxsize=64)
def _disc(height: int, width: int, radius: float, device: torch.device) -> Tensor:
    """1 where a pair of waves lies inside the removed disc, 0 outside: (K of the height, K of the width)."""
    with torch.inference_mode(False):
        (_, v_K), (_, u_J) = _waves(height, radius, device), _waves(width, radius, device)
        inside_KJ: Tensor = (v_K.square()[:, None] + u_J.square() <= _reach(radius)).float()
        return inside_KJ


def high_pass(x_NCHW: Tensor, radius: float = 32.0) -> Tensor:
    """What an ideal high-pass filter leaves of each channel; same shape as the input, float32.

    ``X = FFT2(x)``, coefficients at a distance of at most ``radius`` from zero frequency are removed,
    ``R = Re(IFFT2(X))``. ``radius`` is in cycles per 224 pixels, so that it cuts at the same spatial
    frequency whatever the size; at 224x224 this is the published mask, r = 32. Radius 0 removes the mean.
    """
    x_NCHW = x_NCHW.float()  # half precision loses the residual, which is small beside the frame
    return x_NCHW - low_pass(x_NCHW, radius)


def low_pass(x_NCHW: Tensor, radius: float = 32.0) -> Tensor:
    """What ``high_pass`` removes: ``low_pass(x) + high_pass(x) = x``.

    The transform is taken as products with its matrix, of which the disc needs a few rows: of 224 pixels, 65
    waves. On a CPU that is quicker than an FFT of all frequencies, it is as exact (1e-6 of a frame of 0..1),
    and runtimes without Fourier transforms have it too. Cosines and sines do for the complex exponentials, as
    the disc is the same on both sides of each axis.
    """
    x_NCHW = x_NCHW.float()
    height, width = x_NCHW.shape[-2:]
    (tall_HK, _), (wide_WJ, _) = (_waves(side, radius, x_NCHW.device) for side in (height, width))
    with full_precision(x_NCHW.device):
        spectrum_NCKJ = tall_HK.T @ (x_NCHW @ wide_WJ) * _disc(height, width, radius, x_NCHW.device)
        l_NCHW: Tensor = tall_HK @ (spectrum_NCKJ @ wide_WJ.T)
    return l_NCHW


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Nothing is cast down in here, whatever runs around it under autocast."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def luma(x_HWC: Tensor) -> Tensor:
    """Brightness (BT.601) of RGB in the last dimension; float32, same range."""
    y_HW: Tensor = x_HWC.float() @ constant((0.299, 0.587, 0.114), x_HWC.device)
    return y_HW


def normalize_residual(r_NCHW: Tensor, how: str, scale: float = 0.05) -> Tensor:
    """The paper does not say how R is normalised; four choices, reachable from the config.

    ``none``: as it is, for frames in 0..1. ``fixed``: divided by ``scale``, a typical standard deviation,
    which keeps the strength of the residual as evidence. ``std``: divided by each image's own.
    ``asinh``: ``fixed`` near zero, at a fifth of the scale, and logarithmic beyond, so that edges don't drown
    the weak noise between them (steganalysis truncates its residuals for the same reason).
    """
    match how:
        case "none":
            return r_NCHW
        case "fixed":
            return r_NCHW / scale
        case "asinh":
            return torch.asinh(r_NCHW / (scale / 5))
        case "std":
            return r_NCHW / (r_NCHW.std(dim=(-3, -2, -1), keepdim=True) + 1e-3)
        case _:
            raise ValueError(f"unknown residual normalisation {how!r}")


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels)  # a quarter faster to train on a CPU than group normalisation


class SpectralStem(nn.Module):
    """(N, C, H, W) residual -> (N, D, H/2, W/2). A 5x5 convolution: no pooling before the first filter."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 5, stride=2, padding=2, bias=False)
        self.norm = _norm(width)

    def forward(self, r_NCHW: Tensor) -> Tensor:
        """See the class."""
        y: Tensor = nn.functional.gelu(self.norm(self.conv(r_NCHW)))
        return y


class ConvStage(nn.Module):
    """(N, C, H, W) -> (N, D, H/2, W/2), then ``depth`` residual blocks of two 3x3 convolutions."""

    def __init__(self, in_width: int, width: int, depth: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(in_width, width, 3, stride=2, padding=1, bias=False), _norm(width), nn.GELU()
        )
        self.blocks = nn.ModuleList(ConvBlock(width) for _ in range(depth))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """See the class."""
        x_NCHW = self.down(x_NCHW)
        for block in self.blocks:
            x_NCHW = block(x_NCHW)
        return x_NCHW


class ConvBlock(nn.Module):
    """(N, D, H, W) -> the same: what two 3x3 convolutions say is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = _norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = _norm(width)
        nn.init.zeros_(self.norm2.weight)  # starts as the identity

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """See the class."""
        y_NCHW = nn.functional.gelu(self.norm1(self.conv1(x_NCHW)))
        return nn.functional.gelu(x_NCHW + self.norm2(self.conv2(y_NCHW)))
