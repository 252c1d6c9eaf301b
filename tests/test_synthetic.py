"""Clips drawn by arithmetic."""

from pathlib import Path

import av
import numpy as np

from specsem.synthetic import frames, write_clip


def test_equal_arguments_give_equal_frames_and_others_give_others() -> None:
    first, again, other = (list(frames(width=64, height=48, count=3, seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first[0].shape == (48, 64, 3)
    assert first[0].dtype == np.uint8


def test_it_moves_and_has_detail() -> None:
    scene = np.stack(list(frames(width=128, height=96, count=10))).astype(float)
    assert np.abs(np.diff(scene, axis=0)).mean() > 1
    assert scene.std() > 20


def test_a_clip_is_what_was_asked_for(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mkv", width=160, height=96, seconds=0.5, fps=30)
    with av.open(tmp_path / "clip.mkv") as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.codec_context.name) == (160, 96, "h264")
        times = [frame.time for frame in container.decode(video=0)]
    assert len(times) == 15
    assert np.allclose(np.diff(times), 1 / 30, atol=2e-3)
