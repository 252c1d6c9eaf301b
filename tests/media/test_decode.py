"""Which frames are looked at: spread, seeks, times, damage, cost."""

from __future__ import annotations

import itertools
import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from specsem.errors import LimitsExceeded
from specsem.media import Clip, DecoderPool, Limits, SamplePlan, Window, _decode, read_frames
from specsem.media._decode import _spread, decode_windows, scan_windows
from specsem.media._measure import decode_cost, isolation_cost, loop_video
from tests.media.corpus import encode, flipped

PLAN = SamplePlan(crop_side=64, crops=1, frame_side=32)
LIMITS = Limits()
PACK = Path(__file__).parents[3] / "shared" / "data"


def decode(path: Path, plan: SamplePlan = PLAN, limits: Limits = LIMITS) -> Clip:
    memory = np.zeros(plan.windows * plan.window_bytes, np.uint8)
    fd = os.open(path, os.O_RDONLY)
    try:
        return decode_windows(fd, plan, limits, lambda i: plan.window_arrays(memory, i * plan.window_bytes))
    finally:
        os.close(fd)


def scan(path: Path, plan: SamplePlan = PLAN) -> tuple[Clip, list[Window]]:
    windows: list[Window] = []
    fd = os.open(path, os.O_RDONLY)
    try:
        clip = scan_windows(
            fd, plan, LIMITS, lambda _: plan.window_arrays(bytearray(plan.window_bytes)), windows.append
        )
    finally:
        os.close(fd)
    return clip, windows


def assert_frames(clip: Clip, path: Path) -> None:
    """The windows' pixels are those of the frames shown at their times, in a row."""
    frames, times = read_frames(path, 10_000)
    height, width = frames.shape[1:3]
    (box,) = clip.windows[0].boxes_N4
    x0, y0, x1, y1 = (round(float(v)) for v in box * [width, height, width, height])
    for window in clip.windows:
        first = int(np.argmin(np.abs(times - window.start_s)))
        assert times[first] == pytest.approx(window.start_s, abs=2e-3)
        expected = frames[first : first + 8, y0:y1, x0:x1]
        assert np.array_equal(window.crops_TNHWC[:, 0], expected), window.start_s


