"""Intervals without SciPy are SciPy's."""

import pytest
from scipy.stats import binomtest

from specsem.intervals import exact_upper95, wilson95


@pytest.mark.parametrize(
    ("count", "n"), [(0, 1), (0, 284), (2, 284), (12, 64), (40, 64), (64, 64), (3, 100_000)]
)
def test_they_are_scipy_s(count: int, n: int) -> None:
    low, high = wilson95(count, n)
    expected = binomtest(count, n).proportion_ci(0.95, "wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    bound = binomtest(count, n, alternative="less").proportion_ci(0.95, "exact").high
    assert exact_upper95(count, n) == pytest.approx(bound, abs=1e-9)


def test_where_nothing_was_seen_all_is_possible() -> None:
    assert wilson95(0, 0) == (0, 1)
    assert exact_upper95(0, 0) == 1
    with pytest.raises(ValueError, match="no proportion"):
        exact_upper95(3, 2)
