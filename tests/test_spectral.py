"""Worked cases of the Fourier high-pass residual (issue: spectral tests; paper: spectral residual)."""

import numpy as np
import pytest
import torch

from specsem.spectral import ConvStage, SpectralStem, high_pass, low_pass, normalize_residual


def reference(x_HW: np.ndarray, radius: float) -> np.ndarray:
    """The paper's own words in float64: fftshift, mask by the distance to the centre, back."""
    height, width = x_HW.shape
    spectrum = np.fft.fftshift(np.fft.fft2(x_HW.astype(np.float64)))
    v = (np.arange(height) - height // 2)[:, None] * 224 / height
    u = (np.arange(width) - width // 2)[None, :] * 224 / width
    mask = np.where(np.hypot(v, u) <= radius, 0.0, 1.0)
    return np.fft.ifft2(np.fft.ifftshift(spectrum * mask)).real


def cosine(cycles: int, side: int = 224, axis: int = -1) -> torch.Tensor:
    wave = torch.cos(2 * torch.pi * cycles * torch.arange(side, dtype=torch.float64) / side).float()
    frame = wave.expand(side, side)
    return (frame if axis == -1 else frame.T)[None, None].contiguous()


def test_a_constant_frame_leaves_nothing() -> None:
    assert high_pass(torch.full((2, 3, 224, 224), 0.7)).abs().max() < 2e-6  # 1/2000 of a step of 8 bits


@pytest.mark.parametrize("shape", [(224, 224), (225, 223), (96, 160), (7, 9)])
@pytest.mark.parametrize("radius", [0.0, 16.0, 32.0, 112.0])
def test_low_and_high_add_up_to_the_frame(shape: tuple[int, int], radius: float) -> None:
    x = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(low_pass(x, radius) + high_pass(x, radius), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", [-1, -2])
def test_a_cosine_inside_the_radius_vanishes_and_one_outside_survives(axis: int) -> None:
    assert high_pass(cosine(20, axis=axis), 32).abs().max() < 1e-5
    torch.testing.assert_close(high_pass(cosine(40, axis=axis), 32), cosine(40, axis=axis), atol=1e-5, rtol=0)


def test_the_boundary_belongs_to_the_removed_disc() -> None:
    assert high_pass(cosine(32), 32).abs().max() < 1e-5
    assert high_pass(cosine(33), 32).abs().max() > 0.9


def test_the_radius_scales_with_the_side() -> None:
    """40 cycles in 448 pixels are 20 in 224: inside."""
    assert high_pass(cosine(40, side=448), 32).abs().max() < 1e-4
    assert high_pass(cosine(80, side=448), 32).abs().max() > 0.9


@pytest.mark.parametrize("shape", [(224, 224), (225, 223), (64, 96), (33, 48)])
@pytest.mark.parametrize("radius", [0.0, 32.0, 112.0])
def test_agrees_with_the_paper_in_float64(shape: tuple[int, int], radius: float) -> None:
    x = np.random.default_rng(1).random(shape)
    ours = high_pass(torch.from_numpy(x)[None, None], radius)[0, 0].numpy()
    np.testing.assert_allclose(ours, reference(x, radius), atol=2e-6)


def test_a_batch_gives_what_single_frames_give() -> None:
    x = torch.rand(5, 3, 65, 64, generator=torch.Generator().manual_seed(2))
    single = torch.cat([high_pass(x[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(high_pass(x), single, atol=1e-6, rtol=0)


def test_half_precision_is_computed_in_float32() -> None:
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    residual = high_pass(x)
    assert residual.dtype == torch.float32
    torch.testing.assert_close(residual, high_pass(x.float()))


def test_the_residual_carries_a_gradient_that_is_itself_high_pass() -> None:
    x = torch.rand(1, 1, 32, 32, requires_grad=True)
    high_pass(x).square().sum().div(2).backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, high_pass(x.detach()), atol=1e-5, rtol=0)  # a projection: P^T P = P


def test_normalisations() -> None:
    r = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(4)) * 0.1
    assert normalize_residual(r, "none") is r
    torch.testing.assert_close(normalize_residual(r, "fixed"), r / 0.05)
    torch.testing.assert_close(
        normalize_residual(r, "std").std(dim=(1, 2, 3)), torch.ones(4), atol=0.02, rtol=0
    )
    with pytest.raises(ValueError, match="zscore"):
        normalize_residual(r, "zscore")


def test_stem_and_stage_halve_the_side_and_start_as_a_plain_downsampling() -> None:
    x = torch.randn(2, 6, 48, 32)
    y = SpectralStem(6, 16)(x)
    assert y.shape == (2, 16, 24, 16)
    stage = ConvStage(16, 24, depth=2).eval()
    assert stage(y).shape == (2, 24, 12, 8)
    bare = stage.down(y)
    torch.testing.assert_close(stage(y), torch.nn.functional.gelu(torch.nn.functional.gelu(bare)))