@pytest.mark.parametrize(
    ("runs", "starts"),
    [
        ([0], []),
        ([7], []),
        ([8], [0]),
        ([15], [3]),
        ([16], [0, 8]),
        ([31], [0, 11, 23]),
        ([32], [0, 8, 16, 24]),
        ([64], [0, 18, 37, 56]),
        ([9, 3, 17], [0, 12, 21]),
        ([80, 80], [18, 54, 98, 134]),
    ],
)
def test_spread(runs: list[int], starts: list[int]) -> None:
    found = _spread(runs, 4, 8)
    if len(runs) < 2 or sum(runs) < 100:
        assert found == starts
    assert len(found) == len(starts)
    assert all(b - a >= 8 for a, b in itertools.pairwise(found))
    ends = list(itertools.accumulate(runs))
    for start in found:
        run_end = next(end for end in ends if start < end)
        assert start + 8 <= run_end, "a window across two runs"


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "flv", "avi"])
def test_long_file_by_seeks(container: str, tmp_path: Path) -> None:
    path = encode(
        tmp_path / "v", frames=300, container=container, size=(96, 96), options={"g": "30", "bf": "2"}
    )
    clip = decode(path)
    assert len(clip.windows) == 4
    # One window in each quarter, at the key frame before its middle.
    assert [int(w.start_s // 3) for w in clip.windows] == [0, 1, 2, 3]
    assert clip.info.duration_s == pytest.approx(12.0, abs=0.1)
    assert clip.coverage.fraction == pytest.approx(32 / 300, rel=0.05)
    assert clip.coverage.analysed_s == pytest.approx(4 * 8 / 25, rel=0.01)
    if container != "avi":  # the times of B frames in AVI are guesswork
        assert_frames(clip, path)


@pytest.mark.parametrize(
    "x264", ["open-gop=1:keyint=20:bframes=3", "keyint=500:bframes=3", "keyint=10:bframes=0"]
)
def test_structure_of_groups(x264: str, tmp_path: Path) -> None:
    path = encode(
        tmp_path / "v.mp4", frames=200, container="mp4", size=(96, 96), options={"x264-params": x264}
    )
    clip = decode(path)
    assert len(clip.windows) == 4
    assert clip.warnings == []
    assert_frames(clip, path)


@pytest.mark.parametrize("container", ["h264", "mpeg2video", "ivf", "gif"])
def test_without_seeks(container: str, tmp_path: Path) -> None:
    codec = {"h264": "libx264", "mpeg2video": "mpeg2video", "ivf": "libvpx", "gif": "gif"}[container]
    pix_fmt = "rgb8" if container == "gif" else "yuv420p"
    path = encode(tmp_path / "v", codec, frames=150, container=container, pix_fmt=pix_fmt, size=(96, 96))
    clip = decode(path)
    assert len(clip.windows) == 4
    assert clip.info.duration_s == pytest.approx(6.0, abs=0.1)
    if container in ("ivf", "gif"):
        assert_frames(clip, path)


def test_same_pixels_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = encode(tmp_path / "good.mp4", frames=150, container="mp4", options={"g": "40"})
    bad = flipped(encode(tmp_path / "bad.ts", frames=150, container="mpegts", options={"g": "40"}), 5, 12)
    for path in (good, bad):
        clips = []
        for threads in (1, 2, 2, 4):
            monkeypatch.setattr(_decode, "_THREADS", threads)
            clips.append(decode(path))
        for clip in clips[1:]:
            assert clip.info == clips[0].info
            assert clip.warnings == clips[0].warnings
            for a, b in zip(clip.windows, clips[0].windows, strict=True):
                assert (a.start_s, a.end_s) == (b.start_s, b.end_s)
                assert np.array_equal(a.crops_TNHWC, b.crops_TNHWC)
                assert np.array_equal(a.frames_THWC, b.frames_THWC)


def test_variable_rate_is_told_by_pts(tmp_path: Path) -> None:
    times = [0, 10, 60, 70, 200, 210, 1000, 1010, 1500, 1600, 1700, 1800, 1810, 1820, 1830, 2500]
    path = encode(
        tmp_path / "v.mkv",
        frames=16,
        container="matroska",
        pts=times.__getitem__,
        time_base=Fraction(1, 1000),
    )
    clip, windows = scan(path)
    assert [w.start_s for w in windows] == pytest.approx([0, 1.5], abs=2e-3)
    assert windows[0].end_s == pytest.approx(1.5, abs=2e-3), "until the next frame is shown"
    assert clip.info.fps == pytest.approx(15 / 2.5, rel=0.01)
    assert [w.start_s for w in decode(path).windows] == pytest.approx([0, 1.5], abs=2e-3)


def test_damage_is_left_out(tmp_path: Path) -> None:
    """A hole in the middle: windows stand in sound parts, scan and coverage tell what is missing."""
    path = encode(
        tmp_path / "v.ts", frames=100, container="mpegts", options={"g": "10", "bf": "0", "crf": "8"}
    )
    sound, _ = scan(path)
    assert sound.coverage.fraction == pytest.approx(1.0)
    frames, times = read_frames(path, 1000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 188 * 188
    rng = np.random.default_rng(0)
    for packet in range(middle, middle + 20 * 188, 188):
        content[packet + 100 : packet + 188] = rng.bytes(88)
    path.write_bytes(content)
    clip, windows = scan(path)
    assert "partly_corrupt" in clip.warnings
    assert 0.5 < clip.coverage.fraction < 1
    known = [frame[16:80, 32:96].tobytes() for frame in frames]
    sound_ones = sum(w.crops_TNHWC[t, 0].tobytes() in known for w in windows for t in range(8))
    assert sound_ones > 0.8 * 8 * len(windows)
    assert "partly_corrupt" in decode(path).warnings or len(decode(path).windows) == 4
    assert len(times) == 100


def test_limits_by_what_is_decoded(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", "mpeg4", frames=1000, container="mp4", size=(64, 64))
    assert decode(path, limits=Limits(max_duration_s=41, max_frames=1001)).windows
    with pytest.raises(LimitsExceeded):
        decode(path, limits=Limits(max_duration_s=39))
    with pytest.raises(LimitsExceeded):
        decode(path, limits=Limits(max_frames=900))


def test_cost_does_not_grow_with_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in decoded frames, not in time: other work on the machine plays no part."""
    short = encode(tmp_path / "short.mp4", frames=250, container="mp4", size=(96, 96))
    long = loop_video(short, tmp_path / "long.mp4", times=20)
    decoded = []
    feed = _decode.Source.decode

    def counting(source, packet):  # type: ignore[no-untyped-def]
        decoded.append(1)
        return feed(source, packet)

    monkeypatch.setattr(_decode.Source, "decode", counting)
    for budget in (_decode._SKIP_FRAMES, 3):  # of small frames, of 720p
        monkeypatch.setattr(_decode, "_SKIP_FRAMES", budget)
        counts = []
        for path in (short, long):
            decoded.clear()
            clip = decode(path)
            assert len(clip.windows) == 4
            counts.append(len(decoded))
        assert clip.info.duration_s == pytest.approx(200)
        assert max(counts) < 120 + budget
        assert counts[1] <= 1.5 * counts[0]


def test_measure_runs(tmp_path: Path) -> None:
    """Only that it measures: how much is for ``specsem bench`` to say."""
    path = encode(tmp_path / "v.mp4", frames=48, container="mp4", size=(320, 240))
    with DecoderPool(workers=1) as pool:
        assert isinstance(isolation_cost(path, pool, rounds=2), float)
    cost = decode_cost(rounds=1, short_s=3, long_s=9, size=(160, 96))
    assert cost["short_ms"] > 0
    assert cost["long_over_short"] > 0


def _pack() -> list[dict[str, object]]:
    manifest = PACK / "manifest.jsonl"
    if not manifest.exists():
        return []
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    by_codec: dict[object, list[dict[str, object]]] = {}
    for line in lines:
        by_codec.setdefault(line["codec"], []).append(line)
    return [line for group in by_codec.values() for line in group[:2]][:16]


@pytest.mark.skipif(not _pack(), reason="the data pack is not beside this checkout")
@pytest.mark.parametrize(
    "entry", _pack(), ids=lambda entry: f"{entry['codec']}-{Path(str(entry['path'])).stem}"
)
def test_clips_of_the_pack(entry: dict[str, object]) -> None:
    path = PACK / str(entry["path"])
    info = decode(path).info
    assert {info.width, info.height} == {entry["width"], entry["height"]}
    assert info.codec == entry["codec"]
    frames, _ = read_frames(path, 40)
    assert len(frames) == pytest.approx(min(40, int(str(entry["n_frames"]))), abs=1)


@pytest.mark.parametrize("frames", [65, 75, 88, 100, 130])
def test_a_file_with_one_key_frame_still_has_all_its_windows(tmp_path: Path, frames: int) -> None:
    """Frames are thrown away between windows, but never so many that the last one misses the end."""
    clip = decode(encode(tmp_path / "v.mp4", frames=frames, container="mp4", options={"g": "500"}))
    starts = [w.start_s for w in clip.windows]
    assert len(starts) == 4
    assert starts[-1] > 0.6 * clip.info.duration_s
