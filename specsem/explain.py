"""Why a file has its verdict: the reasons in words, each with its figures, and what they stand on.

Every sentence follows from the numbers beside it. Nothing here looks at pixels or knows the network; pictures
are drawn by ``specsem.views``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from specsem.attribution import UNKNOWN
from specsem.errors import MediaError
from specsem.media import Clip, Delivery, SamplePlan
from specsem.registry import ModelRecord
from specsem.result import (
    Attribution,
    Evidence,
    Finding,
    Moment,
    Reason,
    Reshipping,
    Segment,
    Share,
    Stability,
    View,
)
from specsem.text import plural

if TYPE_CHECKING:  # torch takes seconds to import, and nothing here needs it
    from specsem.scorer import ClipVerdict, WindowScore
    from specsem.views import Picture

__all__ = ["WHOLE", "evidence_of", "findings_of", "pictures_of", "stability_of"]

DELIVERED: dict[Delivery, str] = {
    "half_size": "half its size",
    "reencode": "encoded again",
    "crop": "cropped",
    "flip": "mirrored",
    "fewer_frames": "at half its frame rate",
}
WHOLE = 0.995
"""A time line of which this share was looked at counts as looked at."""
OPPOSITES = {"generated": "authentic", "authentic": "generated"}
OUTSIDE: dict[Reason, str] = {
    "too_short": "Too little of it could be looked at for a verdict: {value:g} where {limit:g} are needed.",
    "too_small": "Its shorter side has {value:g} pixels; below {limit:g} the model was never measured.",
    "static": "It hardly moves: {value:.3f} of 255 from frame to frame, and stills begin below {limit:.3f}.",
    "low_quality": "It holds hardly any fine detail: {value:.2f} of 255 where {limit:.2f} are needed.",
    "out_of_domain": (
        "It is unlike all that the model was measured on: {value:.2f} away, where up to {limit:.2f} is known "
        "ground."
    ),
    "unstable": (
        "One window decides: with another one left out, the score lies anywhere between {value:.2f} and "
        "{limit:.2f}."
    ),
}
"""What a measure outside of the model's domain means. Value and limit are of ``ClipVerdict.outside``."""


def evidence_of(verdict: ClipVerdict, views: Sequence[View] = ()) -> Evidence:
    """Where the score comes from."""
    peak, lowest = _extremes(verdict.segments)
    return Evidence(
        peak=peak,
        highest=_moment(verdict.segments[peak]),
        lowest=_moment(verdict.segments[lowest]),
        shares=[_share(score) for score in verdict.scores],
        gate=[round(float(s.gate_Nhw.mean()), 5) for s in verdict.scores if s.gate_Nhw.size],
        views=list(views),
    )


def pictures_of(
    decode: Callable[[SamplePlan], Clip], plan: SamplePlan, verdict: ClipVerdict, record: ModelRecord
) -> list[Picture]:
    """Pictures of the windows with the highest and the lowest score; none where they can't be had again.

    ``decode`` is called once; blocking.
    """
    from specsem.views import Look, draw, view_plan  # noqa: PLC0415

    segments = verdict.segments
    wanted = sorted(set(_extremes(segments)), key=lambda i: -segments[i].score)
    try:
        clip = decode(view_plan(plan, sorted(segments[i].start_s for i in wanted)))
    except MediaError:
        return []
    looks = []
    for i in wanted:
        window = min(clip.windows, key=lambda w: abs(w.start_s - segments[i].start_s))
        looks.append(Look(window, i, segments[i].score, verdict.scores[i].gate_Nhw))
    return draw(looks, clip.info, record)


def stability_of(verdict: ClipVerdict, trials: Mapping[Delivery, ClipVerdict]) -> Stability | None:
    """What became of the verdict after each delivery; None where none could be tried.

    ``verdict`` must stand on the same windows: of a file that was scanned, the verdict by sampling.
    """
    if not trials:
        return None
    scores = [verdict.score, *(trial.score for trial in trials.values())]
    return Stability(
        stable=all(trial.verdict != OPPOSITES.get(verdict.verdict) for trial in trials.values()),
        spread=max(scores) - min(scores),
        tried=[
            Reshipping(name=name, score=trial.score, verdict=trial.verdict) for name, trial in trials.items()
        ],
        score=verdict.score,
        verdict=verdict.verdict,
    )


def findings_of(
    verdict: ClipVerdict,
    clip: Clip,
    *,
    stability: Stability | None = None,
    attribution: Attribution | None = None,
) -> list[Finding]:
    """The reasons of a verdict, the weightiest first."""
    found = [_against_thresholds(verdict), _windows(verdict)]
    found += [_outside(reason, *measure) for reason, measure in verdict.outside.items()]
    if stability is not None:
        found.append(_delivery(stability))
    if any(score.semantic_logit for score in verdict.scores):
        found.append(_branches(verdict.scores))
    found.append(_coverage(clip))
    if attribution is not None:
        found.append(_family(attribution))
    return found


