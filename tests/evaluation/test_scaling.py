"""Scaling laws: worked values of the method (section 4), families whose exponent is known, the command."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress
from sklearn.metrics import roc_auc_score

from specsem.errors import SpecSemError
from specsem.evaluation.scaling import (
    auc,
    chain_probability,
    error_entropy,
    fit_floor_law,
    fit_power_law,
    forecast,
    rank_based_error,
    rbp,
    truth_rank,
)

SIZES = np.array([100.0, 200, 400, 800, 1600, 3200])


# -- what is measured of one run ----------------------------------------------------------------------------


def test_ranks_of_the_method() -> None:
    p_NK = np.array(
        [[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.6, 0.2, 0.1, 0.1]]
    )
    truth_N = np.array([0, 1, 2, 3])
    assert truth_rank(p_NK, truth_N).tolist() == [1, 3, 4, 4]
    assert rank_based_error(p_NK, truth_N).tolist() == [0, 2, 0, 2]
    assert rbp(truth_rank(p_NK, truth_N), [1, 2, 3, 4]).tolist() == [0.25, 0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("rbe", "score", "parts"),
    [
        ([0, 0, 1, 1], [0.4, 0.9, 0.1, 0.4], (1.060132, 0.693147, 0.143841, 0.223144)),
        ([0, 0, 0, 1], [0.5, 0.5, 0.5, 0.125], (1.039721, 0.562335, 0.007382, 0.470004)),
    ],
)
def test_error_entropy_of_the_method(
    rbe: list[int], score: list[float], parts: tuple[float, float, float, float]
) -> None:
    found = error_entropy(np.array(rbe), np.array(score))
    measured = (found.cross_entropy, found.error_entropy, found.self_alignment, found.confidence)
    assert measured == pytest.approx(parts, abs=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.floats(1e-300, 1.0), st.integers(1, 3)), min_size=1, max_size=40)
)
def test_the_parts_sum_to_cross_entropy(samples: list[tuple[int, float, int]]) -> None:
    rbe, score, times = (np.array(column) for column in zip(*samples, strict=True))
    found = error_entropy(rbe, score, times.astype(float))
    parts = found.error_entropy + found.self_alignment + found.confidence
    assert found.cross_entropy == pytest.approx(parts, rel=1e-12, abs=1e-12)
    assert found.cross_entropy == pytest.approx(-np.average(np.log(score), weights=times))
    assert found.error_entropy >= 0
    assert found.self_alignment >= -1e-9
    repeated = error_entropy(np.repeat(rbe, times), np.repeat(score, times))
    assert repeated.self_alignment == pytest.approx(found.self_alignment, rel=1e-9, abs=1e-9)


def test_a_probability_of_zero_is_infinite_where_it_enters() -> None:
    one = error_entropy(np.array([0, 0, 1]), np.array([0.5, 0.5, 0.0]))
    assert one.error_entropy == pytest.approx(0.636514, abs=1e-6)
    assert (one.cross_entropy, one.self_alignment) == (math.inf, math.inf)
    assert one.confidence == pytest.approx(math.log(2))
    every = error_entropy(np.array([0, 1]), np.zeros(2))
    assert (every.error_entropy, every.confidence) == (pytest.approx(math.log(2)), math.inf)


def test_area_under_the_curve_counts_weights() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(300) < 0.4
    score = np.round(rng.normal(positive * 1.0, 1.0), 1)  # with ties
    times = rng.integers(0, 3, 300)
    assert auc(positive, score) == pytest.approx(roc_auc_score(positive, score))
    expected = roc_auc_score(positive, score, sample_weight=times)
    assert auc(positive, score, times.astype(float)) == pytest.approx(expected)
    assert math.isnan(auc(np.ones(3, bool), np.arange(3.0)))


# -- the power law ------------------------------------------------------------------------------------------


def test_a_law_without_noise_is_found_as_it_is() -> None:
    law = fit_power_law(SIZES, 3.0 * SIZES**-0.4)
    assert (law.c, law.alpha, law.r_squared) == pytest.approx((3.0, 0.4, 1.0))
    assert law.alpha_interval == pytest.approx((0.4, 0.4))
    assert law.alpha_interval_samples is None
    wanted = forecast(law, 3.0 * 6400**-0.4)
    assert wanted.size == pytest.approx(6400)
    assert wanted.interval == pytest.approx((6400, 6400))
    assert wanted.more == pytest.approx(3200)
    assert wanted.extrapolation == pytest.approx(2)
    assert chain_probability(law, 100, 5) == pytest.approx(math.exp(-5 * 3.0 * 100**-0.4))


def test_the_slope_is_scipys() -> None:
    rng = np.random.default_rng(3)
    value = 2.0 * SIZES**-0.3 * np.exp(rng.normal(0, 0.1, 6))
    law, line = fit_power_law(SIZES, value), linregress(np.log(SIZES), np.log(value))
    assert law.alpha == pytest.approx(-line.slope)
    assert law.r_squared == pytest.approx(line.rvalue**2)
    assert law.alpha_interval[1] - law.alpha == pytest.approx(2.776445 * line.stderr)  # t, 4 degrees


def test_weights_are_as_so_many_runs_to_the_line() -> None:
    value = np.array([1.0, 0.9, 0.5, 0.6])
    size = np.array([1.0, 2, 4, 8])
    weighted = fit_power_law(size, value, weight_M=np.array([1.0, 3, 1, 2]))
    repeated = fit_power_law(np.repeat(size, [1, 3, 1, 2]), np.repeat(value, [1, 3, 1, 2]))
    assert (weighted.alpha, weighted.c) == pytest.approx((repeated.alpha, repeated.c))
    assert weighted.r_squared == pytest.approx(repeated.r_squared)
    assert weighted.runs == 4


def test_the_interval_covers_the_exponent_as_often_as_it_says() -> None:
    """400 families of six runs that scatter about a law: 95% of the intervals hold its exponent, and 95% of
    the forecasts' intervals hold the size at which a new run has the value it has."""
    rng = np.random.default_rng(0)
    slopes, forecasts, trials = 0, 0, 400
    for _ in range(trials):
        law = fit_power_law(SIZES, 3.0 * SIZES**-0.35 * np.exp(rng.normal(0, 0.08, 6)))
        slopes += law.alpha_interval[0] <= 0.35 <= law.alpha_interval[1]
        wanted = forecast(law, 3.0 * 10_000**-0.35 * math.exp(rng.normal(0, 0.08)))
        assert wanted.interval is not None
        forecasts += wanted.interval[0] <= 10_000 <= wanted.interval[1]
    assert 0.92 <= slopes / trials <= 0.98
    assert 0.92 <= forecasts / trials <= 0.98


