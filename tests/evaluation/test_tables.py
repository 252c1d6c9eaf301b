"""The table holds the figures, whole and by generator; cross-fitted thresholds see no clip of theirs."""

from pathlib import Path

import numpy as np
import pytest

from specsem.calibration import Calibration
from specsem.errors import SpecSemError
from specsem.evaluation.files import FileScore
from specsem.evaluation.tables import as_markdown, cross_fitted, judged, validation_table
from specsem.result import Threshold
from specsem.scorer import WindowScore
from specsem.training.calibrate import calibrate
from specsem.training.data import Item

CALIBRATION = Calibration(
    slope=1.0,
    intercept=0.0,
    policies={"default": Threshold(value=0.8, lower=0.2, max_fpr=0.1, fpr_upper95=0.2, calibration_n=9)},
)


def made(source: str, generated: bool, logit: float, number: int = 0, fold: str = "") -> FileScore:
    item = Item(Path(f"{source}-{number}.mp4"), generated, source, source[0], "val")
    window = WindowScore(0, 0.3, logit, 2.0, 3.0, np.array([logit, 1.0], np.float32))
    return FileScore(item, "as-is", [window], fold=fold)


SCORES = [
    *(made("a1", True, 3.0, n) for n in range(6)),
    made("a2", True, -3.0),
    made("b", True, 0.5),
    made("c", False, -2.0),
    made("d", False, 1.0),
]


def test_generators_families_and_cameras_have_columns_and_means() -> None:
    table = validation_table([*SCORES, FileScore(SCORES[0].item, "level", [], "too_small")], CALIBRATION)
    assert table["not_judged"] == ["level"]
    row = table["conditions"]["as-is"]
    assert {g: c["auc"] for g, c in row["generators"].items()} == {"a1": 1.0, "a2": 0.0, "b": 0.5}
    assert row["macro_auc"] == row["macro"]["generators"]["auc"] == pytest.approx(0.5)
    assert row["auc"] == pytest.approx((6 * 1 + 0 + 0.5) / 8)
    assert row["families"]["a"]["n"] == 7
    assert row["macro"]["families"]["auc"] == pytest.approx((6 / 7 + 0.5) / 2)
    assert row["macro"]["generators"]["above_threshold"] == pytest.approx(1 / 3)
    assert row["cameras"]["c"] == {
        "n": 1,
        "mean_score": pytest.approx(0.1192, abs=1e-4),
        "above_threshold": 0.0,
        "above_half": 0.0,
        "auc": pytest.approx(7 / 8),
    }
    policy = row["policies"]["default"]
    assert policy["recall"] == pytest.approx(6 / 8)
    assert policy["generated_called_authentic"] == pytest.approx(1 / 8)
    assert policy["coverage"] == pytest.approx(8 / 10)  # b and d lie between
    assert policy["risk"] == pytest.approx(1 / 8)
    low, high = row["interval95"]["macro_auc"]
    assert low <= 0.5 <= high
    assert "folds" not in row
    text = as_markdown(table)
    assert "| as-is | 8 + 2 | 0.812 (" in text
    assert "| a1 | 1.00 / 1.00 (6) |" in text


def test_scores_of_folds_are_judged_by_what_the_others_give() -> None:
    rng = np.random.default_rng(0)
    scores = [
        made(
            f"{'gr'[k % 2]}{k}",
            k % 2 == 0,
            float(rng.normal(2.0 * (k % 2 == 0))) + 10 * (k % 4 > 1),
            k,
            str(k % 4 > 1),
        )
        for k in range(80)
    ]
    calibrations = cross_fitted(scores, calibrate)
    own = {fold: calibrate([s for s in scores if s.fold != fold]) for fold in ("True", "False")}
    columns = judged(scores, calibrations)
    assert columns.value["default"][0] == own["False"].threshold("default").value
    assert columns.score[2] == own["True"].probability(scores[2].logit)
    table = validation_table(scores, calibrations)
    assert table["policies"] == {}
    assert set(table["conditions"]["as-is"]["folds"]) == {"True", "False"}
    assert "cross-fitted" in as_markdown(table)
    with pytest.raises(SpecSemError, match="two folds"):
        cross_fitted(SCORES, calibrate)
