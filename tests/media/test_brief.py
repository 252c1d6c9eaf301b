"""Videos of fewer frames than a window."""

from pathlib import Path

import numpy as np
import pytest

from specsem.errors import TooShort
from specsem.media import DecoderPool, SamplePlan
from specsem.synthetic import write_clip

PLAN = SamplePlan(windows=4, frames=8, crop_side=48, crops=1, frame_side=16)


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("brief") / "five.mp4"
    write_clip(path, width=96, height=64, seconds=0.2, fps=25)
    return path


def test_five_frames_are_played_back_and_forth(brief: Path) -> None:
    with DecoderPool(workers=1) as pool:
        clip = pool.decode(brief, PLAN)
        with pool.scan(brief, PLAN) as scan:
            [scanned] = scan
    [window] = clip.windows
    for pixels, again in (
        (window.crops_TNHWC, scanned.crops_TNHWC),
        (window.frames_THWC, scanned.frames_THWC),
    ):
        np.testing.assert_array_equal(pixels[5:], pixels[[3, 2, 1]])
        assert not np.array_equal(pixels[4], pixels[3])
        np.testing.assert_array_equal(pixels, again)
    assert clip.info.frames_scored == scan.clip.info.frames_scored == 5
    assert clip.warnings == scan.clip.warnings == ["brief"]
    assert window.end_s == pytest.approx(0.2, abs=0.01)  # repeated frames take no time
    assert clip.coverage.fraction == pytest.approx(1.0, abs=0.01)


def test_three_frames_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "three.mp4"
    write_clip(path, width=96, height=64, seconds=0.12, fps=25)
    with DecoderPool(workers=1) as pool, pytest.raises(TooShort, match="3 frames"):
        pool.decode(path, PLAN)
