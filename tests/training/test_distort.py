"""Distortions keep what they must keep, and real encoders really encode."""

import inspect
import io
import itertools
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specsem.synthetic import frames
from specsem.training.distort import (
    Blur,
    CentreCrop,
    Colour,
    Crop,
    Flip,
    Gamma,
    Jpeg,
    Letterbox,
    Moire,
    Noise,
    Overlay,
    Reencode,
    Resample,
    Resize,
    SensorNoise,
    Sharpen,
    Stills,
    apply,
    encode,
    keeps_place,
    random_distortions,
    scaling,
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
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "an encoder gave this thread real-time priority"


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
    for number in range(0, 60, 3):
        first, second = (apply(lives[number], CLIP, np.random.default_rng(number)) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert first.dtype == np.uint8
        assert first.shape[-1] == 3


def test_the_odds_of_a_life() -> None:
    """About half are resized, three quarters encoded, a sixth untouched; a life knows nothing of its clip."""
    assert list(inspect.signature(random_distortions).parameters) == ["rng"]
    rng = np.random.default_rng(7)
    lives = [random_distortions(rng) for _ in range(4000)]

    def share(*kinds: type) -> float:
        return sum(any(isinstance(step, kinds) for step in life) for life in lives) / len(lives)

    assert sum(not life for life in lives) / len(lives) == pytest.approx(0.18, abs=0.03)
    assert share(Resize) == pytest.approx(0.50, abs=0.04)
    assert share(Reencode) == pytest.approx(0.75, abs=0.04)
    for kind in (Resample, Blur, Noise, SensorNoise, Sharpen, Gamma, Colour, Crop, Flip, Overlay, Letterbox):
        assert 0.02 < share(kind) < 0.2, kind
    assert 0.005 < share(Moire) < 0.03
    slow = [
        s for life in lives for s in life if isinstance(s, Reencode) and s.codec in {"libvpx-vp9", "libx265"}
    ]
    assert len(slow) / len(lives) < 0.13
    assert {s.kernel for life in lives for s in life if isinstance(s, Resize)} >= {
        "lanczos",
        "area",
        "linear",
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_a_region_chosen_by_its_scaling_ends_large_enough(seed: int) -> None:
    steps = [
        s for s in random_distortions(np.random.default_rng(seed)) if not isinstance(s, Reencode | Stills)
    ]
    down, across = scaling(steps)
    clip = np.zeros((2, round(256 / down), round(256 / across), 3), np.uint8)
    height, width = apply(steps, clip, np.random.default_rng(seed)).shape[1:3]
    assert min(height, width) >= 250
    assert keeps_place([])
    assert not keeps_place([Flip()])


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear", "linear", "lanczos", "area", "hamming", "nearest"])
def test_kernels_keep_flat_colour_and_scale_the_sides_apart(kernel: str) -> None:
    flat = np.full((2, 40, 60, 3), (10, 128, 240), np.uint8)
    resized = Resize(0.5, kernel, aspect=4 / 3)(flat, RNG)
    np.testing.assert_array_equal(resized, flat[:, :20, :40])


def test_a_kernel_without_low_pass_aliases() -> None:
    stripes = np.zeros((1, 32, 96, 3), np.uint8)
    stripes[:, :, ::3] = 255
    assert Resize(0.4, "linear")(stripes, RNG).std() > 2 * Resize(0.4, "bilinear")(stripes, RNG).std()


def test_stills_lose_more_at_lower_quality_and_with_less_chroma() -> None:
    for name in ("jpeg", "webp"):
        fine, coarse = (Stills(name, q)(CLIP, RNG) for q in (95, 20))
        assert fine.shape == coarse.shape == CLIP.shape
        assert 0 < error(fine, CLIP) < error(coarse, CLIP)
        np.testing.assert_array_equal(Stills(name, 20)(CLIP[5:6], RNG), coarse[5:6])
    assert error(Stills("jpeg", 90, 0)(CLIP, RNG), CLIP) < error(Stills("jpeg", 90, 2)(CLIP, RNG), CLIP)


def test_sensor_noise_grows_with_the_signal_and_correlates_as_asked() -> None:
    ramp = np.full((12, 64, 64, 3), 40, np.uint8)
    ramp[:, :, 32:] = 200

    def residue(**how: float) -> np.ndarray:
        return SensorNoise(**how)(ramp, np.random.default_rng(3)).astype(float) - ramp

    noise = residue(read=3.0, shot=0.2)
    assert noise[:, :, :32].std() == pytest.approx(np.sqrt(9 + 0.2 * 40), rel=0.05)
    assert noise[:, :, 32:].std() == pytest.approx(np.sqrt(9 + 0.2 * 200), rel=0.05)
    held, grainy = residue(read=6.0, shot=0, hold=0.7), residue(read=6.0, shot=0, grain=1.0)
    assert np.corrcoef(held[:-1].ravel(), held[1:].ravel())[0, 1] == pytest.approx(0.7, abs=0.04)
    assert np.corrcoef(grainy[:, 1:].ravel(), grainy[:, :-1].ravel())[0, 1] > 0.6
    assert held.std() == pytest.approx(6.0, rel=0.05)
    assert grainy[:, 8:-8, 8:-8].std() == pytest.approx(6.0, rel=0.08)
    gray = residue(read=4.0, shot=0, gray=True)
    np.testing.assert_array_equal(gray[..., 0], gray[..., 2])


def test_colour_leaves_brightness_and_shifts_chroma() -> None:
    luma = np.array([0.299, 0.587, 0.114])
    assert np.abs(Colour(0.0)(CLIP, RNG) @ luma - CLIP @ luma).max() < 1.1
    assert np.ptp(Colour(0.0)(CLIP, RNG), axis=-1).max() == 0
    np.testing.assert_array_equal(Colour(1.0)(CLIP, RNG), CLIP)
    chroma = CLIP[..., 0].astype(float) - CLIP @ luma
    moved = Colour(1.0, (0, 2))(CLIP, RNG).astype(float)
    moved = moved[..., 0] - moved @ luma
    assert np.abs(moved[:, :, 2:] - chroma[:, :, :-2]).mean() < 1 < np.abs(moved - chroma).mean()


def test_moire_is_a_weak_wave() -> None:
    flat = np.full((2, 64, 64, 3), 100, np.uint8)
    waved = Moire(0.05, (0.0, 0.125))(flat, RNG)
    assert 3 <= np.abs(waved.astype(int) - 100).max() <= 5
    np.testing.assert_array_equal(waved[:, :, :-8], waved[:, :, 8:])


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["box", "caption", "logo"]), st.integers(24, 90), st.integers(24, 90), st.integers(0, 999)
)
def test_overlays_stay_in_place_and_cover_a_part(kind: str, height: int, width: int, seed: int) -> None:
    gray = np.full((3, height, width, 3), 90, np.uint8)
    covered = Overlay(kind, 0.8)(gray, np.random.default_rng(seed))
    assert covered.shape == gray.shape
    assert covered.dtype == np.uint8
    np.testing.assert_array_equal(covered[0], covered[2])
    assert 0 <= (covered != gray).any(-1).mean() < 0.7
    assert (gray == 90).all()  # the argument is left alone
    np.testing.assert_array_equal(Overlay(kind, 0.0)(gray, np.random.default_rng(seed)), gray)


def test_an_unknown_overlay_is_refused() -> None:
    with pytest.raises(ValueError, match="banner"):
        Overlay("banner")(CLIP, RNG)


@given(st.floats(0.3, 1.0), st.floats(0.3, 1.0), st.integers(0, 99))
def test_a_crop_is_a_rectangle_of_the_frame(height: float, width: float, seed: int) -> None:
    places = np.arange(40 * 50, dtype=np.int32).reshape(1, 40, 50, 1)
    cropped = Crop(height, width)(places, np.random.default_rng(seed))
    assert cropped.shape == (1, round(40 * height), round(50 * width), 1)
    y, x = divmod(int(cropped[0, 0, 0, 0]), 50)
    np.testing.assert_array_equal(cropped, places[:, y : y + cropped.shape[1], x : x + cropped.shape[2]])


def test_a_blended_rate_lies_between_its_frames() -> None:
    steps = np.arange(0, 200, 20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    blended = Resample(2.0, blend=True)(steps, RNG)[:, 0, 0, 0]
    np.testing.assert_array_equal(blended[:-1], np.arange(0, 190, 10))
    np.testing.assert_array_equal(Letterbox(0.25, pillars=True)(steps, RNG)[:, :, 1:-1], steps)


def test_equal_frames_make_equal_files_whatever_lay_in_memory() -> None:
    """x264's macroblock tree read unwritten memory where a side is no multiple of 16."""
    clip = Resize(size=(88, 140))(CLIP, RNG)
    files = []
    for fill in range(12):
        litter = [np.full((90 + fill, 150, 3), 17 * fill, np.uint8) for _ in range(50)]
        del litter
        buffer = io.BytesIO()
        encode(clip, buffer, quality=32, gop=12, fps=8)
        files.append(buffer.getvalue())
    assert len(set(files)) == 1
