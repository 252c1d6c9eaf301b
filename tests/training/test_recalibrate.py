"""Recalibration on streams whose truth is known: logits of two normal distributions."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from specsem.calibration import Calibration, Confirmation
from specsem.result import Threshold
from specsem.training.recalibrate import TooLittleFeedback, recalibrate

POLICY = Threshold(value=0.95, lower=0.1, max_fpr=0.05, fpr_upper95=0.06, calibration_n=300)
BASE = Calibration(slope=1.0, intercept=0.0, policies={"default": POLICY})
SHIFT = 1.5

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def stream(n: int, share: float, shift: float, seed: int) -> tuple[Floats, Bools]:
    """Logits and truths. Without a shift a logit is its own log odds at even odds."""
    rng = np.random.default_rng(seed)
    generated = rng.random(n) < share
    return np.where(generated, 1.0, -1.0) + rng.normal(0.0, 2**0.5, n) + shift, generated


def grouped(logits: Floats, generated: Bools, size: int) -> list[Confirmation]:
    return [
        Confirmation(
            jobs=tuple(str(i) for i in range(first, first + size)),
            logits=tuple(logits[first : first + size]),
            holds_if_generated=(True,) * size,
            count=int(generated[first : first + size].sum()),
            at=1e9 + first,
        )
        for first in range(0, len(logits), size)
    ]


def cut(calibration: Calibration) -> float:
    """The logit from which on a video is called generated."""
    value = calibration.policies["default"].value
    return float((np.log(value / (1 - value)) - calibration.intercept) / calibration.slope)


def false_positives(calibration: Calibration, shift: float) -> float:
    logits, _ = stream(40_000, 0.0, shift, seed=99)
    return float((logits >= cut(calibration)).mean())


@pytest.mark.parametrize(("share", "size"), [(0.0, 32), (0.25, 32), (0.25, 1)])
def test_counts_alone_bring_a_shifted_stream_back_to_the_stated_rate(share: float, size: int) -> None:
    before = recalibrate(BASE, grouped(*stream(960, share, 0.0, seed=1), size))
    assert false_positives(before, 0.0) == pytest.approx(0.05, abs=0.02)
    assert false_positives(before, SHIFT) > 0.2
    after = recalibrate(before, grouped(*stream(960, share, SHIFT, seed=3), size))
    assert false_positives(after, SHIFT) == pytest.approx(0.05, abs=0.02)
    threshold = after.policies["default"]
    assert threshold.max_fpr == 0.05
    assert 0.05 < threshold.fpr_upper95 < 0.08
    assert threshold.calibration_n == pytest.approx(960 * (1 - share), abs=40)
    assert threshold.lower <= threshold.value


def test_the_scale_is_right_at_even_odds_whatever_the_stream_s() -> None:
    """With the truth of each shifted by SHIFT, the score must be sigmoid(logit - SHIFT)."""
    fitted = recalibrate(BASE, grouped(*stream(4000, 0.2, SHIFT, seed=3), 8))
    assert fitted.basis is not None
    assert fitted.basis.refitted == ("scores", "default")
    assert fitted.slope == pytest.approx(1.0, abs=0.15)
    assert fitted.intercept == pytest.approx(-SHIFT, abs=0.3)
    assert fitted.basis.generated == pytest.approx(800, abs=60)


def test_what_too_little_is_known_of_is_kept() -> None:
    review = POLICY.model_copy(update={"max_fpr": 0.2, "value": 0.9})
    both = replace(BASE, policies={"default": POLICY.model_copy(update={"max_fpr": 0.001}), "review": review})
    fitted = recalibrate(both, grouped(*stream(320, 0.0, SHIFT, seed=4), 32))
    assert fitted.basis is not None
    assert fitted.basis.refitted == ("review",)
    assert fitted.policies["default"] == both.policies["default"]
    assert (fitted.slope, fitted.intercept) == (1.0, 0.0)
    assert fitted.version == 0
    few = grouped(*stream(32, 0.0, 0.0, seed=4), 32)
    for confirmations in ([], few):
        with pytest.raises(TooLittleFeedback):
            recalibrate(BASE, confirmations)


def test_upheld_speaks_of_answers_and_not_of_videos() -> None:
    """Of authentic ones that were upheld, each is real: the same as a count of generated ones."""
    logits, generated = stream(960, 0.25, 0.0, seed=5)
    called = logits >= 0
    of_videos = grouped(logits, generated, 32)
    of_answers = [
        replace(
            c,
            holds_if_generated=tuple(bool(called[int(job)]) for job in c.jobs),
            count=sum(bool(called[int(job)]) == bool(generated[int(job)]) for job in c.jobs),
        )
        for c in of_videos
    ]
    one, other = recalibrate(BASE, of_videos), recalibrate(BASE, of_answers)
    assert cut(other) == pytest.approx(cut(one), abs=0.3)
    assert false_positives(other, 0.0) == pytest.approx(0.05, abs=0.025)


def label(job: str, logit: float, generated: bool, at: float = 1e9) -> Confirmation:
    return Confirmation((job,), (logit,), (True,), int(generated), at)


def known(confirmations: Sequence[Confirmation]) -> tuple[float, float, int]:
    """What two hundred reals and these say together: real, generated, left out."""
    reals = [label(f"real {i}", -1.0 + i / 100, False) for i in range(200)]
    basis = recalibrate(BASE, [*reals, *confirmations]).basis
    assert basis is not None
    return basis.real, basis.generated, basis.left_out


def test_of_a_video_one_observation_counts() -> None:
    group = Confirmation(("a", "b", "c"), (1.0, 2.0, 3.0), (True,) * 3, 2, at=2e9)
    assert known([group]) == (201, 2, 0)
    # A label is taken out of the count, which then says the others.
    assert known([group, label("a", 1.0, False)]) == (201, 2, 0)
    # A later label in place of an earlier one.
    assert known([label("a", 1.0, False), label("a", 1.0, True, at=2e9)]) == (200, 1, 1)
    # Labels that a count contradicts: they say which.
    contradicted = replace(group, count=0)
    assert known([contradicted, label("a", 1.0, True)]) == (200, 1, 1)
    # Groups that share a video: the later one.
    assert known([group, replace(group, jobs=("c", "d", "e"), count=0, at=3e9)]) == (203, 0, 1)


def test_feedback_on_what_scores_high_is_weighted_to_be_like_all() -> None:
    """Operators saw every second one above 0, and one of thirty below."""
    logits, _ = stream(12_000, 0.0, 0.0, seed=6)
    rng = np.random.default_rng(7)
    seen = rng.random(len(logits)) < np.where(logits > 0, 0.5, 1 / 30)
    labels = [label(str(i), float(x), False) for i, x in enumerate(logits[seen])]
    edges = np.arange(-8.0, 8.0, 0.5)
    counts, _ = np.histogram(logits, np.append(edges, 8.0))
    unweighted = recalibrate(BASE, labels)
    weighted = recalibrate(BASE, labels, stream=dict(zip(edges.tolist(), counts.tolist(), strict=True)))
    assert false_positives(unweighted, 0.0) < 0.02
    assert false_positives(weighted, 0.0) == pytest.approx(0.05, abs=0.012)
    # Unequal weights say less than as many equal ones.
    assert weighted.policies["default"].calibration_n < unweighted.policies["default"].calibration_n / 2


def test_what_nobody_looked_at_is_spoken_for_by_what_is_next_to_it() -> None:
    """Only flagged ones were seen: the threshold goes up, and not down for lack of low scores."""
    logits, _ = stream(4000, 0.0, 0.0, seed=8)
    labels = [label(str(i), float(x), False) for i, x in enumerate(logits) if x > 1]
    counts, edges = np.histogram(logits, np.arange(-8.0, 8.5, 0.5))
    fitted = recalibrate(BASE, labels, stream=dict(zip(edges[:-1].tolist(), counts.tolist(), strict=True)))
    assert false_positives(fitted, 0.0) < 0.05
