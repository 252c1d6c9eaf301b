"""Which files a path stands for; order, overlap, and one file's trouble staying its own.."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from specsem.errors import Cancelled, NotAVideo, Undecodable
from specsem.files import Outcome, Source, find_sources, score_files
from specsem.media import Clip, Coverage, DecoderPool, MediaInfo, SamplePlan, Window
from specsem.pipeline import printable_path
from specsem.registry import ModelRecord
from specsem.result import FailedFile, ScoredFile, Segment, Threshold
from specsem.scorer import ClipVerdict, Scorer


def clip(number: int) -> Clip:
    """A clip that a verdict can be traced back from: its length is its number."""
    info = MediaInfo("mp4", "h264", 320, 240, 25.0, float(number), frames_scored=8)
    nothing = np.zeros((8, 0, 0, 0, 3), np.uint8)
    window = Window(0.0, 0.3, nothing, np.zeros((8, 0, 0, 3), np.uint8), np.zeros((0, 4), np.float32))
    return Clip(info, [window], Coverage(0.3, float(number), 0.1), decode_ms=5.0)


class FakePool:
    """Decodes `7.mp4` to the clip 7. ``behave`` may raise, wait or count."""

    def __init__(self, behave: Callable[[Path], None] = lambda _path: None) -> None:
        self.behave = behave

    def decode(self, path: Path, _plan: SamplePlan, *, cancel: threading.Event | None = None) -> Clip:
        self.behave(path)
        if cancel is not None and cancel.is_set():
            raise Cancelled("No longer wanted.")
        path.read_bytes()
        return clip(int(path.stem))


class FakeScorer:
    """Gives each clip a verdict, and remembers the batches."""

    plan = SamplePlan()
    record = ModelRecord("fake", "1", "Apache-2.0", "", "0" * 64, {}, Path())

    def __init__(self, behave: Callable[[], None] = lambda: None) -> None:
        self.behave = behave
        self.batches: list[int] = []

    def score_batch(self, clips: Sequence[Clip]) -> list[ClipVerdict]:
        self.behave()
        self.batches.append(len(clips))
        threshold = Threshold(value=0.9, lower=0.2, max_fpr=0.01, fpr_upper95=0.03, calibration_n=100)
        segments = [Segment(start_s=0, end_s=1, score=0.5)]
        return [ClipVerdict("inconclusive", 0.5, c.info.duration_s, threshold, [], segments) for c in clips]


def score(
    sources: Sequence[Source] | Iterator[Source],
    pool: FakePool | None = None,
    scorer: Any = None,
    **options: Any,
) -> list[Outcome]:
    stream = score_files(
        sources,
        pool=cast(DecoderPool, pool or FakePool()),
        scorer=cast(Scorer, scorer or FakeScorer()),
        **options,
    )
    return list(stream)


@pytest.fixture
def numbered(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.mp4" for number in range(20)]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


# -- which files --------------------------------------------------------------------------------------------


def test_a_folder_gives_its_files_in_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.mp4", "a", "sub/c.mp4", ".hidden.mp4", ".git/d.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "z-link.mp4").symlink_to(tmp_path / "b.mp4")
    *found, end = find_sources([tmp_path])
    assert [source.path.relative_to(tmp_path).as_posix() for source in found] == [
        "a",
        "b.mp4",
        "z-link.mp4",
        "sub/c.mp4",
    ]
    assert {source.kind for source in found} == {"found"}
    assert (end.path, end.kind) == (tmp_path, "end_of_folder")


def test_a_named_file_is_kept_whatever_it_is(tmp_path: Path) -> None:
    sources = list(find_sources([tmp_path / ".hidden.mp4", tmp_path / "nothing"]))
    assert [source.kind for source in sources] == ["named", "named"]


def test_names_that_are_no_utf8_become_text() -> None:
    assert printable_path(os.fsdecode(b"caf\xe9.mp4")) == r"caf\xe9.mp4"
    assert printable_path("café.mp4") == "café.mp4"


# -- order and overlap --------------------------------------------------------------------------------------


def test_answers_come_in_the_order_given(numbered: list[Path]) -> None:
    def later_is_faster(path: Path) -> None:
        time.sleep(0.01 if int(path.stem) % 4 == 0 else 0)

    outcomes = score(list(find_sources(numbered)), FakePool(later_is_faster))
    answers = [outcome.answer for outcome in outcomes]
    assert [Path(answer.path).stem for answer in answers if answer] == [str(n) for n in range(20)]
    assert [a.logit for a in answers if isinstance(a, ScoredFile)] == [float(n) for n in range(20)]


def test_the_next_files_decode_while_the_model_works(numbered: list[Path]) -> None:
    """The first forward ends only after the second file was decoded: no overlap would wait forever."""
    second_decoded = threading.Event()

    def tell(path: Path) -> None:
        if path.stem == "1":
            second_decoded.set()

    def wait() -> None:
        assert second_decoded.wait(10)

    assert len(score(list(find_sources(numbered[:4])), FakePool(tell), FakeScorer(wait))) == 4


def test_what_is_ready_shares_a_forward_and_decoding_stays_bounded(numbered: list[Path]) -> None:
    decoded: list[str] = []
    ahead: list[int] = []
    first = threading.Event()

    def note(path: Path) -> None:
        decoded.append(path.stem)

    class Slow(FakeScorer):
        def score_batch(self, clips: Sequence[Clip]) -> list[ClipVerdict]:
            if not first.is_set():
                first.set()
                time.sleep(0.2)
            ahead.append(len(decoded) - sum(self.batches))
            return super().score_batch(clips)

    scorer = Slow()
    score(list(find_sources(numbered)), FakePool(note), scorer, batch=4)
    assert sum(scorer.batches) == 20
    assert max(scorer.batches) == 4
    assert max(ahead) <= 8


def test_closing_cancels_what_is_under_way(numbered: list[Path]) -> None:
    cancelled = threading.Event()

    class Endless(FakePool):
        def decode(self, path: Path, plan: SamplePlan, *, cancel: threading.Event | None = None) -> Clip:
            if path.stem == "0":
                return super().decode(path, plan, cancel=cancel)
            assert cancel is not None
            if cancel.wait(10):
                cancelled.set()
            raise Cancelled("No longer wanted.")

    stream = score_files(
        find_sources(numbered), pool=cast(DecoderPool, Endless()), scorer=cast(Scorer, FakeScorer())
    )
    next(stream)
    stream.close()
    assert cancelled.wait(5)


# -- trouble ------------------------------------------------------------------------------------------------


def refuse(code: type[Exception], *names: str) -> Callable[[Path], None]:
    def behave(path: Path) -> None:
        if path.stem in names:
            raise code("Because.")

    return behave


def test_a_bad_file_fails_alone(numbered: list[Path]) -> None:
    answers = [o.answer for o in score(list(find_sources(numbered[:3])), FakePool(refuse(Undecodable, "1")))]
    assert isinstance(answers[0], ScoredFile)
    assert answers[1] == FailedFile(
        path=str(numbered[1]), error={"code": "undecodable", "message": "Because."}
    )
    assert isinstance(answers[2], ScoredFile)


def test_a_defect_fails_its_file_only_and_shows_nothing_of_itself(numbered: list[Path]) -> None:
    answers = [
        o.answer for o in score(list(find_sources(numbered[:2])), FakePool(refuse(ZeroDivisionError, "0")))
    ]
    assert isinstance(answers[0], FailedFile)
    assert answers[0].error.code == "internal_error"
    assert "Because" not in answers[0].error.message
    assert isinstance(answers[1], ScoredFile)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    [outcome] = score(list(find_sources([tmp_path / "1.mp4"])))
    assert isinstance(outcome.answer, FailedFile)
    assert outcome.answer.error.code == "not_found"


def test_what_lies_beside_videos_is_passed_over_in_folders_only(numbered: list[Path]) -> None:
    pool = FakePool(refuse(NotAVideo, *(str(n) for n in range(1, 20))))
    outcomes = score(list(find_sources([numbered[0].parent, numbered[1]])), pool)
    answers = [outcome.answer for outcome in outcomes if outcome.answer]
    assert [(Path(a.path).name, type(a)) for a in answers] == [("0.mp4", ScoredFile), ("1.mp4", FailedFile)]
    assert len(outcomes) == 22  # twenty files, the folder's end, the named one


def test_a_folder_without_videos_says_so(tmp_path: Path, numbered: list[Path]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    answers = [o.answer for o in score(list(find_sources([empty, *numbered[:1], empty]))) if o.answer]
    assert [getattr(getattr(a, "error", None), "code", None) for a in answers] == [
        "not_found",
        None,
        "not_found",
    ]
    assert answers[0].path == str(empty)
