"""Distortions keep what they must keep, and real encoders really encode."""

import itertools

import numpy as np
import pytest

from specsem.synthetic import frames
from specsem.training.distort import (
    Blur,
    CentreCrop,
    Flip,
    Gamma,
    Jpeg,
    Letterbox,
    Noise,
    Reencode,
    Resample,
    Resize,
    Sharpen,
    apply,
    random_distortions,
)

RNG = np.random.default_rng(0)
CLIP = np.stack(list(frames(width=96, height=64, count=12)))


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.int16) - b).mean())


@pytest.mark.parametrize(
    ("codec", "fine", "coarse"),
    [
        ("libx264", 12, 40),
        ("libx265", 12, 40),
        ("libvpx-vp9", 10, 60),
        ("libsvtav1", 12, 60),
        ("mpeg4", 2, 25),
        ("mpeg2video", 2, 25),
        ("mjpeg", 2, 25),
    ],
)
def test_every_encoder_returns_all_frames_and_loses_more_at_lower_quality(
    codec: str, fine: int, coarse: int
) -> None:
    best, worst = (Reencode(codec, q)(CLIP, RNG) for q in (fine, coarse))
    assert best.shape == worst.shape == CLIP.shape
    assert 0 < error(best, CLIP) < error(worst, CLIP)


def test_colours_survive_a_good_encode() -> None:
    flat = np.broadcast_to(np.array([200, 60, 30], np.uint8), (4, 64, 64, 3))
    assert error(Reencode("libx264", 5)(flat, RNG), flat) < 2.5


def test_odd_sides_lose_their_last_line() -> None:
    assert Reencode()(CLIP[:, :63, :95], RNG).shape == (12, 62, 94, 3)


def test_shapes_and_identities() -> None:
    assert Resize(0.5)(CLIP, RNG).shape == (12, 32, 48, 3)
    assert Resize(size=(40, 50))(CLIP, RNG).shape == (12, 40, 50, 3)
    assert CentreCrop(32, frames=5)(CLIP, RNG).shape == (5, 32, 32, 3)
    assert CentreCrop(80)(CLIP, RNG).shape == (12, 64, 80, 3)
    assert Letterbox(0.25)(CLIP, RNG).shape == (12, 96, 96, 3)
    np.testing.assert_array_equal(Flip()(Flip()(CLIP, RNG), RNG), CLIP)
    np.testing.assert_array_equal(Gamma(1.0)(CLIP, RNG), CLIP)
    np.testing.assert_array_equal(Resample(0.5)(CLIP, RNG), CLIP[::2])
    np.testing.assert_array_equal(Resample(2.0)(CLIP, RNG), np.repeat(CLIP, 2, axis=0))


def test_blur_lowers_detail_and_sharpening_raises_it() -> None:
    def detail(x: np.ndarray) -> float:
        return float(np.abs(np.diff(x.astype(np.float32), axis=2)).mean())

    assert detail(Blur(1.0)(CLIP, RNG)) < detail(CLIP) < detail(Sharpen(1.0)(CLIP, RNG))
    flat = np.full((2, 16, 16, 3), 90, np.uint8)
    np.testing.assert_array_equal(Blur(2.0)(flat, RNG), flat)


def test_noise_has_the_asked_strength() -> None:
    gray = np.full((4, 64, 64, 3), 128, np.uint8)
    assert (Noise(5.0)(gray, RNG).astype(float) - 128).std() == pytest.approx(5.0, rel=0.05)


def test_jpeg_treats_frames_alone() -> None:
    whole, single = Jpeg(8)(CLIP, RNG), Jpeg(8)(CLIP[3:4], RNG)
    np.testing.assert_array_equal(whole[3:4], single)


def test_equal_seeds_give_equal_lives_and_both_kinds_occur() -> None:
    lives = [random_distortions(np.random.default_rng(seed)) for seed in range(60)]
    assert lives == [random_distortions(np.random.default_rng(seed)) for seed in range(60)]
    codecs = {step.codec for step in itertools.chain(*lives) if isinstance(step, Reencode)}
    assert len(codecs) >= 4
    assert [] in lives  # some pixels stay as they were delivered
    first = apply(lives[1], CLIP, np.random.default_rng(1))
    np.testing.assert_array_equal(first, apply(lives[1], CLIP, np.random.default_rng(1)))
