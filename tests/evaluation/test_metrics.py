"""Figures of merit on cases worked out by hand, and all of them at once against the libraries'."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, roc_auc_score

from specsem.evaluation.metrics import (
    draw_sources,
    expected_calibration_error,
    intervals,
    macro,
    proportion_upper95,
    resampled,
    risk_coverage,
    summary,
    tpr_at_fpr,
)

GENERATED = np.array([True, True, True, True, False, False, False, False])
SCORE = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.3, 0.1, 0.05])


def drawn(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Clips of twenty sources, with ties among the scores."""
    rng = np.random.default_rng(seed)
    generated = np.arange(n) % 3 > 0
    score = np.clip(rng.normal(0.4 + 0.2 * generated, 0.25), 0.0, 1.0).round(2)
    return generated, score, [f"s{i}" for i in rng.integers(0, 20, n)]


def test_summary_by_hand() -> None:
    s = summary(GENERATED, SCORE, threshold=0.65)
    assert s["auc"] == pytest.approx(14 / 16)
    assert s["ap"] == pytest.approx((1 + 1 + 1 + 4 / 6) / 4)
    assert s["tpr_at_threshold"] == 0.75
    assert s["fpr_at_threshold"] == 0.0
    assert s["accuracy_at_threshold"] == 7 / 8
    assert s["accuracy_at_half"] == 6 / 8
    assert s["balanced_accuracy_at_threshold"] == 0.875
    assert s["balanced_accuracy_at_half"] == pytest.approx((0.75 + 0.75) / 2)
    assert s["f1_at_threshold"] == pytest.approx(2 * 1 * 0.75 / 1.75)
    assert s["f1_at_half"] == pytest.approx(0.75)
    assert s["tpr_at_1pct_fpr"] == s["tpr_at_0.1pct_fpr"] == 0.75
    assert s["brier"] == pytest.approx(np.mean((SCORE - GENERATED) ** 2))


def test_every_clip_may_have_its_own_threshold() -> None:
    own = np.array([0.95, 0.1, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5])
    s = summary(GENERATED, SCORE, threshold=own)
    assert (s["tpr_at_threshold"], s["fpr_at_threshold"]) == (0.75, 0.25)


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


def test_risk_falls_as_the_inconclusive_band_widens() -> None:
    curve = risk_coverage(GENERATED, SCORE)
    # Farthest from .5 first: .05 .1 .9 | .8 .2 | .7 .3 | .6, of which .2 (generated) and .6 (real) are wrong.
    np.testing.assert_allclose(curve.half_width, [0.45, 0.4, 0.3, 0.2, 0.1])
    np.testing.assert_allclose(curve.coverage, [1 / 8, 3 / 8, 5 / 8, 7 / 8, 1])
    np.testing.assert_allclose(curve.risk, [0, 0, 1 / 5, 1 / 7, 2 / 8])
    assert curve.aurc == pytest.approx((2 * (1 / 5) + 2 * (1 / 7) + 1 * (2 / 8)) / 8)


def test_macro_means_count_every_generator_once() -> None:
    columns = {"a": {"n": 19, "recall": 0.9}, "b": {"n": 1, "recall": 0.1}}
    assert macro(columns) == {"recall": pytest.approx(0.5)}
    assert macro({}) == {}


def test_all_figures_at_once_are_the_libraries_figures() -> None:
    generated, score, _ = drawn()
    once = resampled(generated, score, np.ones((1, len(score))), threshold=0.65)
    expected = summary(generated, score, threshold=0.65)
    assert set(once) == set(expected) - {"n_generated", "n_real"}
    for name, value in once.items():
        assert value[0] == pytest.approx(expected[name], abs=1e-6), name


def test_weights_count_as_repeated_clips() -> None:
    generated, score, source = drawn()
    weights_RN = draw_sources(generated, source, rounds=5)
    many = resampled(generated, score, weights_RN, threshold=0.65)
    for r, weights_N in enumerate(weights_RN):
        index = np.repeat(np.arange(len(score)), weights_N.astype(int))
        expected = summary(generated[index], score[index], threshold=0.65)
        for name, values in many.items():
            assert values[r] == pytest.approx(expected[name], abs=1e-6), name
        told = {"sample_weight": weights_N}
        assert many["auc"][r] == pytest.approx(roc_auc_score(generated, score, **told))
        assert many["ap"][r] == pytest.approx(average_precision_score(generated, score, **told))
        assert many["f1_at_half"][r] == pytest.approx(f1_score(generated, score >= 0.5, **told))
        assert many["brier"][r] == pytest.approx(brier_score_loss(generated, score, **told))


def test_macro_auc_counts_a_drawn_generator_as_often_as_it_was_drawn() -> None:
    generated, score, source = drawn()
    names = np.array(source)
    weights_RN = draw_sources(generated, source, rounds=3)
    macros = resampled(generated, score, weights_RN, threshold=0.5, source=source)["macro_auc"]
    for weights_N, got in zip(weights_RN, macros, strict=True):
        parts = []
        for name in np.unique(names[generated]):
            rows = (generated & (names == name)) | ~generated
            times = weights_N[generated & (names == name)][0]
            if times:
                auc = roc_auc_score(generated[rows], score[rows], sample_weight=weights_N[rows])
                parts.append((times, auc))
        assert got == pytest.approx(np.average([a for _, a in parts], weights=[t for t, _ in parts]))


def test_whole_sources_are_drawn_within_each_class() -> None:
    generated = np.array([True, True, True, False, False])
    weights_RN = draw_sources(generated, ["a", "a", "b", "a", "c"], rounds=50)
    np.testing.assert_array_equal(weights_RN[:, 0], weights_RN[:, 1])
    np.testing.assert_array_equal(weights_RN[:, 0] + weights_RN[:, 2], 2)
    np.testing.assert_array_equal(weights_RN[:, 3] + weights_RN[:, 4], 2)


def test_the_interval_draws_sources_not_clips() -> None:
    """Many copies of the same clips from the same sources make no interval narrower."""
    rng = np.random.default_rng(1)
    generated = np.repeat([True, False], 10)
    score = rng.normal(generated * 1.0, 1.0)
    source = [f"s{i}" for i in range(20)]
    once = intervals(generated, score, source, threshold=0.5)
    copies = intervals(np.tile(generated, 5), np.tile(score, 5), source * 5, threshold=0.5)
    assert once["auc"] == pytest.approx(copies["auc"])
    assert once["auc"][0] < once["auc"][1]
