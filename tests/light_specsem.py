"""`specsem` with real decoders and a stand-in for the model, so that a process starts in a moment.

Run as a script: same arguments, same exit codes. The score of a window is its mean brightness.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import numpy as np
import numpy.typing as npt

from specsem.media import Clip, SamplePlan, Window
from specsem.registry import get_model
from specsem.result import CalibrationUsed, Segment, Threshold


@dataclass(frozen=True)
class Light:
    """What the pipeline hands from windows to verdict."""

    start_s: float
    end_s: float
    score: float
    logit: float = 0.0
    semantic_logit: float = 0.0
    gate_Nhw: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))


class Scorer:
    """As ``specsem.scorer.Scorer``."""

    def __init__(self, model: str, **_options: str) -> None:
        self.record = get_model(model)
        self.plan = SamplePlan(windows=2, crop_side=0, crops=0, frame_side=32)
        self.device = "none"
        self.threshold = Threshold(value=0.9, lower=0.1, max_fpr=0.01, fpr_upper95=0.05, calibration_n=60)
        used = CalibrationUsed(version=0, sha256="")
        self.calibration = SimpleNamespace(policies={"default": self.threshold}, version=0, used=used)
        self.shipped = self.calibration

    def warm_up(self) -> float:
        return 0.0

    def score_windows(self, windows: Sequence[Window], **_how: bool) -> list[Light]:
        return [Light(w.start_s, w.end_s, float(w.frames_THWC.mean()) / 255) for w in windows]

    def score_batch(self, clips: Sequence[Clip], **_how: bool) -> list[SimpleNamespace]:
        return [self.judge(clip, self.score_windows(clip.windows)) for clip in clips]

    def judge(self, _clip: Clip, scores: Sequence[Light]) -> SimpleNamespace:
        score = sum(light.score for light in scores) / len(scores)
        return SimpleNamespace(
            verdict="inconclusive",
            score=score,
            logit=score,
            threshold=self.threshold,
            reasons=["between_thresholds"],
            segments=[Segment(start_s=s.start_s, end_s=s.end_s, score=s.score) for s in scores],
            scores=scores,
            outside={},
            attribution=None,
            calibration=self.calibration.used,
        )


if __name__ == "__main__":
    stand_in = ModuleType("specsem.scorer")
    vars(stand_in).update(Scorer=Scorer, ClipVerdict=SimpleNamespace, WindowScore=Light)
    sys.modules["specsem.scorer"] = stand_in

    from specsem.cli import main

    main()
