"""Windows after a delivery, and windows at given times."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from specsem.errors import TooShort
from specsem.media import DELIVERIES, DecoderPool, SamplePlan
from specsem.synthetic import write_clip

PLAN = SamplePlan(windows=2, frames=8, crop_side=64, crops=1, frame_side=64)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(workers=1) as pool:
        yield pool


def test_what_each_delivery_makes_of_a_clip(pool: DecoderPool, drawn_clip: Path) -> None:
    sizes = {name: pool.decode(drawn_clip, replace(PLAN, delivery=name)).info for name in DELIVERIES}
    assert {name: (info.width, info.height) for name, info in sizes.items()} == {
        "half_size": (160, 120),
        "reencode": (320, 240),
        "crop": (256, 192),
        "flip": (320, 240),
        "fewer_frames": (320, 240),
    }


def test_a_mirror_image_is_exact(pool: DecoderPool, drawn_clip: Path) -> None:
    before, after = pool.decode(drawn_clip, PLAN), pool.decode(drawn_clip, replace(PLAN, delivery="flip"))
    for plain, flipped in zip(before.windows, after.windows, strict=True):
        assert np.array_equal(flipped.frames_THWC, plain.frames_THWC[:, :, ::-1])
        assert not np.array_equal(flipped.frames_THWC, plain.frames_THWC)


def test_a_crop_holds_the_pixels_of_the_middle(pool: DecoderPool, drawn_clip: Path) -> None:
    before, after = pool.decode(drawn_clip, PLAN), pool.decode(drawn_clip, replace(PLAN, delivery="crop"))
    # The middle square of 64 lies in the same place of the file's frame before and after.
    assert np.array_equal(before.windows[0].crops_TNHWC, after.windows[0].crops_TNHWC)
    assert before.windows[0].boxes_N4[0, 0] != after.windows[0].boxes_N4[0, 0]


def test_another_encode_changes_pixels_a_little(pool: DecoderPool, drawn_clip: Path) -> None:
    before, after = pool.decode(drawn_clip, PLAN), pool.decode(drawn_clip, replace(PLAN, delivery="reencode"))
    change = np.abs(before.windows[0].crops_TNHWC.astype(float) - after.windows[0].crops_TNHWC).mean()
    assert 0.05 < change < 12


def test_at_half_the_rate_a_window_spans_twice_the_time(pool: DecoderPool, drawn_clip: Path) -> None:
    before = pool.decode(drawn_clip, replace(PLAN, windows=1))
    after = pool.decode(drawn_clip, replace(PLAN, windows=1, delivery="fewer_frames"))
    [plain], [fewer] = before.windows, after.windows
    assert fewer.end_s - fewer.start_s == pytest.approx(2 * (plain.end_s - plain.start_s), rel=0.1)
    assert after.info.frames_scored == 8
    there = pool.decode(drawn_clip, replace(PLAN, windows=1, starts_s=(fewer.start_s,)))
    assert np.array_equal(fewer.frames_THWC[:4], there.windows[0].frames_THWC[::2])


def test_of_too_few_frames_no_half_is_taken(pool: DecoderPool, tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    write_clip(path, width=128, height=96, seconds=0.4)  # ten frames
    assert len(pool.decode(path, PLAN).windows) == 1
    with pytest.raises(TooShort):
        pool.decode(path, replace(PLAN, delivery="fewer_frames"))


@pytest.mark.parametrize("seconds", [2.0, 6.0])  # decoded whole, and sought
def test_windows_at_given_times_are_those_windows(pool: DecoderPool, tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, width=128, height=96, seconds=seconds)
    spread = pool.decode(path, replace(PLAN, windows=4)).windows
    starts = tuple(window.start_s for window in spread[1:3])
    there = pool.decode(path, replace(PLAN, starts_s=starts, frame_side=128)).windows
    assert tuple(window.start_s for window in there) == starts
    for window, again in zip(spread[1:3], there, strict=True):
        assert np.array_equal(window.crops_TNHWC, again.crops_TNHWC)
        assert again.frames_THWC.shape[1] == 128
