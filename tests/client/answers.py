"""A whole answer, as a service gives it."""

from typing import Any

from specsem.result import (
    Coverage,
    Media,
    Model,
    Provenance,
    ScoredFile,
    Segment,
    Threshold,
)

ANSWER: dict[str, Any] = ScoredFile(
    path="a.mp4",
    sha256="0" * 64,
    verdict="generated",
    score=0.97,
    logit=3.5,
    threshold=Threshold(value=0.9, lower=0.1, max_fpr=0.05, fpr_upper95=0.06, calibration_n=50),
    reasons=[],
    segments=[Segment(start_s=0.0, end_s=0.32, score=0.97)],
    coverage=Coverage(analysed_s=0.32, duration_s=4.0, fraction=0.08),
    media=Media(
        container="mp4", codec="h264", width=640, height=360, fps=25.0, duration_s=4.0, frames_scored=8
    ),
    provenance=Provenance(),
    model=Model(name="double", version="1.0.0", sha256="0" * 64),
    timing_ms={"total": 12.5},
    warnings=[],
).model_dump(mode="json")
