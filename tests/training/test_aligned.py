"""Reconstructions keep a clip's shape and content, and the other fakes of our own making do what they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pywt
import torch
from torch.nn import functional as F

from specsem.synthetic import frames
from specsem.training.aligned import (
    DEFAULT_ZOO,
    Autoencoder,
    AutoencoderSpec,
    contrastive_loss,
    draw_clips,
    load_zoo,
    mask_frequencies,
    psnr,
    reconstruct,
    swap_low_band,
    train_autoencoder,
    train_zoo,
    upsampling_trace,
)
from specsem.training.data import read_manifest
from specsem.training.distort import Blur


def drawn(seed: int = 0, *, width: int = 64, height: int = 64, count: int = 8) -> np.ndarray:
    return np.stack(list(frames(width=width, height=height, count=count, seed=seed)))


CLIPS = np.stack([drawn(seed) for seed in range(4)])
SMALL = AutoencoderSpec("nearest", 4, width=8)


def test_the_zoo_covers_decoders_factors_and_time() -> None:
    assert {spec.upsample for spec in DEFAULT_ZOO} == {"nearest", "bilinear", "transposed", "shuffle"}
    assert {spec.factor for spec in DEFAULT_ZOO} == {4, 8}
    assert {spec.squeeze for spec in DEFAULT_ZOO} == {1, 2, 4}
    assert len({spec.name for spec in DEFAULT_ZOO}) == len(DEFAULT_ZOO)


@pytest.mark.parametrize("spec", DEFAULT_ZOO, ids=lambda spec: spec.name)
@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 33, 50), (6, 24, 40)])
def test_reconstructions_have_the_shape_of_what_goes_in(
    spec: AutoencoderSpec, shape: tuple[int, int, int]
) -> None:
    count, height, width = shape
    net = Autoencoder(replace(spec, width=4)).eval()
    clip_THWC = drawn(width=width, height=height, count=count)
    back_THWC = reconstruct(net, clip_THWC)
    assert back_THWC.dtype == np.uint8
    assert back_THWC.shape == clip_THWC.shape


def test_the_latent_is_as_small_as_the_spec_says() -> None:
    net = Autoencoder(AutoencoderSpec("shuffle", 8, squeeze=4, latent=6, width=4))
    x_BCTHW = torch.zeros(2, 3, 8, 32, 16)
    assert net.latent_shape(x_BCTHW) == (2, 6, 2, 4, 2)
    assert net.encoder(x_BCTHW).shape == (2, 3, 2, 4, 2)  # without the thumbnail
    assert net(x_BCTHW).shape == x_BCTHW.shape


def test_long_clips_pass_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Autoencoder(SMALL).eval()
    clip_THWC = drawn(count=5)
    whole = reconstruct(net, clip_THWC)
    monkeypatch.setattr("specsem.training.aligned.CHUNK_PIXELS", 1)
    np.testing.assert_allclose(reconstruct(net, clip_THWC), whole.astype(float), atol=2)


@pytest.mark.parametrize("spec", DEFAULT_ZOO, ids=lambda spec: spec.name)
def test_slopes_in_bfloat16_are_those_in_float32(spec: AutoencoderSpec) -> None:
    """PyTorch's bfloat16 3x3x3 convolution gave garbage here, silently."""
    torch.manual_seed(0)
    net = Autoencoder(replace(spec, width=8))
    x_BCTHW = torch.rand(2, 3, spec.squeeze * 2, 32, 32) * 2 - 1
    slopes = []
    for half in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = (net(x_BCTHW).float() - x_BCTHW).square().mean()
        loss.backward()
        slopes.append([p.grad for p in net.parameters() if p.grad is not None])
    for exact, half_exact in zip(*slopes, strict=True):
        assert float((half_exact - exact).norm()) < 0.15 * float(exact.norm()) + 1e-6


