"""Odd and broken files: each decodes to known facts or is refused with a known code, and harms no other."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from specsem.errors import MediaError, media_error
from specsem.media import Clip, DecoderPool, Limits, SamplePlan
from tests.media.corpus import CASES, Case, encode

PLAN = SamplePlan(windows=4, frames=8, crop_side=64, crops=2, frame_side=32)
CODES = {
    "not_found", "not_a_video", "no_video_stream", "unsupported", "undecodable", "encrypted", "too_short",
    "too_small", "limits_exceeded", "timeout",
}  # fmt: skip


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(workers=1) as pool:
        while not pool.pids():  # its worker is on the way
            time.sleep(0.01)
        yield pool


def outcome(case: Case, pool: DecoderPool, path: Path) -> Clip:
    if not case.limits:
        return pool.decode(path, PLAN)
    with DecoderPool(workers=1, limits=Limits(**case.limits)) as strict:
        return strict.decode(path, PLAN)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_odd_file(case: Case, pool: DecoderPool, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"  # the name never helps
    case.make(path)
    worker = pool.pids()
    if case.code is not None:
        with pytest.raises(MediaError) as caught:
            outcome(case, pool, path)
        assert caught.value.code == case.code
        assert str(tmp_path) not in caught.value.message
    else:
        clip = outcome(case, pool, path)
        check(case, clip)
        check_scan(pool, path)
    assert pool.pids() == worker, "no file of the corpus may cost a worker"


def check(case: Case, clip: Clip) -> None:
    for name, expected in case.facts.items():
        value = getattr(clip.info, name)
        if isinstance(expected, float):
            assert math.isclose(value, expected, rel_tol=0.02, abs_tol=0.002), name
        else:
            assert value == expected, name
    assert set(case.warns) <= set(clip.warnings)
    if case.quiet:
        assert clip.warnings == []
    assert clip.windows
    assert "brief" in clip.warnings or clip.info.frames_scored == 8 * len(clip.windows)
    end = 0.0
    for window in clip.windows:
        assert 0 <= window.start_s <= window.end_s <= clip.info.duration_s + 1e-9
        assert window.start_s >= end - 1e-9 or "irregular_timestamps" in clip.warnings, "windows overlap"
        end = window.end_s
        assert window.crops_TNHWC.shape == (8, 2, 64, 64, 3)
        assert window.frames_THWC.shape == (8, 32, 32, 3)
        assert window.crops_TNHWC.std() > 5, "blank pixels"
        assert window.frames_THWC.std() > 5
    assert 0 < clip.coverage.fraction <= 1


def check_scan(pool: DecoderPool, path: Path) -> None:
    with pool.scan(path, PLAN) as scan:
        windows = list(scan)
    assert windows
    assert all(0 <= w.start_s <= w.end_s <= scan.clip.info.duration_s + 1e-9 for w in windows)
    assert 0 < scan.clip.coverage.fraction <= 1


def test_there_are_enough() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("kind", ["mp4", "matroska", "mpegts", "avi"])
def test_mutations(kind: str, pool: DecoderPool, tmp_path: Path) -> None:
    """Whatever is done to a file: a clip or a stable code, and the next file decodes."""
    path = tmp_path / "video"
    codec = "mpeg4" if kind == "avi" else "libx264"
    encode(path, codec, frames=20, container=kind, size=(96, 80))
    original = path.read_bytes()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        content = bytearray(original)
        match seed % 3:
            case 0:  # single bytes, more often in the header
                for at in (len(content) * rng.random(8) ** 3).astype(int):
                    content[at] = rng.integers(256)
            case 1:  # a block moved
                size, source, target = (int(n) for n in rng.integers(1, len(content) // 2, 3))
                content[target : target + size] = content[source : source + size]
            case _:  # a block lost
                start = int(rng.integers(20, len(content)))
                del content[start : start + int(rng.integers(1, 400))]
        path.write_bytes(content)
        assert _result(pool, path) in {"decoded", *CODES}
    path.write_bytes(original)
    assert len(pool.decode(path, PLAN).windows) == 2


def _result(pool: DecoderPool, path: Path) -> str:
    try:
        clip = pool.decode(path, PLAN)
    except MediaError as error:
        return error.code
    assert all(w.crops_TNHWC.shape == (8, 2, 64, 64, 3) for w in clip.windows)
    return "decoded"


def test_neighbours_are_never_read(pool: DecoderPool, tmp_path: Path) -> None:
    """Files that point to a good neighbour, in every dialect, yield no pixel of it."""
    encode(tmp_path / "neighbour.mp4", container="mp4")
    encode(tmp_path / "neighbour.ts", container="mpegts")
    url = (tmp_path / "neighbour.mp4").resolve().as_uri()
    texts = [
        "ffconcat version 1.0\nfile neighbour.mp4\n",
        f"ffconcat version 1.0\nfile {url}\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nneighbour.ts\n#EXT-X-ENDLIST\n",
        f"#EXTM3U\n#EXTINF:1,\n{url}\n",
        f'<?xml version="1.0"?><MPD><BaseURL>{url}</BaseURL></MPD>',
        f"file '{tmp_path / 'neighbour.mp4'}'\n",
        "RTSPtext\nneighbour.mp4",
        "[Reference]\nRef1=neighbour.mp4\n",
    ]
    for name in ("list.mp4", "list.ffconcat", "list.m3u8", "list.mpd"):
        for text in texts:
            (tmp_path / name).write_text(text)
            with pytest.raises(MediaError) as caught:
                pool.decode(tmp_path / name, PLAN)
            assert caught.value.code == "not_a_video"


def test_codes_cross_the_process_border() -> None:
    assert all(media_error(code, "").code == code for code in CODES)
    assert threading.active_count() < 50
