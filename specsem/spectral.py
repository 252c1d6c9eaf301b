"""The Fourier high-pass residual and the compact spectral branch.

Shape letters: N any batch of images, C channels, H height, W width.

Source: SpecSem-Net (arXiv 2605.17311), "spectral residual". The published branch is a CLIP ViT-B/32 on the
residual of a resized frame; ``specsem-compact`` uses a small convolutional branch on native-resolution crops
instead, because resizing removes the evidence (method, section 2, finding 1).
"""

from functools import lru_cache

import torch
from torch import Tensor, nn

__all__ = [
    "ConvBlock",
    "ConvStage",
    "SpectralStem",
    "constant",
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
def _low_mask(height: int, width: int, radius: float, device: torch.device) -> Tensor:
    """1 inside the removed disc, 0 outside, on the half plane of ``rfft2``: (H, W // 2 + 1), float32."""
    with torch.inference_mode(False):  # as for `constant`
        v_H1 = torch.fft.fftfreq(height, device=device).mul(REFERENCE_SIDE)[:, None]
        u_1W = torch.fft.rfftfreq(width, device=device).mul(REFERENCE_SIDE)[None, :]
        rounding = 1e-3  # a frequency on the circle belongs to the disc, whatever float32 makes of it
        low_HW: Tensor = (v_H1.square() + u_1W.square() <= radius**2 + rounding).float()
        return low_HW


def high_pass(x_NCHW: Tensor, radius: float = 32.0) -> Tensor:
    """What an ideal high-pass filter leaves of each channel; same shape as the input, float32.

    ``X = FFT2(x)``, coefficients at a distance of at most ``radius`` from zero frequency are removed,
    ``R = Re(IFFT2(X))``. ``radius`` is in cycles per 224 pixels, so that it cuts at the same spatial
    frequency whatever the size; at 224x224 this is the published mask, r = 32. Radius 0 removes the mean.
    The half-plane transform is exact here: the mask is symmetric, so the imaginary part is zero.
    """
    x_NCHW = x_NCHW.float()  # half precision loses the residual, which is small beside the frame
    height, width = x_NCHW.shape[-2:]
    keep_HW = 1.0 - _low_mask(height, width, radius, x_NCHW.device)
    r_NCHW: Tensor = torch.fft.irfft2(torch.fft.rfft2(x_NCHW) * keep_HW, s=(height, width))
    return r_NCHW


def low_pass(x_NCHW: Tensor, radius: float = 32.0) -> Tensor:
    """What ``high_pass`` removes: ``low_pass(x) + high_pass(x) = x``."""
    x_NCHW = x_NCHW.float()
    height, width = x_NCHW.shape[-2:]
    low_HW = _low_mask(height, width, radius, x_NCHW.device)
    l_NCHW: Tensor = torch.fft.irfft2(torch.fft.rfft2(x_NCHW) * low_HW, s=(height, width))
    return l_NCHW


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