def _against_thresholds(verdict: ClipVerdict) -> Finding:
    score, threshold = verdict.score, verdict.threshold
    figures = {"score": score, "threshold": threshold.value, "lower": threshold.lower}
    if score >= threshold.value:
        return Finding(
            code="score_above_threshold",
            text=f"The score is {score:.3f}; from {threshold.value:.3f} up it speaks for a generated video. "
            f"Of camera clips at most {threshold.fpr_upper95:.1%} score so high (95% confidence, "
            f"{threshold.calibration_n} clips that the model had not seen).",
            figures=figures
            | {"fpr_upper95": threshold.fpr_upper95, "calibration_n": float(threshold.calibration_n)},
        )
    if score < threshold.lower:
        return Finding(
            code="score_below_lower",
            text=f"The score is {score:.3f}; below {threshold.lower:.3f} it speaks for camera video.",
            figures=figures,
        )
    return Finding(
        code="score_between_thresholds",
        text=f"The score is {score:.3f}, between {threshold.lower:.3f}, below which it would speak for "
        f"camera video, and {threshold.value:.3f}, from which it would speak for a generated one.",
        figures=figures,
    )


def _windows(verdict: ClipVerdict) -> Finding:
    threshold, scores = verdict.threshold, [segment.score for segment in verdict.segments]
    above = sum(score >= threshold.value for score in scores)
    below = sum(score < threshold.lower for score in scores)
    figures = {"windows": float(len(scores)), "above": float(above), "below": float(below)}
    counted = f"{above} of {plural(len(scores), 'window')} score {threshold.value:.3f} or more"
    if above and below:
        peak, lowest = (verdict.segments[i] for i in _extremes(verdict.segments))
        return Finding(
            code="windows_disagree",
            text=f"{counted}, and {below} below {threshold.lower:.3f}: parts of it may be of different "
            f"origin. The highest, {peak.score:.3f}, is at {peak.start_s:.1f} s, the lowest, "
            f"{lowest.score:.3f}, at {lowest.start_s:.1f} s.",
            figures=figures | {"highest_at_s": peak.start_s, "lowest_at_s": lowest.start_s},
        )
    return Finding(code="windows_above", text=f"{counted}.", figures=figures)


def _outside(reason: Reason, value: float, limit: float) -> Finding:
    text = OUTSIDE[reason].format(value=value, limit=limit)
    return Finding(code=reason, text=text, figures={"value": value, "limit": limit})


def _delivery(stability: Stability) -> Finding:
    before, word = stability.score or 0.0, stability.verdict or "inconclusive"
    scores = [trial.score for trial in stability.tried]
    flipped = [t for t in stability.tried if t.verdict == OPPOSITES.get(word)]
    figures = {
        "tried": float(len(scores)),
        "flipped": float(len(flipped)),
        "lowest": min(scores),
        "highest": max(scores),
        "spread": stability.spread,
    }
    if stability.stable:
        kept = "; the verdict never turns into its opposite" if word in OPPOSITES else ""
        return Finding(
            code="delivery_stable",
            text=f"Delivered in {plural(len(scores), 'other way')}, it scores between {min(scores):.3f} and "
            f"{max(scores):.3f}; as it is, {before:.3f} on the same windows{kept}.",
            figures=figures,
        )
    turned = "; ".join(f"{DELIVERED[t.name]} it scores {t.score:.3f}, {t.verdict}" for t in flipped)
    return Finding(
        code="delivery_unstable",
        text=f"The verdict doesn't survive delivery: as it is it scores {before:.3f}, {word}; {turned}.",
        figures=figures,
    )


def _branches(scores: Sequence[WindowScore]) -> Finding:
    shares = [_share(score) for score in scores]
    spectral = sum(s.spectral for s in shares) / len(shares)
    semantic = sum(s.semantic for s in shares) / len(shares)
    carries = "spectral" if abs(spectral) >= abs(semantic) else "semantic"
    return Finding(
        code=f"{carries}_carries",
        text=f"The {carries} branch weighs most: of the logit {spectral + semantic:+z.2f}, {spectral:+z.2f} "
        f"is what the fine structure says and {semantic:+z.2f} what is shown.",
        figures={"logit": spectral + semantic, "spectral": spectral, "semantic": semantic},
    )


def _coverage(clip: Clip) -> Finding:
    coverage = clip.coverage
    whole = coverage.fraction >= WHOLE
    return Finding(
        code="covered_whole" if whole else "covered_part",
        text=f"All of its {coverage.duration_s:.1f} s were looked at."
        if whole
        else f"{coverage.analysed_s:.1f} s of {coverage.duration_s:.1f} s were looked at "
        f"({coverage.fraction:.0%}); nothing is known of the rest.",
        figures={
            "analysed_s": coverage.analysed_s,
            "duration_s": coverage.duration_s,
            "fraction": coverage.fraction,
        },
    )


def _family(attribution: Attribution) -> Finding:
    figures = {"probability": attribution.probability}
    if attribution.family == UNKNOWN:
        return Finding(
            code="family_unknown",
            text=f"Which generator made it can't be said. {attribution.basis}",
            figures=figures,
        )
    return Finding(
        code="family_named",
        text=f"Of the families of generators that are known here, it looks most like {attribution.family} "
        f"(probability {attribution.probability:.2f}, if it is generated). {attribution.basis}",
        figures=figures,
    )


def _extremes(segments: Sequence[Segment]) -> tuple[int, int]:
    """Where the highest and the lowest score are; the first of equals."""
    scores = [segment.score for segment in segments]
    return scores.index(max(scores)), scores.index(min(scores))


def _moment(segment: Segment) -> Moment:
    return Moment(pts_s=round((segment.start_s + segment.end_s) / 2, 3), score=segment.score)


def _share(score: WindowScore) -> Share:
    return Share(spectral=score.logit - score.semantic_logit, semantic=score.semantic_logit)
