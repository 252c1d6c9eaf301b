"""What people read, on made-up answers."""

from datetime import UTC, datetime

import pytest

from specsem.output import ProgressBar, Report, time_line
from specsem.result import (
    C2pa,
    Coverage,
    ErrorBody,
    FailedFile,
    Media,
    Model,
    Provenance,
    ScoredFile,
    Segment,
    Threshold,
    Trail,
    Verdict,
)


def segment(start_s: float, end_s: float, score: float) -> Segment:
    return Segment(start_s=start_s, end_s=end_s, score=score)


def scored(path: str, verdict: Verdict, score: float, fps: float | None = 25.0) -> ScoredFile:
    return ScoredFile(
        path=path,
        sha256="0" * 64,
        verdict=verdict,
        score=score,
        logit=0.0,
        threshold=Threshold(value=0.9, lower=0.2, max_fpr=0.01, fpr_upper95=0.034, calibration_n=284),
        reasons=["static"] if verdict == "inconclusive" else [],
        segments=[segment(0.0, 0.5, score), segment(61.0, 61.5, 0.1)],
        coverage=Coverage(analysed_s=1.0, duration_s=62.0, fraction=1 / 62),
        media=Media(
            container="mp4", codec="h264", width=640, height=360, fps=fps, duration_s=62.0, frames_scored=16
        ),
        provenance=Provenance(),
        model=Model(name="specsem-compact", version="1", sha256="ab" * 32),
        timing_ms={},
        warnings=["The end is missing."],
    )


FAILURE = FailedFile(path="b.txt", error=ErrorBody(code="not_a_video", message="No container."))


def test_a_row_for_each_and_a_sum(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(details=False)
    long = "x" * 300 + ".mp4"
    for answer in (scored("a.mp4", "generated", 0.95), FAILURE, scored(long, "inconclusive", 0.5)):
        report.write(answer)
    report.close()
    header, first, second, third, blank, total = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == ["generated", "0.950"]
    assert second.split() == ["not", "scored", "b.txt", "not_a_video:", "No", "container."]
    assert third.endswith(f"{long}  (static)"), "a long name is neither cut nor wrapped"
    assert first.index("a.mp4") == second.index("b.txt") == header.index("FILE")
    assert blank == ""
    assert total == "3 files: 1 generated, 1 not scored, 1 inconclusive"
    assert report.failures == 1


def test_details(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(details=True)
    report.write(scored("a.mp4", "inconclusive", 0.5, fps=None))
    report.close()
    shown = capsys.readouterr().out
    assert "inconclusive, score 0.500" in shown
    assert "static" in shown
    assert "1.00% wanted, at most 3.40% with 95% confidence (284 camera clips)" in shown
    assert "1:02" in shown
    assert "640x360, 62.0 s" in shown
    assert "The end is missing." in shown


def test_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    trail = Trail(
        encoder="x264 - core 164",
        muxer="Lavf\x1b[31m",
        created_at=datetime(2026, 5, 28, 20, 26, 40, tzinfo=UTC),
        brands=["isom", "mp41"],
        profile="High",
        pixel_format="yuv420p",
        gop="IBBP",
        keyframe_interval=250.0,
        edit_lists=1,
        tracks=["video h264", "audio aac"],
        trailing_bytes=100,
    )
    c2pa = C2pa(status="valid", detail="Signed by Camera 7 and unchanged since.")
    for trail_or_none in (trail, Trail(), None):
        report = Report(details=True)
        told = Provenance(c2pa=c2pa, trail=trail_or_none)
        report.write(scored("a.mp4", "generated", 0.95).model_copy(update={"provenance": told}))
    shown = capsys.readouterr().out
    assert shown.count("origin      Signed by Camera 7 and unchanged since.\n") == 3
    assert (
        "written     encoder x264 - core 164, muxer Lavf\\x1b[31m, made at 2026-05-28 20:26:40, "
        "High yuv420p, frames IBBP, a key frame every 250, brands isom mp41, 1 edit list, "
        "tracks video h264 + audio aac, 100 bytes behind its end\n"
    ) in shown
    assert shown.count("written") == 1, "of nothing, nothing is said"


def test_a_failure_alone(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(details=True)
    report.write(FAILURE)
    report.close()
    assert capsys.readouterr().out == "not scored    b.txt  not_a_video: No container.\n"


def test_the_time_line_shows_the_highest_and_what_was_not_looked_at() -> None:
    segments = [segment(0.0, 2.0, 0.0), segment(1.0, 2.0, 1.0), segment(9.0, 10.0, 0.5)]
    assert time_line(segments, 10.0, 10) == "▁█·······▅"
    assert time_line([segment(0.0, 0.0, 1.0)], 0.0, 3) == "█··"
    assert time_line([segment(11.0, 12.0, 1.0)], 10.0, 3) == "··█"
    assert time_line([], 10.0, 3) == "···"


def test_a_run_without_a_terminal_says_now_and_then_how_long_it_takes_yet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr("specsem.output.time.monotonic", lambda: now)
    with ProgressBar(10, lines=True) as bar, ProgressBar(10) as silent:
        for each in (bar, silent):
            each.begin()
        for _ in range(4):
            now += 12.0
            for each in (bar, silent):
                each.advance(2)
    assert capsys.readouterr().err == "6 of 10, 6.0 s/file, 0:24 left\n"
