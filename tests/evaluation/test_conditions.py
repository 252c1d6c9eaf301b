"""Every condition ends in a file of the facts that it promises."""

from pathlib import Path

import av
import numpy as np
import pytest

from specsem.evaluation.conditions import CONDITIONS, QUICK, condition, materialise, workshop_of
from specsem.synthetic import write_clip

WRITTEN = [name for name, c in CONDITIONS.items() if c.codec is not None]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of 96x64 at 25 a second."""
    path = tmp_path_factory.mktemp("conditions") / "clip.mp4"
    write_clip(path, width=96, height=64, seconds=12 / 25)
    return path


def facts(path: Path) -> tuple[str, int, int, int, int]:
    """Codec, width, height, frames, frames a second."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        count = sum(1 for _ in file.decode(video=0))
        name = stream.codec_context.name
        return name, stream.width, stream.height, count, round(float(stream.average_rate or 0))


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_condition_writes(name: str, clip: Path, tmp_path: Path) -> None:
    codec, *rest = facts(materialise(clip, name, tmp_path))
    expected = {
        "level": [96, 64, 12, 24],  # the clip has no more than this
        "canonical": [512, 512, 4, 8],
        "half-size": [48, 32, 12, 25],
        "double-size": [192, 128, 12, 25],
        "fps-24": [96, 64, 12, 24],
        "crop": [72, 48, 12, 25],
        "letterbox": [96, 80, 12, 25],
    }
    assert rest == expected.get(name, [96, 64, 12, 25])
    family = {"libx265": "hevc", "libsvtav1": "libdav1d"}.get(str(CONDITIONS[name].codec), "h264")
    assert codec.startswith(family)


def test_as_is_is_the_file_itself(clip: Path, tmp_path: Path) -> None:
    assert materialise(clip, "as-is", tmp_path) == clip
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no file"):
        CONDITIONS["as-is"].write(np.zeros((1, 64, 64, 3), np.uint8), 25, tmp_path / "x.mp4")


def test_level_and_canonical_make_the_container_facts_of_any_clip_the_same(tmp_path: Path) -> None:
    for name in ("level", "canonical"):
        written = []
        for width, height, fps in ((640, 360, 30.0), (512, 512, 8.0)):
            frames_THWC = np.zeros((round(fps * 3), height, width, 3), np.uint8)
            CONDITIONS[name].write(frames_THWC, fps, tmp_path / "clip.mp4")
            written.append(facts(tmp_path / "clip.mp4"))
        assert written[0] == written[1]


def test_the_grid_of_the_method_is_whole_and_headlines_are_quick() -> None:
    assert {"h264-crf36", "h265-crf28", "av1", "jpeg", "noise", "flip", "blur-0.5"} < set(CONDITIONS)
    assert set(QUICK) == {c.name for c in CONDITIONS.values() if c.kind == "headline"}


def test_an_unknown_condition_is_refused() -> None:
    with pytest.raises(ValueError, match="sepia"):
        condition("sepia")


def test_other_processes_make_the_same_file(clip: Path, tmp_path: Path) -> None:
    with workshop_of(1) as workshop:
        path = workshop.submit(materialise, clip, "half-size", tmp_path).result()
    assert facts(path) == ("h264", 48, 32, 12, 25)
