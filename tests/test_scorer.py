"""Clips to verdicts, on the tiny untrained model: the rules, not the accuracy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from specsem.errors import DeviceLost, ModelError, UnknownPolicy
from specsem.media import Clip, Coverage, MediaInfo, Window
from specsem.scorer import Judge, Scorer, WindowScore


@pytest.fixture
def scorer(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Scorer:
    monkeypatch.setenv("SPECSEM_MODELS_DIR", str(tiny_models))
    return Scorer(device="cpu")


def window(scorer: Scorer, seed: int, start_s: float = 0.0) -> Window:
    rng = np.random.default_rng(seed)
    plan = scorer.plan
    return Window(
        start_s=start_s,
        end_s=start_s + 0.3,
        crops_TNHWC=rng.integers(
            0, 256, (plan.frames, plan.crops, plan.crop_side, plan.crop_side, 3), np.uint8
        ),
        frames_THWC=rng.integers(0, 256, (plan.frames, plan.frame_side, plan.frame_side, 3), np.uint8),
        boxes_N4=np.tile(np.array([0, 0, 1, 1], np.float32), (plan.crops, 1)),
    )


def clip(windows: list[Window] | None = None, side: int = 480, frames: int = 8) -> Clip:
    info = MediaInfo("mp4", "h264", side, side, 25.0, 2.0, frames_scored=frames)
    return Clip(info, windows or [], Coverage(0.6, 2.0, 0.3))


def said(logit: float, motion: float = 5.0, detail: float = 5.0, start_s: float = 0.0) -> WindowScore:
    return WindowScore(start_s, start_s + 0.3, logit, motion, detail, np.zeros(4, np.float32))


def test_clips_of_one_batch_are_judged_as_they_are_alone(scorer: Scorer) -> None:
    clips = [clip([window(scorer, s) for s in seeds]) for seeds in ([0, 1], [2], [3, 4, 5])]
    together = scorer.score_batch(clips)
    alone = [scorer.score_batch([c])[0] for c in clips]
    assert [v.verdict for v in together] == [v.verdict for v in alone]
    np.testing.assert_allclose([v.logit for v in together], [v.logit for v in alone], atol=1e-4)
    assert [len(v.segments) for v in together] == [2, 1, 3]


def test_batches_beyond_the_limit_are_split_without_a_trace(scorer: Scorer) -> None:
    windows = [window(scorer, seed) for seed in range(5)]
    whole = [s.logit for s in scorer.score_windows(windows)]
    scorer.max_batch = 2
    np.testing.assert_allclose([s.logit for s in scorer.score_windows(windows)], whole, atol=1e-4)


def test_out_of_memory_halves_the_batch(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = [window(scorer, seed) for seed in range(6)]
    whole = [s.logit for s in scorer.score_windows(windows)]
    forward = scorer._forward
    sizes = []

    def small_device(batch: list[Window], gates: bool) -> list[WindowScore]:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return forward(batch, gates)

    monkeypatch.setattr(scorer, "_forward", small_device)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    np.testing.assert_allclose([s.logit for s in scorer.score_windows(windows)], whole, atol=1e-4)
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]


def test_a_failing_accelerator_is_no_failing_clip(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def illegal_access(*_args: object, **_more: object) -> None:
        raise torch.AcceleratorError

    monkeypatch.setattr(scorer._network.net, "judge", illegal_access)
    with pytest.raises(DeviceLost):
        scorer.warm_up()


@pytest.mark.parametrize(
    ("logit", "verdict", "reasons"),
    [
        (5.0, "generated", []),
        (-5.0, "authentic", []),
        (0.0, "inconclusive", ["between_thresholds"]),
    ],
)
def test_verdicts(scorer: Scorer, logit: float, verdict: str, reasons: list[str]) -> None:
    result = scorer.judge(clip(), [said(logit)])
    assert (result.verdict, result.reasons) == (verdict, reasons)


def test_a_judge_needs_no_weights(scorer: Scorer) -> None:
    judge = Judge(scorer.record)
    assert judge.plan == scorer.plan
    for logit in (5.0, 0.0, -5.0):
        assert judge.judge(clip(), [said(logit)]).score == scorer.judge(clip(), [said(logit)]).score


def test_the_threshold_itself_is_generated_and_the_lower_one_inconclusive(scorer: Scorer) -> None:
    at = scorer.threshold
    for score, verdict in ((at.value, "generated"), (at.lower, "inconclusive")):
        scorer.calibration = _answering(scorer, score)
        assert scorer.judge(clip(), [said(0.0)]).verdict == verdict


def _answering(scorer: Scorer, score: float) -> object:
    at = scorer.threshold

    class Fixed:
        domain = scorer.calibration.domain
        used = scorer.calibration.used
        threshold = staticmethod(lambda _name: at)
        distance = staticmethod(lambda _features: 0.0)
        probability = staticmethod(lambda _logit: score)

    return Fixed()


@pytest.mark.parametrize(
    ("reason", "limits", "scores", "side"),
    [
        ("static", {"min_motion": 1.0}, [said(9.0, motion=0.1), said(9.0, motion=0.9)], 480),
        ("low_quality", {"min_detail": 2.0}, [said(9.0, detail=1.0)], 480),
        ("too_small", {"min_side": 128}, [said(9.0)], 100),
        ("too_short", {"min_analysed_s": 0.7}, [said(9.0)], 480),
        ("unstable", {}, [said(-4.0), said(10.0)], 480),
    ],
)
def test_a_reason_outside_the_domain_makes_any_score_inconclusive(
    scorer: Scorer, reason: str, limits: dict[str, float], scores: list[WindowScore], side: int
) -> None:
    from dataclasses import replace

    scorer.calibration = replace(scorer.calibration, domain=replace(scorer.calibration.domain, **limits))
    result = scorer.judge(clip(side=side), scores)
    assert result.verdict == "inconclusive"
    assert result.reasons == [reason]
    assert result.score > 0.9  # what was measured is still said


def test_fewer_frames_than_a_window_are_too_short_for_a_verdict(scorer: Scorer) -> None:
    assert scorer.judge(clip(frames=7), [said(9.0)]).reasons == ["too_short"]


def test_out_of_domain(scorer: Scorer) -> None:
    from dataclasses import replace

    scorer.calibration = replace(
        scorer.calibration,
        feature_mean=(0.0,) * 4,
        feature_std=(1.0,) * 4,
        domain=replace(scorer.calibration.domain, max_distance=3.0),
    )
    far = WindowScore(0, 0.3, 9.0, 5.0, 5.0, np.full(4, 5.0, np.float32))
    assert scorer.judge(clip(), [far]).reasons == ["out_of_domain"]
    assert scorer.judge(clip(), [said(9.0)]).reasons == []


def test_a_still_has_no_motion_and_a_gray_frame_no_detail(scorer: Scorer) -> None:
    moving = window(scorer, 0)
    still = Window(
        0.0,
        0.3,
        np.repeat(moving.crops_TNHWC[:1], scorer.plan.frames, 0),
        moving.frames_THWC,
        moving.boxes_N4,
    )
    gray = Window(0.0, 0.3, np.full_like(moving.crops_TNHWC, 99), moving.frames_THWC, moving.boxes_N4)
    scored = scorer.score_windows([moving, still, gray])
    assert scored[0].motion > 10
    assert scored[0].detail > 10
    assert scored[1].motion == pytest.approx(0, abs=1e-3)
    assert scored[2].detail == pytest.approx(0, abs=1e-2)


def test_what_is_not_there_is_refused(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECSEM_MODELS_DIR", str(tiny_models))
    with pytest.raises(UnknownPolicy):
        Scorer(operating_point="none-such")
    with pytest.raises(ModelError, match="tpu"):
        Scorer(device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="CUDA"):
            Scorer(device="cuda")


def test_warm_up_takes_a_forward(scorer: Scorer) -> None:
    assert scorer.warm_up() > 0
