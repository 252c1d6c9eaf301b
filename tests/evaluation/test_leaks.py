"""The audits find a planted leak, and nothing where there is none."""

from pathlib import Path

import numpy as np
import pytest

from specsem.calibration import Calibration
from specsem.evaluation.files import FileFacts, FileScore
from specsem.evaluation.leaks import FACTS, file_facts, metadata_classifier, real_floor
from specsem.evaluation.tables import Judged, judged
from specsem.result import Threshold
from specsem.scorer import WindowScore
from specsem.training.data import Item

CALIBRATION = Calibration(
    1.0, 0.0, {"default": Threshold(value=0.8, lower=0.2, max_fpr=0.1, fpr_upper95=0.2, calibration_n=9)}
)


def clips(*, leak: float = 0.0, camera_shift: float = 0.0, equal: bool = False) -> Judged:
    """160 clips of 20 generators and 20 cameras.

    ``leak``: how much longer generated ones are, in deviations. ``camera_shift``: how cameras differ.
    """
    rng = np.random.default_rng(0)
    scores = []
    for number in range(160):
        generated, source = number % 2 == 0, f"s{number % 40}"
        shift = camera_shift * (number % 40 - 20) / 10
        seconds = 3.0 if equal else float(np.exp(rng.normal(1.0 + leak * generated, 1.0)))
        size = 10000 if equal else round(20000 * seconds * float(np.exp(rng.normal())))
        facts = FileFacts("h264", 640, 360, 25.0, seconds, round(25 * seconds), size)
        window = WindowScore(0, 0.3, float(rng.normal()) + shift, 2.0, 3.0, np.zeros(1, np.float32))
        item = Item(Path(f"{number}.mp4"), generated, source, source, "val")
        scores.append(FileScore(item, "as-is", [window], file=facts))
    return judged(scores, CALIBRATION)


def test_a_planted_leak_is_found_and_none_is_not() -> None:
    planted = metadata_classifier(clips(leak=2.5), rounds=200)
    assert planted["auc"] > 0.85
    assert planted["interval95"][0] > 0.7
    assert planted["constant"] == ["width", "height", "aspect", "fps", "codec"]
    honest = metadata_classifier(clips(), rounds=200)
    assert honest["auc"] == pytest.approx(0.5, abs=0.12)
    equal = metadata_classifier(clips(equal=True), rounds=200)
    assert equal["auc"] == 0.5
    assert equal["constant"] == list(FACTS)


def test_where_too_little_is_left_it_says_so() -> None:
    few = clips()
    one = judged([s for s in few.scores if s.item.source == "s0" or not s.item.generated], CALIBRATION)
    assert metadata_classifier(one)["auc"] is None
    assert "two groups" in metadata_classifier(one)["reason"]
    two = judged([s for s in few.scores if s.item.source in {"s1", "s3", "s0"}], CALIBRATION)
    assert real_floor(two)["mean"] is None


def test_facts_are_columns() -> None:
    facts = file_facts(
        [FileFacts("h264", 640, 320, 25.0, 2.0, 50, 1000), FileFacts("av1", 64, 64, 8, 1, 8, 10)]
    )
    assert dict(zip(FACTS, facts[0].tolist(), strict=True)) == {
        "bytes": 1000,
        "width": 640,
        "height": 320,
        "aspect": 2.0,
        "fps": 25.0,
        "n_frames": 50,
        "duration_s": 2.0,
        "bit_rate": 4000,
        "codec": 1,
    }


def test_the_floor_rises_where_cameras_score_differently() -> None:
    alike, different = real_floor(clips(), splits=200), real_floor(clips(camera_shift=2.0), splits=200)
    assert alike["mean"] == pytest.approx(alike["chance_mean"], abs=0.03)
    assert different["mean"] > different["chance_mean"] + 0.03
    assert different["sources"]["s39"]["auc"] > 0.9
    assert different["n_sources"] == 20
