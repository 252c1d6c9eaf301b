"""From logit to probability to verdict, and the record on disk."""

import hashlib
import json
import math
from pathlib import Path

import pytest

from specsem.calibration import (
    Basis,
    Calibration,
    CalibrationUnusable,
    Confirmation,
    DomainLimits,
    sigmoid,
)
from specsem.errors import UnknownPolicy
from specsem.result import Threshold

THRESHOLD = Threshold(value=0.9, lower=0.2, max_fpr=0.01, fpr_upper95=0.05, calibration_n=60)


def calibration(**changes: object) -> Calibration:
    fields = {"slope": 2.0, "intercept": -1.0, "policies": {"default": THRESHOLD}} | changes
    return Calibration(**fields)  # type: ignore[arg-type]


def test_probability_is_platt_scaling_and_never_overflows() -> None:
    assert calibration().probability(0.5) == 0.5
    assert calibration().probability(1.0) == pytest.approx(1 / (1 + math.exp(-1)))
    assert calibration().probability(1e6) == 1.0
    assert calibration().probability(-1e6) == 0.0
    assert sigmoid(-3.0) == pytest.approx(1 - sigmoid(3.0))


def test_an_unknown_policy_is_refused_by_name() -> None:
    assert calibration().threshold("default") is THRESHOLD
    with pytest.raises(UnknownPolicy, match=r"'strict'.*default"):
        calibration().threshold("strict")


def test_distance_is_about_one_inside_the_training_domain() -> None:
    c = calibration(feature_mean=(1.0, 2.0), feature_std=(0.5, 2.0))
    assert c.distance((1.0, 2.0)) == 0.0
    assert c.distance((1.5, 4.0)) == pytest.approx(1.0)
    assert calibration().distance((9.0,)) == 0.0  # none recorded


def test_survives_the_disk(tmp_path: Path) -> None:
    before = calibration(
        domain=DomainLimits(min_side=96, max_distance=3.5), feature_mean=(0.1,), feature_std=(1.0,)
    )
    before.save(tmp_path)
    assert Calibration.load(tmp_path) == before
    assert json.loads((tmp_path / "calibration.json").read_text())["policies"]["default"]["max_fpr"] == 0.01


BASIS = Basis(
    based_on=2,
    fitted_at="2026-12-01T00:00:00+00:00",
    since="2026-11-01T00:00:00+00:00",
    until="2026-11-30T00:00:00+00:00",
    labels=3,
    groups=4,
    grouped=128,
    left_out=1,
    real=100.5,
    generated=30.5,
    weighted=True,
    refitted=("scores", "default"),
)


def test_one_that_was_fitted_says_from_what(tmp_path: Path) -> None:
    fitted = calibration(version=3, basis=BASIS)
    path = tmp_path / "any name.json"
    path.write_text(fitted.to_json())
    assert Calibration.read(path) == fitted
    assert fitted.used.version == 3
    assert fitted.used.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert calibration().used.version == 0
    assert {"version", "basis"}.isdisjoint(json.loads(calibration().to_json()))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"slope": 1}', "\x00"])
def test_what_is_no_calibration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(CalibrationUnusable, match="no calibration"):
        Calibration.read(path)
    with pytest.raises(CalibrationUnusable, match="can't be read"):
        Calibration.read(tmp_path / "none")


def test_a_confirmation_that_can_t_be_is_refused() -> None:
    for jobs, logits, holds, count in (
        ((), (), (), 0),
        (("a",), (1.0,), (True,), 2),
        (("a",), (1.0,), (True,), -1),
        (("a", "b"), (1.0,), (True, True), 1),
    ):
        with pytest.raises(ValueError, match=r"confirmation|can't hold"):
            Confirmation(jobs, logits, holds, count, at=0.0)
