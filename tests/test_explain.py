"""Reasons in words, and what becomes of a verdict by delivery."""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pytest

from specsem.explain import evidence_of, findings_of, stability_of
from specsem.media import Clip, Coverage, MediaInfo
from specsem.pipeline import Options, assemble
from specsem.registry import ModelRecord
from specsem.result import Attribution, Reason, Segment, Threshold

THRESHOLD = Threshold(value=0.9, lower=0.1, max_fpr=0.01, fpr_upper95=0.022, calibration_n=284)
INFO = MediaInfo(container="mp4", codec="h264", width=640, height=360, fps=25.0, duration_s=8.0)
CLIP = Clip(INFO, [], Coverage(2.0, 8.0, 0.25))


@dataclass(frozen=True)
class Score:
    """As ``specsem.scorer.WindowScore``, without torch."""

    logit: float
    semantic_logit: float = 0.0
    gate_Nhw: npt.NDArray[np.float32] = field(default_factory=lambda: np.full((1, 2, 2), 0.25, np.float32))


@dataclass(frozen=True)
class Verdict:
    """As ``specsem.scorer.ClipVerdict``."""

    verdict: str
    score: float
    segments: list[Segment]
    scores: list[Score]
    logit: float = 1.0
    threshold: Threshold = THRESHOLD
    reasons: list[Reason] = field(default_factory=list)
    outside: dict[Reason, tuple[float, float]] = field(default_factory=dict)
    attribution: Attribution | None = None
    calibration: None = None


def verdict(word: str, *scores: float, **more: object) -> Verdict:
    segments = [Segment(start_s=float(i), end_s=i + 0.5, score=s) for i, s in enumerate(scores)]
    return Verdict(word, sum(scores) / len(scores), segments, [Score(s, s / 4) for s in scores], **more)


def codes(of: Verdict, **more: object) -> list[str]:
    return [finding.code for finding in findings_of(of, CLIP, **more)]


def test_each_verdict_says_where_its_score_lies() -> None:
    assert codes(verdict("generated", 0.95, 0.99))[0] == "score_above_threshold"
    assert codes(verdict("authentic", 0.02, 0.01))[0] == "score_below_lower"
    assert codes(verdict("inconclusive", 0.4, 0.6))[0] == "score_between_thresholds"


def test_a_finding_says_the_figures_that_it_stands_on() -> None:
    first, windows, branches, coverage = findings_of(verdict("generated", 0.95, 0.89, 0.97), CLIP)
    assert first.figures["fpr_upper95"] == 0.022
    assert "2.2%" in first.text
    assert "284" in first.text
    assert windows.code == "windows_above"
    assert windows.figures == {"windows": 3, "above": 2, "below": 0}
    assert windows.text.startswith("2 of 3 windows")
    assert branches.code == "spectral_carries"
    assert branches.figures["spectral"] == pytest.approx(3 * branches.figures["semantic"])
    assert coverage.code == "covered_part"
    assert "25%" in coverage.text


def test_windows_of_both_kinds_are_said_with_their_times() -> None:
    found = findings_of(verdict("inconclusive", 0.05, 0.02, 0.97), CLIP)[1]
    assert found.code == "windows_disagree"
    assert (found.figures["highest_at_s"], found.figures["lowest_at_s"]) == (2.0, 1.0)


def test_what_lies_outside_of_the_domain_is_said_with_its_limit() -> None:
    outside: dict[Reason, tuple[float, float]] = {
        "too_short": (4, 8),
        "too_small": (80, 96),
        "static": (0.001, 0.02),
        "low_quality": (0.1, 0.5),
        "out_of_domain": (3.1, 2.2),
        "unstable": (0.05, 0.95),
    }
    found = {f.code: f for f in findings_of(verdict("inconclusive", 0.95, outside=outside), CLIP)}
    for reason, (value, limit) in outside.items():
        assert found[reason].figures == {"value": value, "limit": limit}
        assert f"{limit:.3f}".rstrip("0").rstrip(".") in found[reason].text


def test_evidence_names_peak_and_lowest_and_its_shares_add_up() -> None:
    of = verdict("inconclusive", 0.4, 0.9, 0.2)
    evidence = evidence_of(of)
    assert evidence.peak == 1
    assert (evidence.highest.score, evidence.highest.pts_s) == (0.9, 1.25)
    assert (evidence.lowest.score, evidence.lowest.pts_s) == (0.2, 2.25)
    assert [s.spectral + s.semantic for s in evidence.shares] == pytest.approx([0.4, 0.9, 0.2])
    assert evidence.gate == [0.25, 0.25, 0.25]


def test_a_verdict_that_delivery_turns_into_its_opposite_is_none() -> None:
    of = verdict(
        "generated", 0.95, attribution=Attribution(family="a", probability=1, candidates=[], basis="")
    )
    trials = {"flip": verdict("generated", 0.93), "reencode": verdict("authentic", 0.05)}
    stability = stability_of(of, trials)
    assert stability is not None
    assert not stability.stable
    assert stability.spread == pytest.approx(0.9)
    answer = answered(of, Options(stability=True, evidence=True), stability=stability)
    assert (answer.verdict, answer.reasons) == ("inconclusive", ["unstable"])
    assert answer.attribution is None
    said = next(f for f in answer.findings if f.code == "delivery_unstable")
    assert said.figures["flipped"] == 1
    assert "encoded again it scores 0.050, authentic" in said.text


@pytest.mark.parametrize("word", ["generated", "inconclusive"])
def test_a_verdict_that_only_becomes_uncertain_stays(word: str) -> None:
    of, trials = verdict(word, 0.95), {"flip": verdict("inconclusive", 0.5)}
    stability = stability_of(of, trials)
    assert stability is not None
    assert stability.stable
    answer = answered(of, Options(stability=True), stability=stability)
    assert answer.verdict == word
    assert "delivery_stable" in [f.code for f in answer.findings]


def test_nothing_tried_is_said_so_and_not_called_stable() -> None:
    of = verdict("generated", 0.95)
    assert stability_of(of, {}) is None
    answer = answered(of, Options(stability=True), stability=None)
    assert answer.stability is None
    assert answer.warnings == ["stability_not_checked"]


def test_a_family_is_named_only_where_it_is_asked_for_and_the_verdict_is_generated() -> None:
    family = Attribution(family="wan", probability=0.6, candidates=[], basis="Of 10 clips 6 were right.")
    of = verdict("generated", 0.95, attribution=family)
    assert answered(of, Options()).attribution is None
    named = answered(of, Options(evidence=True))
    assert named.attribution == family
    assert "6 were right" in named.findings[-1].text
    assert answered(replace(of, verdict="inconclusive"), Options(evidence=True)).attribution is None
    unknown = family.model_copy(update={"family": "unknown"})
    said = answered(replace(of, attribution=unknown), Options(evidence=True)).findings[-1]
    assert said.code == "family_unknown"


def answered(of: Verdict, options: Options, **more: object):
    record = ModelRecord("m", "1", "none", "", "0" * 64, {}, None)
    return assemble(
        path="a.mp4",
        sha256="0" * 64,
        clip=CLIP,
        verdict=of,
        record=record,
        timing_ms={},
        options=options,
        **more,
    )