@pytest.mark.parametrize("spec", [SMALL, AutoencoderSpec("shuffle", 4, squeeze=2, width=8)], ids=["2d", "3d"])
def test_training_learns_the_clips(spec: AutoencoderSpec) -> None:
    smooth = np.stack([Blur(1.5)(clip_THWC, np.random.default_rng(0)) for clip_THWC in CLIPS])
    net, log = train_autoencoder(spec, smooth, steps=80, pixels=2**12, crop=32, learning_rate=4e-3)
    assert log[-1]["loss"] < log[0]["loss"]
    learnt, fresh = (psnr(reconstruct(n, smooth[0]), smooth[0]) for n in (net, Autoencoder(spec).eval()))
    assert learnt > fresh + 1


def test_equal_seeds_give_equal_autoencoders() -> None:
    def train(seed: int) -> torch.Tensor:
        net, _ = train_autoencoder(replace(SMALL, seed=seed), CLIPS, steps=6, pixels=2**12, crop=32)
        return torch.cat([value.flatten() for value in net.parameters()])

    assert torch.equal(train(1), train(1))
    assert not torch.equal(train(1), train(2))


def test_latent_noise_follows_its_generator() -> None:
    net = Autoencoder(replace(SMALL, noise=1.0)).eval()
    one, same, other = (reconstruct(net, CLIPS[0], torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert psnr(one, other) < 60


def test_a_zoo_is_saved_resumed_and_kept_to_its_items(drawn_pack: Path, tmp_path: Path) -> None:
    items = [item for item in read_manifest(drawn_pack, split="train") if not item.generated]
    specs = [SMALL, AutoencoderSpec("shuffle", 4, squeeze=2, width=8)]
    zoo = train_zoo(items, tmp_path, specs[:1], steps=3, per_item=1, side=64)
    written = (tmp_path / "nearest-f4.safetensors").stat().st_mtime_ns
    clip_THWC = CLIPS[0]
    before = reconstruct(zoo["nearest-f4"], clip_THWC)

    zoo = train_zoo(items, tmp_path, specs, steps=3, per_item=1, side=64)
    assert list(zoo) == ["nearest-f4", "shuffle-f4-t2"]
    assert (tmp_path / "nearest-f4.safetensors").stat().st_mtime_ns == written
    assert load_zoo(tmp_path)["shuffle-f4-t2"].spec == specs[1]
    np.testing.assert_array_equal(reconstruct(zoo["nearest-f4"], clip_THWC), before)

    with pytest.raises(ValueError, match="other items"):
        train_zoo(items[1:], tmp_path, specs, steps=3)


def test_a_zoo_never_sees_a_fake(drawn_pack: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reals"):
        train_zoo(read_manifest(drawn_pack), tmp_path)


def test_crops_are_native_even_of_small_clips(drawn_pack: Path) -> None:
    items = read_manifest(drawn_pack)[:2]
    assert draw_clips(items, per_item=2, frames=5, side=64).shape == (4, 5, 64, 64, 3)
    assert draw_clips(items, per_item=1, frames=4, side=128).shape == (2, 4, 128, 128, 3)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2"])
def test_a_swap_takes_the_low_band_and_leaves_the_high_ones(wavelet: str) -> None:
    rng = np.random.default_rng(0)
    # Mid-gray, so that nothing is clipped; low bands that differ.
    real_THWC = rng.integers(100, 130, (2, 64, 48, 3), dtype=np.uint8)
    fake_THWC = rng.integers(120, 160, (2, 64, 48, 3), dtype=np.uint8)
    swapped_THWC = swap_low_band(fake_THWC, real_THWC, wavelet, levels=2)

    def bands(frames_THWC: np.ndarray) -> list[np.ndarray]:
        low, *high = pywt.wavedec2(frames_THWC.astype(float), wavelet, level=2, axes=(1, 2))
        # Away from the borders, where the bands of a longer filter overlap.
        return [band[:, 3:-3, 3:-3] for band in (low, *(band for level in high for band in level))]

    low, *high = zip(bands(swapped_THWC), bands(real_THWC), bands(fake_THWC), strict=True)
    assert np.abs(low[0] - low[1]).mean() < 1 < np.abs(low[0] - low[2]).mean()
    for swapped, real, fake in high:
        assert np.abs(swapped - fake).mean() < 1 < np.abs(swapped - real).mean()


def test_a_swap_takes_odd_sizes_but_no_unlike_ones() -> None:
    clip_THWC = drawn(width=45, height=31, count=2)
    assert psnr(swap_low_band(clip_THWC, clip_THWC), clip_THWC) > 50
    with pytest.raises(ValueError, match="unlike"):
        swap_low_band(clip_THWC, clip_THWC[:, 1:])


def test_an_upsampling_trace_is_slight_and_of_any_size() -> None:
    for seed in range(6):
        clip_THWC = drawn(width=45, height=31, count=2)
        traced_THWC = upsampling_trace(clip_THWC, np.random.default_rng(seed))
        assert traced_THWC.shape == clip_THWC.shape
        assert 20 < psnr(traced_THWC, clip_THWC) < 50


@pytest.mark.parametrize("shape", [(24, 3, 32, 32), (24, 3, 4, 17, 30)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_remove_energy_but_not_the_mean(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 1).to(dtype)
    masked = mask_frequencies(x, torch.Generator().manual_seed(1))
    assert masked.shape == x.shape
    assert masked.dtype == dtype
    energy, left = (v.float().square().flatten(1).sum(1) for v in (x, masked))
    assert bool((left <= energy * 1.01).all())
    assert 0.7 < float((left / energy).mean()) < 0.99
    torch.testing.assert_close(masked.float().mean((-1, -2)), x.float().mean((-1, -2)), atol=0.02, rtol=0)
    assert torch.equal(masked, mask_frequencies(x, torch.Generator().manual_seed(1)))
    assert not torch.equal(masked, mask_frequencies(x, torch.Generator().manual_seed(2)))


LABEL = torch.tensor([0, 1, 0, 1, 1])
PAIR = torch.tensor([1, 0, 3, 2, -1])


def test_the_contrastive_loss_falls_as_pairs_separate() -> None:
    content_BD = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    content_BD[1], content_BD[3] = content_BD[0], content_BD[2]
    trace_BD = F.one_hot(LABEL, 16).float()
    losses = [
        float(contrastive_loss(content_BD + strength * trace_BD, LABEL, PAIR)) for strength in (0, 2, 8, 50)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.01


def test_an_undivided_pair_costs_more_than_any_other_two() -> None:
    features_BD = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    features_BD[1] = features_BD[0]
    none = torch.full((5,), -1)
    known = torch.tensor([1, -1, -1, -1, -1])
    paired = contrastive_loss(features_BD, LABEL, known)
    assert paired > contrastive_loss(features_BD, LABEL, none)
    both_ways = torch.tensor([1, 0, -1, -1, -1])
    torch.testing.assert_close(paired, contrastive_loss(features_BD, LABEL, both_ways))


@pytest.mark.parametrize("label", [[0, 0, 0], [0, 1]])
def test_without_positives_or_negatives_the_contrastive_loss_is_nought(label: list[int]) -> None:
    features_BD = torch.randn(len(label), 4, requires_grad=True)
    loss = contrastive_loss(features_BD, torch.tensor(label), torch.full((len(label),), -1))
    loss.backward()
    assert float(loss.detach()) == 0
    assert features_BD.grad is not None
    assert bool(features_BD.grad.isfinite().all())


def test_the_contrastive_loss_has_finite_slopes() -> None:
    features_BD = torch.randn(5, 8, requires_grad=True)
    contrastive_loss(features_BD, LABEL, PAIR).backward()
    assert features_BD.grad is not None
    assert bool(features_BD.grad.isfinite().all())
    assert float(features_BD.grad.abs().sum()) > 0
