"""Confidence intervals of a proportion, without SciPy: the service shows them, and an install has no SciPy.

Source: Wilson (1927) for both sides; Clopper and Pearson (1934) for the bound behind a stated rate, as
``specsem.evaluation.metrics`` has it from SciPy. A test holds both to SciPy's values.
"""

import math
from statistics import NormalDist

__all__ = ["exact_upper95", "wilson95"]

_Z95 = NormalDist().inv_cdf(0.975)


def wilson95(count: float, n: float) -> tuple[float, float]:
    """The 95% interval of a proportion, two-sided; (0, 1) where nothing was seen.

    ``count`` of ``n`` may be effective numbers of a weighted sample.
    """
    if n <= 0:
        return 0.0, 1.0
    share, z2 = count / n, _Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def exact_upper95(count: int, n: int) -> float:
    """Upper bound of a proportion at 95% confidence, one-sided; 0 of n gives about 3/n, and 0 of 0 gives 1.

    The largest p under which as few as ``count`` of ``n`` still come with a probability of 5%.

    Raises:
        ValueError: ``count`` lies outside 0..n.
    """
    if not 0 <= count <= n:
        raise ValueError(f"{count} of {n} is no proportion")
    if count == n:
        return 1.0
    ways = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(count + 1)]
    low, high = count / n, 1.0
    for _ in range(60):
        p = (low + high) / 2
        log_p, log_q = math.log(p), math.log1p(-p) if p < 1 else -math.inf
        at_most = math.fsum(math.exp(way + k * log_p + (n - k) * log_q) for k, way in enumerate(ways))
        low, high = (p, high) if at_most > 0.05 else (low, p)
    return high
