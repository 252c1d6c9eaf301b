"""One file's way from path to answer."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from specsem.errors import Cancelled, MediaError
from specsem.media import DecoderPool
from specsem.pipeline import file_sha256, score_file
from specsem.result import ScoredFile
from specsem.scorer import Scorer


@pytest.fixture(scope="module")
def parts(tiny_models: Path) -> Iterator[dict[str, object]]:
    with pytest.MonkeyPatch.context() as patch, DecoderPool(workers=1) as pool:
        patch.setenv("SPECSEM_MODELS_DIR", str(tiny_models))
        yield {"pool": pool, "scorer": Scorer(device="cpu")}


def test_the_answer_holds_what_the_contract_promises(parts: dict, drawn_clip: Path) -> None:
    answer = score_file(drawn_clip, **parts)
    assert answer.path == str(drawn_clip)
    assert answer.sha256 == hashlib.sha256(drawn_clip.read_bytes()).hexdigest() == file_sha256(drawn_clip)
    assert (answer.media.width, answer.media.height, answer.media.codec) == (320, 240, "h264")
    assert answer.media.duration_s == pytest.approx(2.0, abs=0.1)
    assert 0 < answer.coverage.fraction <= 1
    assert answer.media.frames_scored == 8 * len(answer.segments)
    assert [s.start_s for s in answer.segments] == sorted(s.start_s for s in answer.segments)
    assert set(answer.timing_ms) == {"decode", "provenance", "forward", "total"}
    assert answer.provenance.c2pa.status == "absent"
    assert answer.provenance.trail is not None
    assert answer.provenance.trail.tracks == ["video h264"]
    assert ScoredFile.model_validate_json(answer.model_dump_json()) == answer


def test_twice_the_same_file_is_twice_the_same_answer(parts: dict, drawn_clip: Path) -> None:
    first, second = (score_file(drawn_clip, **parts).model_copy(update={"timing_ms": {}}) for _ in range(2))
    assert first == second


def test_thorough_covers_the_whole_time_line_and_tells_its_progress(parts: dict, drawn_clip: Path) -> None:
    heard: list[float] = []
    answer = score_file(drawn_clip, **parts, thorough=True, on_progress=heard.append)
    assert answer.coverage.fraction == pytest.approx(1.0, abs=0.01)
    assert answer.segments[0].start_s == 0
    for before, after in zip(answer.segments, answer.segments[1:], strict=False):
        assert after.start_s <= before.end_s + 1e-6
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(2.0, abs=0.1)


def test_a_bad_file_raises_its_code(parts: dict, tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("not a video")
    with pytest.raises(MediaError) as raised:
        score_file(path, **parts)
    assert raised.value.code == "not_a_video"


def test_cancelled_before_it_begins(parts: dict, drawn_clip: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        score_file(drawn_clip, **parts, cancel=cancel)
