"""Figures of merit on cases that can be worked out by hand."""

import numpy as np
import pytest

from specsem.evaluation.metrics import (
    expected_calibration_error,
    interval,
    proportion_upper95,
    summary,
    tpr_at_fpr,
)

GENERATED = np.array([True, True, True, True, False, False, False, False])
SCORE = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.3, 0.1, 0.05])


def test_summary_by_hand() -> None:
    s = summary(GENERATED, SCORE, threshold=0.65)
    assert s["auc"] == pytest.approx(14 / 16)
    assert s["tpr_at_threshold"] == 0.75
    assert s["fpr_at_threshold"] == 0.0
    assert s["balanced_accuracy_at_threshold"] == 0.875
    assert s["balanced_accuracy_at_half"] == pytest.approx((0.75 + 0.75) / 2)
    assert s["brier"] == pytest.approx(np.mean((SCORE - GENERATED) ** 2))


def test_tpr_at_fpr() -> None:
    assert tpr_at_fpr(GENERATED, SCORE, 0.0) == 0.75
    assert tpr_at_fpr(GENERATED, SCORE, 0.25) == 0.75
    assert tpr_at_fpr(GENERATED, SCORE, 0.5) == 1.0


@pytest.mark.parametrize(
    ("count", "n", "bound"), [(0, 52, 0.0560), (0, 300, 0.00994), (3, 100, 0.0757), (0, 0, 1.0)]
)
def test_upper_bounds_of_a_proportion(count: int, n: int, bound: float) -> None:
    """Clopper-Pearson, one-sided 95%; for 0 of n it is 1 - 0.05 ** (1 / n)."""
    assert proportion_upper95(count, n) == pytest.approx(bound, abs=2e-4)


def test_calibration_error() -> None:
    score = np.repeat([0.25, 0.75], 100)
    honest = np.tile([True, False, False, False], 25), np.tile([True, True, True, False], 25)
    assert expected_calibration_error(np.concatenate(honest), score) == pytest.approx(0)
    assert expected_calibration_error(np.zeros(200, bool), score) == pytest.approx(0.5)


def test_the_interval_draws_sources_not_clips() -> None:
    """Many copies of the same clips from the same sources make no interval narrower."""
    rng = np.random.default_rng(1)
    generated = np.repeat([True, False], 10)
    score = rng.normal(generated * 1.0, 1.0)
    source = [f"s{i}" for i in range(20)]
    once = interval(generated, score, source)
    copies = interval(np.tile(generated, 5), np.tile(score, 5), source * 5)
    assert once == pytest.approx(copies, abs=0.05)
    assert once[0] < once[1]