def test_both_intervals_hold_the_exponent_of_a_measured_family() -> None:
    """-log RBP_k = c S^-alpha exactly, each run seen through 1,500 samples."""
    rng = np.random.default_rng(1)
    n, rounds, trials = 1500, 300, 60
    by_runs, by_samples = 0, 0
    for _ in range(trials):
        hit_M = rng.binomial(n, np.exp(-6.0 * SIZES**-0.5)) / n
        draws_BM = rng.binomial(n, hit_M, (rounds, len(SIZES))) / n
        law = fit_power_law(SIZES, -np.log(hit_M), draws_BM=-np.log(draws_BM))
        by_runs += law.alpha_interval[0] <= 0.5 <= law.alpha_interval[1]
        assert law.alpha_interval_samples is not None
        by_samples += law.alpha_interval_samples[0] <= 0.5 <= law.alpha_interval_samples[1]
    assert by_runs >= 0.88 * trials
    assert by_samples >= 0.88 * trials


def test_values_without_a_logarithm_are_left_out_and_counted() -> None:
    value = np.array([0.8, 0.4, 0.2, 0.1, 0.0, math.inf])
    law = fit_power_law(SIZES, value, draws_BM=np.tile(value, (5, 1)))
    assert (law.alpha, law.runs, law.left_out) == (pytest.approx(1.0), 4, 2)
    assert law.size_range == (100, 800)
    assert law.alpha_interval_samples == pytest.approx((1.0, 1.0))
    lost = np.array([[0.8, 0.4, 0.0, 0.0, 0.0, 0.0]])  # one draw, in which two runs made no error
    assert fit_power_law(SIZES, value, draws_BM=lost).alpha_interval_samples is None
    with pytest.raises(SpecSemError, match="at 3 different sizes; here are 2"):
        fit_power_law(np.array([1.0, 1, 2, 3]), np.array([0.5, 0.6, 0.4, 0.0]))


# -- how much more for a target -----------------------------------------------------------------------------


def test_no_forecast_where_size_shows_no_effect() -> None:
    flat = fit_power_law(SIZES, np.array([0.5, 0.45, 0.52, 0.44, 0.51, 0.47]))
    assert flat.alpha_interval[0] < 0 < flat.alpha_interval[1]
    assert "includes 0" in forecast(flat, 0.1).reason
    assert forecast(flat, 0.1).size is None
    assert "includes 0" in forecast(fit_power_law(SIZES, np.full(6, 0.3)), 0.1).reason
    assert "grows with size" in forecast(fit_power_law(SIZES, SIZES**0.2), 0.1).reason
    unsure = fit_power_law(SIZES, 3 / SIZES, draws_BM=np.stack([SIZES**-3.0, SIZES**2.0]))
    assert "includes 0" in forecast(unsure, 0.001).reason, "the samples alone may be too few"
    with pytest.raises(SpecSemError, match="positive"):
        forecast(flat, 0.0)


def test_a_forecast_says_how_far_it_reaches() -> None:
    law = fit_power_law(SIZES, 3.0 * SIZES**-0.4)
    assert forecast(law, 3.0 * 1000**-0.4).extrapolation == pytest.approx(1)
    before = forecast(law, 3.0 * 50**-0.4)
    assert (before.extrapolation, before.more) == (pytest.approx(0.5), pytest.approx(50 - 3200))
    assert forecast(law, 1e-300).size == math.inf


# -- the law with a floor -----------------------------------------------------------------------------------


def test_a_floor_is_found_where_there_is_one() -> None:
    rng = np.random.default_rng(2)
    size = np.geomspace(10, 100_000, 9)
    law = fit_floor_law(size, (2.0 * size**-0.6 + 0.05) * np.exp(rng.normal(0, 0.02, 9)))
    assert law is not None
    assert (law.alpha, law.floor) == (pytest.approx(0.6, abs=0.03), pytest.approx(0.05, abs=0.003))
    assert law.p_value < 0.001
    assert law.size_for(0.04) is None
    assert law.size_for(law.c * 500**-law.alpha + law.floor) == pytest.approx(500)


def test_no_floor_is_made_up() -> None:
    rng = np.random.default_rng(4)
    laws = [fit_floor_law(SIZES, SIZES**-0.4 * np.exp(rng.normal(0, 0.05, 6))) for _ in range(100)]
    assert sum(law is not None and law.p_value < 0.05 for law in laws) <= 10
    assert fit_floor_law(SIZES[:4], SIZES[:4] ** -0.4) is None
